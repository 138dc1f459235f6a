package chaos

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
	"github.com/edge-serverless-box/esb/tests/traffic"
)

// churnEach bounds what a container of the churn may take on a slow machine.
const churnEach = 3 * time.Second

// runChurn has containers come and go.
func runChurn(t *testing.T, b *box, a *account) {
	const name = "churn"
	p := a.open(t, name)
	// Each function ends a second after its answer, and is asked when it has had the time to.
	const rate = float64(coldFunctions) / 4
	before := b.uses(t)
	began := time.Now()
	stop := b.send(t, b.coldStream(rate))
	lasts := a.plan.lasts(80*time.Second, 20*time.Second, 80*time.Second)
	if a.plan.churn > 0 {
		lasts = time.Duration(a.plan.churn) * churnEach
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for time.Since(began) < lasts && (a.plan.churn == 0 || instances(b.gen.Samples("cold", began, time.Now())) < a.plan.churn) {
		<-ticker.C
	}
	stop()
	all := b.gen.Samples("cold", began, b.mustSettle(t))
	p.count(all)
	failed := traffic.Failed(all)
	p.hold(t, len(failed) == 0, "%d of %d failed: %s", len(failed), len(all), describe(failed, began))
	made := instances(all)
	p.hold(t, made >= max(a.plan.churn, 1), "%d containers were made in %s, %d were wanted", made, short(time.Since(began)), a.plan.churn)
	p.measure("%d containers in %s, cold start p50 %s p99 %s", made, short(time.Since(began)), short(traffic.Quantile(all, 0.5)), short(traffic.Quantile(all, 0.99)))
	third := len(all) / 3
	p.measure("p50 of the first third %s, of the last %s", short(traffic.Quantile(all[:third], 0.5)), short(traffic.Quantile(all[len(all)-third:], 0.5)))
	b.checkLeaks(t, p)
	b.checkUses(t, p, before)
}

// instances counts the containers that have answered.
func instances(samples []traffic.Sample) int {
	seen := map[string]bool{}
	for _, s := range samples {
		if s.OK() {
			seen[s.Said] = true
		}
	}
	return len(seen)
}

// runReload changes the functions that are asked, each second.
func runReload(t *testing.T, b *box, a *account) {
	p := a.open(t, "a reload a second")
	changes := a.plan.times(20, 5, 60)
	began := time.Now()
	stop := b.send(t, traffic.Stream{Name: "changing", Rate: 45, Request: b.post(changingName, okBody)})
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for range changes {
		<-ticker.C
		b.config.change++
		require.NoError(t, b.config.write())
	}
	stop()
	all := b.gen.Samples("changing", began, b.mustSettle(t))
	p.count(all)
	failed := traffic.Failed(all)
	p.hold(t, len(failed) == 0, "%d of %d failed in %d changes: %s", len(failed), len(all), changes, describe(failed, began))
	p.measure("%d changes, p50 %s p99 %s", changes, short(traffic.Quantile(all, 0.5)), short(traffic.Quantile(all, 0.99)))
	over := time.Now()
	stack.Eventually(t, func() bool { return b.rests(t.Context()) }, "the last one must be what serves")
	p.measure("all workers are of the last one %s later", short(time.Since(over)))
	b.checkLeaks(t, p)
}

package chaos

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/edge-serverless-box/esb/tests/stack"
	"github.com/edge-serverless-box/esb/tests/traffic"
)

// neighbour is a function that takes more than its share.
type neighbour struct {
	name, function, order string
	// clients ask it at the same time.
	clients int
}

// runNeighbours has bad functions beside a quiet one, which must not notice more than that the machine is busy.
func runNeighbours(t *testing.T, b *box, a *account) {
	lasts := a.plan.lasts(6*time.Second, 3*time.Second, 30*time.Second)
	from := time.Now()
	stop := b.send(t, b.quietStream())
	b.mustSend(t, "quiet", from, 60)
	stop()
	alone := b.gen.Samples("quiet", from, b.mustSettle(t))
	seconds := int(lasts.Seconds())
	for _, n := range []neighbour{
		{"CPU hogs, 4 x 2 CPUs", "hog", fmt.Sprintf(`{"action":"burn","seconds":%d}`, seconds), 4},
		{"memory over its limit x 2", "glutton", `{"action":"eat"}`, 2},
		{"fork bomb of 128 MB", "bomb", `{"action":"fork"}`, 1},
		{"log flood", "flood", fmt.Sprintf(`{"action":"print","seconds":%d}`, seconds), 1},
		{"tmp is full", "hoarder", fmt.Sprintf(`{"action":"hoard","seconds":%d}`, seconds), 1},
	} {
		t.Run(n.name, func(t *testing.T) { b.beside(t, a.open(t, n.name), n, lasts, alone) })
	}
	t.Run("overload beside CPU hogs", func(t *testing.T) {
		b.overloadBesideHogs(t, a.open(t, "overload of 20 functions beside CPU hogs, 4 x 2 CPUs"), a.plan.lasts(10*time.Second, 3*time.Second, 30*time.Second))
	})
	t.Run("after the neighbours", func(t *testing.T) {
		p := a.open(t, "after the neighbours")
		b.checkLeaks(t, p)
	})
}

func (b *box) beside(t *testing.T, p *part, n neighbour, lasts time.Duration, alone []traffic.Sample) {
	bad := traffic.Stream{Name: "bad", Request: b.post(always(n.function), n.order)}
	from := time.Now()
	stop := b.send(t, b.quietStream())
	ctx, cancel := context.WithTimeout(t.Context(), lasts)
	defer cancel()
	// One that ends at once is asked again.
	asked := b.gen.Closed(ctx, n.clients, bad)
	p.count(asked)
	p.measure("its callers got %s", traffic.CausesText(traffic.Causes(asked)))
	over := time.Now()
	stop()
	end := b.mustSettle(t)
	quiet := b.gen.Samples("quiet", from, end)
	p.count(quiet)
	failed := traffic.Failed(quiet)
	p.hold(t, len(failed) == 0, "%d quiet requests failed: %s", len(failed), describe(failed, from))
	p.measure("quiet p99 alone %s", short(traffic.Quantile(alone, 0.99)))
	p.within(t, "beside", traffic.Quantile(quiet, 0.99), max(slower*traffic.Quantile(alone, 0.99), quietLeast))
	stack.Eventually(t, func() bool { return len(b.Containers(t, n.function)) == 0 }, "its containers must go")
	p.measure("gone %s later", short(time.Since(over)))
}

// hogSeconds is how long a hog burns until it is asked again.
const hogSeconds = 10

// overloadBesideHogs overloads the crowd while other functions take all the CPU that they get.
func (b *box) overloadBesideHogs(t *testing.T, p *part, lasts time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	var hogs sync.WaitGroup
	end := func() { cancel(); hogs.Wait() }
	defer end()
	hogs.Go(func() {
		bad := traffic.Stream{Name: "bad", Request: b.post(always("hog"), fmt.Sprintf(`{"action":"burn","seconds":%d}`, hogSeconds))}
		p.count(b.gen.Closed(ctx, 4, bad))
	})
	stack.Eventually(t, func() bool { return len(b.Containers(t, "hog")) == 4 }, "all hogs must be there")
	b.overload(t, p, crowdFunctions, lasts)
	p.hold(t, len(b.Containers(t, "hog")) > 0, "the hogs must have been there all the while")
	end()
	b.mustRest(t)
}

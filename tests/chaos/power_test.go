package chaos

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/hoststate"
	"github.com/edge-serverless-box/esb/tests/stack"
	"github.com/edge-serverless-box/esb/tests/traffic"
)

// upLimit is until when a box that lost its power is healthy again, on a machine that does nothing else.
const upLimit = 5 * time.Second

// runPower ends everything of the box at once, at a random moment under load, as often as the plan says.
func runPower(t *testing.T, b *box, a *account) {
	random := a.plan.random(2)
	for round := range a.plan.rounds {
		if round > 0 && !a.plan.allRounds && a.plan.late(a.began, 0.5) {
			t.Logf("%d of %d rounds: the others have no time", round, a.plan.rounds)
			return
		}
		t.Run(fmt.Sprint("power loss ", round+1), func(t *testing.T) {
			p := a.open(t, fmt.Sprint("power loss ", round+1))
			b.mustWarm(t)
			began := time.Now()
			stop := b.send(t, b.warmStream(warmRate), b.coldStream(coldRate), b.eventStream(20))
			// The moment is that of a random request.
			b.mustSend(t, "warm", began, warmRate/2+random.IntN(2*warmRate))
			killed, err := hoststate.KillAll(b.Home, b.Bridge)
			require.NoError(t, err)
			p.measure("%d processes killed", killed)
			lost := time.Now()
			out, err := b.Esb(t.Context(), "up")
			up := time.Now()
			t.Log(out)
			require.NoError(t, err)
			p.within(t, "up took", up.Sub(lost), upLimit)
			stack.Eventually(t, func() bool {
				_, ok := firstAnswer(b.gen.Samples("warm", up, time.Now()))
				return ok
			}, "a warm function must answer")
			first, _ := firstAnswer(b.gen.Samples("warm", up, time.Now()))
			p.measure("first warm 200 %s after it", short(first.Answered().Sub(up)))
			b.mustBeWell(t)
			b.mustWarm(t)
			p.measure("all workers after %s", short(time.Since(lost)))
			stop()
			until := b.mustSettle(t)
			p.count(b.gen.Samples("", began, until))
			failed := traffic.Failed(b.gen.Samples("warm", first.Sent, until))
			p.hold(t, len(failed) == 0, "%d warm requests failed after the first that was answered: %s", len(failed), describe(failed, up))
			b.checkEvents(t, p, began)
			b.checkLeaks(t, p)
		})
	}
}

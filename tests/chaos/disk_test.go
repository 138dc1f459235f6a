package chaos

import (
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/smalldisk"
	"github.com/edge-serverless-box/esb/tests/stack"
	"github.com/edge-serverless-box/esb/tests/traffic"
)

// runDisk fills the disk of a box while it serves, kills its gateway on the full disk, and gives the room back.
func runDisk(t *testing.T, b *box, a *account) {
	p := a.open(t, "full disk")
	b.mustBeWell(t)
	workers := b.mustWarm(t)
	began := time.Now()
	stop := b.send(t, b.warmStream(20), b.coldStream(coldRate), b.eventStream(5))
	b.mustSend(t, "warm", began, 40)
	filler := smalldisk.Fill(t, b.Home, 0)
	full := time.Now()
	b.mustSend(t, "event", full, 10)
	said := ""
	stack.Eventually(t, func() bool {
		out, err := b.Esb(t.Context(), "status")
		said = out
		return err != nil && strings.Contains(out, "the disk of")
	}, "a full disk must be said: %s", said)
	b.mustSend(t, "warm", time.Now(), 40)
	until := b.mustSettle(t)
	warm := b.gen.Samples("warm", began, until)
	failed := traffic.Failed(warm)
	p.hold(t, len(failed) == 0, "%d of %d warm requests failed: %s", len(failed), len(warm), describe(failed, full))
	p.measure("warm p99 %s, on the full disk %s", short(traffic.Quantile(b.gen.Samples("warm", began, full), 0.99)), short(traffic.Quantile(b.gen.Samples("warm", full, until), 0.99)))
	refused := traffic.Failed(b.gen.Samples("event", full, until))
	p.measure("%d events refused (%s)", len(refused), traffic.CausesText(traffic.Causes(refused)))
	p.hold(t, len(refused) > 0, "events are refused where there is no room for them")

	// A little room is what a start on a full disk needs.
	require.NoError(t, os.Remove(filler))
	filler = smalldisk.Fill(t, b.Home, 24<<20)
	gateway := b.pids(t, "gateway")
	require.Len(t, gateway, 1)
	struck := time.Now()
	require.NoError(t, syscall.Kill(gateway[0], syscall.SIGKILL))
	stack.Eventually(t, func() bool {
		_, ok := firstAnswer(b.gen.Samples("warm", struck, time.Now()))
		return ok
	}, "the gateway must come back on a full disk")
	first, _ := firstAnswer(b.gen.Samples("warm", struck, time.Now()))
	p.within(t, "first warm 200 after kill -9 of the gateway", first.Answered().Sub(struck), warmLimit)

	require.NoError(t, os.Remove(filler))
	room := time.Now()
	b.mustBeWell(t)
	p.measure("healthy %s after there is room", short(time.Since(room)))
	again := b.probe(t, room)
	p.within(t, "cold again after", again.Sub(room), coldLimit)
	now := b.mustWarm(t)
	p.hold(t, assert.ObjectsAreEqual(workers, now), "the workers are kept: %v, then %v", workers, now)
	b.mustSend(t, "event", time.Now(), 10)
	stop()
	until = b.mustSettle(t)
	p.count(b.gen.Samples("", began, until))
	failed = traffic.Failed(b.gen.Samples("warm", first.Sent, until))
	p.hold(t, len(failed) == 0, "%d warm requests failed after the first that was answered: %s", len(failed), describe(failed, struck))
	for _, s := range traffic.Failed(b.gen.Samples("event", room, until)) {
		p.hold(t, s.Status != http.StatusInternalServerError || s.Sent.Sub(room) < waitForRoom, "an event was refused %s after there is room", short(s.Sent.Sub(room)))
	}
	b.checkEvents(t, p, began)
	b.checkLeaks(t, p)
}

// waitForRoom is when the gateway must have seen that there is room.
const waitForRoom = time.Minute

package imagewatch

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

// fakeAgent has images, or is away.
type fakeAgent struct {
	mu     sync.Mutex
	images map[gateway.ImageReference]string
	away   bool
	slow   time.Duration
	// asked is when it was asked last, and what.
	asked   time.Time
	askedOf []gateway.ImageReference
}

func (a *fakeAgent) ImageVersions(ctx context.Context, refs []gateway.ImageReference) (map[gateway.ImageReference]string, error) {
	a.mu.Lock()
	a.asked, a.askedOf = time.Now(), refs
	away, slow, found := a.away, a.slow, maps.Clone(a.images)
	a.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if away {
		return nil, errors.New("away")
	}
	return found, nil
}

func (a *fakeAgent) change(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// pools takes what is applied.
type pools struct {
	mu    sync.Mutex
	times int
	last  map[string]*gateway.Function
}

func (p *pools) apply(functions map[string]*gateway.Function) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.times++
	p.last = functions
}

func (p *pools) get(name string) (gateway.Function, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return *p.last[name], p.times
}

func mustOpen(t *testing.T, a *fakeAgent, poll time.Duration) (*Watcher, *pools) {
	p := &pools{}
	w := Open(Options{Agent: a, Poll: poll, Logger: slog.New(slog.DiscardHandler)}, p.apply)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	return w, p
}

func functions() map[string]*gateway.Function {
	return map[string]*gateway.Function{
		"a": {Name: "a", Image: "i:1", Generation: "ga"},
		"b": {Name: "b", Image: "i:1", Generation: "gb"},
		"c": {Name: "c", Code: &gateway.FunctionCode{Runtime: "python3.11"}, Generation: "gc"},
		"d": {Name: "d", Image: "missing:1", Generation: "gd"},
	}
}

func TestWatcher_NewDigest_IsANewGenerationOfThoseWhoHaveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		image, python := gateway.ImageReference{Image: "i:1"}, gateway.ImageReference{Runtime: "python3.11"}
		a := &fakeAgent{images: map[gateway.ImageReference]string{image: "sha256:1", python: "sha256:p"}}
		w, p := mustOpen(t, a, 2*time.Second)
		w.Set(functions())
		before := map[string]gateway.Function{}
		for name := range functions() {
			before[name], _ = p.get(name)
			assert.Equal(t, functions()[name].Generation, before[name].BaseGeneration)
		}
		assert.Equal(t, "sha256:1", before["a"].ImageDigest)
		assert.NotEqual(t, "ga", before["a"].Generation)
		assert.NotEqual(t, before["a"].Generation, before["b"].Generation)
		assert.Equal(t, "sha256:p", before["c"].ImageDigest)
		assert.Equal(t, "gd", before["d"].Generation, "nothing is known of it")

		time.Sleep(time.Minute)
		_, times := p.get("a")
		assert.Equal(t, 1, times, "nothing has changed")

		a.change(func() { a.images[image] = "sha256:2" })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for name, changes := range map[string]bool{"a": true, "b": true, "c": false, "d": false} {
			now, _ := p.get(name)
			assert.Equal(t, changes, now.Generation != before[name].Generation, name)
		}
		a.change(func() { a.images[gateway.ImageReference{Image: "missing:1"}] = "sha256:m" })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		now, _ := p.get("d")
		assert.Equal(t, []string{"sha256:m", "gd"}, []string{now.ImageDigest, now.BaseGeneration})
	})
}

func TestWatcher_AgentAwayOrSlow_HoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		image := gateway.ImageReference{Image: "i:1"}
		a := &fakeAgent{images: map[gateway.ImageReference]string{image: "sha256:1"}, slow: 10 * time.Second}
		w, p := mustOpen(t, a, 2*time.Second)
		began := time.Now()
		w.Set(functions())
		assert.Equal(t, time.Second, time.Since(began))
		fn, _ := p.get("a")
		assert.Equal(t, "ga", fn.Generation)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		fn, _ = p.get("a")
		assert.Equal(t, "sha256:1", fn.ImageDigest)
		known := fn.Generation
		a.change(func() { a.away, a.slow = true, 0 })
		time.Sleep(20 * time.Second)
		a.change(func() { a.away = false; delete(a.images, image) })
		time.Sleep(20 * time.Second)
		fn, _ = p.get("a")
		assert.Equal(t, known, fn.Generation, "workers are not worse for what the agent does not say")
	})
}

// TestWatcher_OffOrSeldom_NamesImagesAllTheSame: the agent removes those that nobody asks for.
func TestWatcher_OffOrSeldom_NamesImagesAllTheSame(t *testing.T) {
	for _, poll := range []time.Duration{0, 24 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			image := gateway.ImageReference{Image: "i:1"}
			a := &fakeAgent{images: map[gateway.ImageReference]string{image: "sha256:1"}}
			w, p := mustOpen(t, a, poll)
			w.Set(functions())
			before, _ := p.get("a")
			a.change(func() { a.images[image] = "sha256:2" })
			for range 30 {
				time.Sleep(keepInterval)
				synctest.Wait()
				a.change(func() {
					assert.Less(t, time.Since(a.asked), keepInterval)
					assert.Equal(t, references(functions()), a.askedOf)
				})
			}
			now, times := p.get("a")
			assert.Equal(t, before.Generation, now.Generation, "nobody wants the answer")
			assert.Equal(t, 1, times)
			if poll == 0 {
				assert.Equal(t, "ga", now.Generation)
			}
		})
	}
}

// TestWatcher_NoFunctions_TellsTheAgentSo: else it would keep all images for want of word.
func TestWatcher_NoFunctions_TellsTheAgentSo(t *testing.T) {
	for _, poll := range []time.Duration{0, 2 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			a := &fakeAgent{}
			w, _ := mustOpen(t, a, poll)
			time.Sleep(2 * keepInterval)
			synctest.Wait()
			a.change(func() { assert.Zero(t, a.asked, "functions are not known yet") })
			w.Set(map[string]*gateway.Function{})
			time.Sleep(keepInterval + time.Second)
			synctest.Wait()
			a.change(func() {
				assert.Less(t, time.Since(a.asked), keepInterval)
				assert.Empty(t, a.askedOf)
			})
		})
	}
}

func TestWatcher_ImageThatNoFunctionHas_IsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		image := gateway.ImageReference{Image: "i:1"}
		a := &fakeAgent{images: map[gateway.ImageReference]string{image: "sha256:1", {Image: "another's"}: "sha256:x"}}
		w, p := mustOpen(t, a, 2*time.Second)
		known := func() int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return len(w.digests)
		}
		w.Set(functions())
		assert.Equal(t, 1, known(), "what nobody asked for is nobody's")
		a.change(func() { a.images[gateway.ImageReference{Runtime: "python3.11"}] = "sha256:p" })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		assert.Equal(t, 2, known())

		left := functions()
		delete(left, "a")
		delete(left, "b")
		w.Set(left)
		assert.Equal(t, 1, known())
		time.Sleep(5 * time.Second)
		synctest.Wait()
		assert.Equal(t, 1, known(), "the agent may still tell")
		// Back, it is asked for anew.
		a.change(func() { a.images[image] = "sha256:2" })
		w.Set(functions())
		fn, _ := p.get("a")
		assert.Equal(t, "sha256:2", fn.ImageDigest)
		w.Set(nil)
		assert.Zero(t, known())
	})
}

package images

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeTags has images here and there.
type fakeTags struct {
	mu          sync.Mutex
	local, away map[string]digest.Digest
	// asked and pulled count by name.
	asked, pulled map[string]int
	silent, torn  bool
	// registry, when not nil, is asked instead of away.
	registry func(ctx context.Context, name string) (digest.Digest, error)
}

func newFakeTags() *fakeTags {
	return &fakeTags{local: map[string]digest.Digest{}, away: map[string]digest.Digest{}, asked: map[string]int{}, pulled: map[string]int{}}
}

func (f *fakeTags) here(_ context.Context, name string) (digest.Digest, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d, ok := f.local[name]; ok {
		return d, nil
	}
	return "", errdefs.ErrNotFound
}

func (f *fakeTags) there(ctx context.Context, name string) (digest.Digest, error) {
	f.mu.Lock()
	f.asked[name]++
	silent, found, registry := f.silent, f.away[name], f.registry
	f.mu.Unlock()
	switch {
	case silent:
		<-ctx.Done()
		return "", ctx.Err()
	case registry != nil:
		return registry(ctx, name)
	case found == "":
		return "", errdefs.ErrNotFound
	}
	return found, nil
}

func (f *fakeTags) pull(ctx context.Context, name string) error {
	f.mu.Lock()
	torn := f.torn
	f.pulled[name]++
	f.mu.Unlock()
	if torn {
		return errors.New("torn")
	}
	d, err := f.there(ctx, name)
	f.change(func() { f.local[name] = d })
	return err
}

func (f *fakeTags) change(to func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	to()
}

func (f *fakeTags) count(counts map[string]int, name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return counts[name]
}

// mustWatch returns a watch that ends with the test.
func mustWatch(t *testing.T, tags tagSource, remote time.Duration) *registryWatch {
	t.Helper()
	life, end := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { end(); running.Wait() })
	return newRegistryWatch(life, &running, tags, remote, slog.New(slog.DiscardHandler))
}

const (
	ownTag    = "127.0.0.1:5010/my/app:1"
	remoteTag = "registry.example.com/my/app:1"
	pinned    = "127.0.0.1:5010/my/app@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

// looks has the watch look every two seconds, as the gateway does, for some time.
func looks(w *registryWatch, names []string, howLong time.Duration) {
	for end := time.Now().Add(howLong); time.Now().Before(end); time.Sleep(2 * time.Second) {
		w.look(names)
		synctest.Wait()
	}
}

func TestRegistryWatch_AsksEachRegistryAtItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tags := newFakeTags()
		for _, name := range []string{ownTag, remoteTag, pinned} {
			tags.local[name], tags.away[name] = "sha256:1", "sha256:1"
		}
		const unused = "127.0.0.1:5010/my/unused:1"
		tags.away[unused] = "sha256:1"
		names := []string{ownTag, remoteTag, pinned, unused, ownTag}
		w := mustWatch(t, tags, time.Minute)
		looks(w, names, 10*time.Minute)
		assert.Equal(t, map[string]int{ownTag: 300, remoteTag: 10}, tags.asked, "neither what cannot change nor what nothing runs of")
		assert.Empty(t, tags.pulled)

		tags.change(func() { tags.away[ownTag], tags.away[remoteTag] = "sha256:2", "sha256:2" })
		looks(w, names, 2*time.Second)
		assert.Equal(t, map[string]int{ownTag: 1, remoteTag: 1}, tags.pulled)
		looks(w, names, 2*time.Minute)
		assert.Equal(t, map[string]int{ownTag: 1, remoteTag: 1}, tags.pulled, "once each")

		tags.change(func() { delete(tags.away, ownTag) })
		looks(w, names, time.Minute)
		assert.Equal(t, digest.Digest("sha256:2"), tags.local[ownTag], "what was taken away stays here")

		before := tags.count(tags.asked, remoteTag)
		looks(mustWatch(t, tags, 0), names, 10*time.Minute)
		assert.Equal(t, before, tags.count(tags.asked, remoteTag), "never")
	})
}

func TestRegistryWatch_SilentRegistry_IsAskedEverMoreSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tags := newFakeTags()
		const second = "registry.example.com/my/other:1"
		tags.local[remoteTag], tags.local[second], tags.silent = "sha256:1", "sha256:1", true
		names := []string{remoteTag, second}
		w := mustWatch(t, tags, time.Minute)
		began := time.Now()
		w.look(names)
		assert.Zero(t, time.Since(began), "nobody waits")
		looks(w, names, time.Hour)
		// After 0, 2, 4, 8 minutes more, and 10 each from then on.
		assert.InDelta(t, 8, tags.count(tags.asked, remoteTag), 1)
		assert.Zero(t, tags.count(tags.asked, second), "the same registry")
		tags.change(func() { tags.silent, tags.away[remoteTag], tags.away[second] = false, "sha256:2", "sha256:1" })
		looks(w, names, 11*time.Minute)
		assert.Equal(t, map[string]int{remoteTag: 1}, tags.pulled)
		before := tags.count(tags.asked, second)
		looks(w, names, 10*time.Minute)
		assert.Equal(t, before+10, tags.count(tags.asked, second), "at its pace again")
	})
}

func TestRegistryWatch_ImageThatCannotBePulled_HoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tags := newFakeTags()
		tags.local[ownTag], tags.away[ownTag], tags.torn = "sha256:1", "sha256:2", true
		w := mustWatch(t, tags, 0)
		looks(w, []string{ownTag}, 5*time.Minute)
		assert.Equal(t, 1, tags.count(tags.pulled, ownTag))
		assert.Greater(t, tags.count(tags.asked, ownTag), 100)
		looks(w, []string{ownTag}, 6*time.Minute)
		assert.Equal(t, 2, tags.count(tags.pulled, ownTag), "once more after a while")
		tags.change(func() { tags.away[ownTag], tags.torn = "sha256:3", false })
		looks(w, []string{ownTag}, 2*time.Second)
		assert.Equal(t, digest.Digest("sha256:3"), tags.local[ownTag], "another one at once")
	})
}

// TestRegistryWatch_AsksARegistryWithHEADAlone speaks to two registries: one is silent.
func TestRegistryWatch_AsksARegistryWithHEADAlone(t *testing.T) {
	manifest := digest.FromString
	var mu sync.Mutex
	current := "first"
	requests := map[string]int{}
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		user, password, _ := r.BasicAuth()
		if user != "esb" || password != "secret" {
			w.Header().Set("Www-Authenticate", `Basic realm="registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		requests[r.Method+" "+r.URL.Path]++
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", manifest(current).String())
		w.Header().Set("Content-Length", "5")
	}))
	t.Cleanup(registry.Close)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, silent.Close()) })
	host := strings.TrimPrefix(registry.URL, "http://")
	client := newRegistryClient()
	t.Cleanup(client.CloseIdleConnections)
	tags := newFakeTags()
	tags.registry = (&Store{registries: client, credentials: credentialSource{registry: host, user: "esb", password: "secret"}}).there
	name, mute := host+"/my/app:1", silent.Addr().String()+"/my/app:1"
	tags.local[name], tags.local[mute] = manifest("first"), manifest("first")
	w := mustWatch(t, tags, 0)
	names := []string{mute, name, host + "/my/app@" + manifest("first").String()}
	local := func() digest.Digest {
		w.look(names)
		d, _ := tags.here(t.Context(), name)
		return d
	}
	require.Eventually(t, func() bool { return local() != "" && tags.count(tags.asked, name) > 1 }, time.Minute, 10*time.Millisecond)
	assert.Zero(t, tags.count(tags.pulled, name))
	mu.Lock()
	current = "second"
	mu.Unlock()
	require.Eventually(t, func() bool { return local() == manifest("second") }, time.Minute, 10*time.Millisecond, "whatever another registry does")
	assert.Equal(t, 1, tags.count(tags.pulled, name))
	mu.Lock()
	defer mu.Unlock()
	for request := range requests {
		assert.Equal(t, "HEAD /v2/my/app/manifests/1", request)
	}
}

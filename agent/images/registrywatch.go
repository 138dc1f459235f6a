package images

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

const (
	// askTimeout bounds one question to a registry.
	askTimeout = 5 * time.Second
	// ownPause is the least time between two rounds of questions to a registry on this machine.
	ownPause = time.Second
	// maxPause is the longest time until a registry that does not answer is asked again, and until an image that could not be
	// pulled is tried again.
	maxPause = 10 * time.Minute
	// maxDoublings is how often the pause is doubled for a registry that does not answer.
	maxDoublings = 6
)

// tagSource is where tags point; Store is the one of production.
type tagSource interface {
	// there returns the digest that a tag has in its registry, here the one that it has on this machine.
	there(ctx context.Context, name string) (digest.Digest, error)
	here(ctx context.Context, name string) (digest.Digest, error)
	// pull makes the one on this machine that of the registry.
	pull(ctx context.Context, name string) error
}

// registryWatch asks registries whether they have another image under a tag than this machine, and pulls it then. Each registry is
// asked by one goroutine at a time, so one that is silent holds up nobody but itself; no start waits for any of it.
type registryWatch struct {
	tags tagSource
	// remote is the pause between two rounds of questions to a registry elsewhere; 0 asks none.
	remote  time.Duration
	log     *slog.Logger
	life    context.Context
	running *sync.WaitGroup
	// mu guards hosts and what they have.
	mu    sync.Mutex
	hosts map[string]*watchedRegistry
}

// watchedRegistry is what is known of a registry.
type watchedRegistry struct {
	asking bool
	next   time.Time
	fails  int
	// failed are images that could not be pulled.
	failed map[string]failedPull
}

type failedPull struct {
	digest digest.Digest
	again  time.Time
}

// newRegistryWatch returns one whose work ends with life and is counted in running.
func newRegistryWatch(life context.Context, running *sync.WaitGroup, tags tagSource, remote time.Duration, log *slog.Logger) *registryWatch {
	return &registryWatch{tags: tags, remote: remote, log: log, life: life, running: running, hosts: map[string]*watchedRegistry{}}
}

// look begins to ask for the images of normalised names whose registries are due, and returns at once. names are all that are
// watched.
func (w *registryWatch) look(names []string) {
	byHost := map[string][]string{}
	for _, name := range names {
		host := registryHost(name)
		if hasDigest(name) || slices.Contains(byHost[host], name) {
			continue
		}
		byHost[host] = append(byHost[host], name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for host, h := range w.hosts {
		if byHost[host] == nil && !h.asking {
			delete(w.hosts, host)
		}
	}
	for host, names := range byHost {
		pause := w.remote
		if own, err := docker.MatchLocalhost(host); err == nil && own {
			pause = ownPause
		}
		h := w.hosts[host]
		if h == nil {
			h = &watchedRegistry{failed: map[string]failedPull{}}
			w.hosts[host] = h
		}
		if pause <= 0 || h.asking || time.Now().Before(h.next) || w.life.Err() != nil {
			continue
		}
		h.asking = true
		w.running.Go(func() {
			answers := w.ask(h, names)
			w.mu.Lock()
			defer w.mu.Unlock()
			if h.asking = false; answers {
				h.fails = 0
			} else {
				h.fails = min(h.fails+1, maxDoublings)
			}
			h.next = time.Now().Add(max(pause, min(pause<<h.fails, maxPause)))
		})
	}
}

// stop ends the watch by end: nothing is begun afterwards.
func (w *registryWatch) stop(end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	end()
}

// ask asks for all images of one registry, and says whether it answers.
func (w *registryWatch) ask(h *watchedRegistry, names []string) (answers bool) {
	for _, name := range names {
		have, err := w.tags.here(w.life, name)
		if err != nil {
			continue // nothing runs of it
		}
		ctx, cancel := context.WithTimeout(w.life, askTimeout)
		digest, err := w.tags.there(ctx, name)
		cancel()
		var network net.Error // also what took too long
		var status remoteerrors.ErrUnexpectedStatus
		switch {
		case w.life.Err() != nil:
			return true
		case errdefs.IsNotFound(err):
			// The tag was taken away. Containers that run are not worse for it, and the next start tells.
		case err != nil:
			w.log.Debug("a registry does not tell whether it has another image", "image", name, "error", err)
			if errors.As(err, &network) || errors.As(err, &status) && (status.StatusCode == http.StatusTooManyRequests || status.StatusCode >= http.StatusInternalServerError) {
				return false
			}
		case digest != have:
			w.pull(h, name, digest)
		}
	}
	return true
}

// pull gets an image, unless that has just failed.
func (w *registryWatch) pull(h *watchedRegistry, name string, digest digest.Digest) {
	w.mu.Lock()
	failed, ok := h.failed[name]
	w.mu.Unlock()
	if ok && failed.digest == digest && time.Now().Before(failed.again) {
		return
	}
	err := w.tags.pull(w.life, name)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil || w.life.Err() != nil {
		delete(h.failed, name)
		return
	}
	h.failed[name] = failedPull{digest: digest, again: time.Now().Add(maxPause)}
	w.log.Warn("the registry has another image, which cannot be pulled: the image of before stays", "image", name, "digest", digest.String(), "error", err)
}

// hasDigest says whether a normalised name is of one image for ever.
func hasDigest(name string) bool {
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return true
	}
	_, ok := ref.(reference.Digested)
	return ok
}

// Package imagewatch knows which images the agent has for functions: it asks from time to time for their digests. A new digest
// under a name makes a new generation of the functions that have it, so that their pools drain the workers of the old one.
package imagewatch

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

const (
	// firstLook bounds how long a configuration waits for digests; it goes without them then.
	firstLook = time.Second
	// lookTimeout bounds a look: the agent takes over an archive of some hundred MB meanwhile, and goes on after it.
	lookTimeout = 30 * time.Second
	// keepInterval is how often the agent is asked at least, also when nobody wants the answer: it takes images that no function names
	// for unused, and nobody has asked for within 10 minutes (agent/images, wantedFor).
	keepInterval = 5 * time.Minute
)

// Agent says which images there are; agentclient.Client is the one of production.
type Agent interface {
	// ImageVersions returns the digests of images that are there.
	ImageVersions(ctx context.Context, images []gateway.ImageReference) (map[gateway.ImageReference]string, error)
}

// Options of a Watcher.
type Options struct {
	Agent Agent
	// Poll is the time between two looks (IMAGE_POLL_SECONDS). 0 never looks: functions go as they are. The agent is asked every
	// keepInterval even then: it keeps what it is asked for.
	Poll   time.Duration
	Logger *slog.Logger
}

// Watcher adds digests to functions. Close ends it.
type Watcher struct {
	opts  Options
	log   *slog.Logger
	apply func(map[string]*gateway.Function)

	life context.Context
	end  context.CancelFunc
	done chan struct{}

	// mu guards what follows, and puts the calls of apply in order.
	mu        sync.Mutex
	functions map[string]*gateway.Function // as they came
	// set says that functions have come, even if there are none: the agent is told so, and keeps no image for want of word.
	set bool
	// digests are those of images that functions have.
	digests map[gateway.ImageReference]string
	// silent says that the agent could not be asked the last time.
	silent bool
}

// Open starts a Watcher. apply gets all functions, with digests and the generations that follow from them, whenever one of
// them changes; it is called by Set and, one call at a time, from a goroutine of the Watcher.
func Open(opts Options, apply func(map[string]*gateway.Function)) *Watcher {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	w := &Watcher{opts: opts, log: opts.Logger, apply: apply, done: make(chan struct{}), digests: map[gateway.ImageReference]string{}}
	w.life, w.end = context.WithCancel(context.Background())
	go w.run()
	return w
}

// Close ends the watching and waits for an apply that is running.
func (w *Watcher) Close() error {
	w.end()
	<-w.done
	return nil
}

// Set makes functions the current ones, and applies. It waits a second at most for the digests of images that are new: a function
// whose image is not known yet goes without.
func (w *Watcher) Set(functions map[string]*gateway.Function) {
	w.mu.Lock()
	w.functions, w.set = functions, true
	wanted := references(functions)
	maps.DeleteFunc(w.digests, func(ref gateway.ImageReference, _ string) bool { return !slices.Contains(wanted, ref) })
	var unknown []gateway.ImageReference
	for _, ref := range wanted {
		if w.digests[ref] == "" {
			unknown = append(unknown, ref)
		}
	}
	w.mu.Unlock()
	if w.opts.Poll > 0 && len(unknown) > 0 {
		w.look(unknown, firstLook)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.applyNow()
}

// references are the images of functions, each once, in order.
func references(functions map[string]*gateway.Function) []gateway.ImageReference {
	all := map[gateway.ImageReference]bool{}
	for _, fn := range functions {
		all[fn.ImageReference()] = true
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b gateway.ImageReference) int {
		return strings.Compare(a.Image+"\x00"+a.Runtime, b.Image+"\x00"+b.Runtime)
	})
}

// applyNow gives apply all functions. The caller holds mu.
func (w *Watcher) applyNow() {
	functions := make(map[string]*gateway.Function, len(w.functions))
	for name, fn := range w.functions {
		functions[name] = withDigest(fn, w.digests[fn.ImageReference()])
	}
	w.apply(functions)
}

// withDigest returns a function whose generation depends on its image's digest.
func withDigest(fn *gateway.Function, digest string) *gateway.Function {
	copied := *fn
	copied.BaseGeneration, copied.ImageDigest = fn.Generation, digest
	if digest != "" {
		copied.Generation = gateway.GenerationWith(fn.Generation, digest)
	}
	return &copied
}

// run looks at all images from time to time.
func (w *Watcher) run() {
	defer close(w.done)
	var poll, keep <-chan time.Time
	if w.opts.Poll > 0 {
		ticker := time.NewTicker(w.opts.Poll)
		defer ticker.Stop()
		poll = ticker.C
	}
	if w.opts.Poll <= 0 || w.opts.Poll > keepInterval {
		ticker := time.NewTicker(keepInterval)
		defer ticker.Stop()
		keep = ticker.C
	}
	for {
		wanted := true
		select {
		case <-w.life.Done():
			return
		case <-poll:
		case <-keep:
			wanted = false
		}
		w.mu.Lock()
		all, set := references(w.functions), w.set
		w.mu.Unlock()
		if !set {
			continue
		}
		if !wanted {
			w.keep(all)
			continue
		}
		if !w.look(all, lookTimeout) || w.life.Err() != nil {
			continue
		}
		w.mu.Lock()
		w.applyNow()
		w.mu.Unlock()
	}
}

// keep names images to the agent, so that it keeps them.
func (w *Watcher) keep(images []gateway.ImageReference) {
	for i := range images {
		images[i].AskRegistry = false // it would pull what is new
	}
	ctx, cancel := context.WithTimeout(w.life, lookTimeout)
	defer cancel()
	if _, err := w.opts.Agent.ImageVersions(ctx, images); err != nil && w.life.Err() == nil {
		w.log.Debug("the agent does not hear which images functions have", "error", err.Error())
	}
}

// look brings the digests of images up to date and says whether one has changed. What the agent does not have, or does not
// tell, stays as it was: the workers that run are not worse for it.
func (w *Watcher) look(images []gateway.ImageReference, limit time.Duration) (changed bool) {
	ctx, cancel := context.WithTimeout(w.life, limit)
	defer cancel()
	found, err := w.opts.Agent.ImageVersions(ctx, images)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if !w.silent && w.life.Err() == nil {
			w.log.Debug("the agent does not tell which images it has", "error", err.Error())
		}
		w.silent = true
		return false
	}
	w.silent = false
	wanted := references(w.functions) // others may have been taken out meanwhile
	for ref, digest := range found {
		known := w.digests[ref]
		if digest == "" || digest == known || !slices.Contains(wanted, ref) {
			continue
		}
		w.digests[ref] = digest
		changed = true
		if known != "" {
			w.log.Info("image has changed", "image", ref.Image, "runtime", ref.Runtime, "digest", digest, "before", known)
		}
	}
	return changed
}

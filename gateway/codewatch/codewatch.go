// Package codewatch knows which version of their code functions have, for code that is not in an image: it asks S3 for
// ETags, and watches local zip files and folders. A new version makes a new generation of the function, so that its pool
// drains the workers of the old one. What cannot be reached keeps the version that it had.
package codewatch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/edge-serverless-box/esb/api/codeversion"
	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
)

const (
	// quiet is how long local code must be left alone before it is looked at: editors and copies write in steps.
	quiet = 300 * time.Millisecond
	// lookTimeout bounds the look at one source, a folder of 250 MB on a slow disk included.
	lookTimeout = 20 * time.Second
	// firstLook bounds how long a configuration waits for the versions of its code; it goes without them then.
	firstLook = 5 * time.Second
	// retry is how soon a source is looked at again of which nothing is known yet.
	retry = 2 * time.Second
	// parallel bounds the looks at the same time.
	parallel = 4
	// patience is how long the box counts as not ready for a store that does not say what code it has.
	patience = 2 * time.Minute
)

// Objects is the S3 store; *S3 is the one of production.
type Objects interface {
	// ETag returns an object's ETag, without quotes.
	ETag(ctx context.Context, bucket, key string) (string, error)
}

// Options of a Watcher.
type Options struct {
	// Poll is the time between two looks at all sources (CODE_POLL_SECONDS).
	Poll time.Duration
	// Objects is nil when there is no S3 store.
	Objects Objects
	// Patience is how long Check waits for a source that cannot be asked. Default: 2 minutes.
	Patience time.Duration
	Logger   *slog.Logger
}

// Watcher adds versions to functions. Close ends it.
type Watcher struct {
	opts  Options
	log   *slog.Logger
	apply func(map[string]*gateway.Function)

	life   context.Context
	end    context.CancelFunc
	done   chan struct{}
	wake   chan struct{} // of one: there are new sources
	notify *folders

	// mu guards what follows, and puts the calls of apply in order.
	mu        sync.Mutex
	functions map[string]*gateway.Function // as configured
	sources   map[string]*source           // by location; all that functions name, and after Look those of the next ones
}

// source is one location and what is known of it.
type source struct {
	location string

	// look is held while it is looked at, and guards seen.
	look sync.Mutex
	seen string // signature of a local one when its version was made, see signature

	// The Watcher's mu guards these.
	version string
	problem string // that was logged last
	reason  reason.Reason
	// named is when a configuration has named it first.
	named time.Time
}

// waited says whether it is no use to wait for the version: what is not there does not come by waiting.
func (s *source) waited(patience time.Duration) bool {
	return s.version != "" || s.reason.Permanent() || time.Since(s.named) > patience
}

// trouble is why the version is not known.
func (s *source) trouble() string {
	if s.problem == "" {
		return "its code at " + s.location + " has not been looked at yet"
	}
	return "its code at " + s.location + " cannot be looked at: " + s.problem
}

// Open starts a Watcher. apply gets all functions, with versions and the generations that follow from them, whenever one of
// them changes; it is called by Set and, one call at a time, from a goroutine of the Watcher.
func Open(opts Options, apply func(map[string]*gateway.Function)) *Watcher {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Patience == 0 {
		opts.Patience = patience
	}
	w := &Watcher{
		opts: opts, log: opts.Logger, apply: apply, done: make(chan struct{}), wake: make(chan struct{}, 1),
		notify: watchFolders(opts.Logger), sources: map[string]*source{},
	}
	w.life, w.end = context.WithCancel(context.Background())
	go w.run()
	return w
}

// Close ends the watching and waits for an apply that is running.
func (w *Watcher) Close() error {
	w.end()
	<-w.done
	return w.notify.close()
}

// Set is Look and Use.
func (w *Watcher) Set(functions map[string]*gateway.Function) {
	w.Look(functions)
	w.Use(functions)
}

// Look looks at code that is new, before functions are the configured ones. It waits for S3 for some seconds at most.
func (w *Watcher) Look(functions map[string]*gateway.Function) {
	w.mu.Lock()
	sources := w.named(functions)
	var unknown []*source
	for location, s := range sources {
		w.sources[location] = s
		if s.version == "" {
			unknown = append(unknown, s)
		}
	}
	w.mu.Unlock()
	w.notify.set(slices.Collect(maps.Keys(sources)))
	ctx, cancel := context.WithTimeout(w.life, firstLook)
	defer cancel()
	w.lookAt(ctx, unknown)
}

// named are the sources of functions, each once however many have it. The caller holds mu.
func (w *Watcher) named(functions map[string]*gateway.Function) map[string]*source {
	sources := map[string]*source{}
	for _, fn := range functions {
		for _, location := range locations(fn.Code) {
			switch {
			case sources[location] != nil:
			case w.sources[location] != nil:
				sources[location] = w.sources[location]
			default:
				sources[location] = &source{location: location, named: time.Now()}
			}
		}
	}
	return sources
}

// Use makes functions the configured ones and applies: one whose code nobody could look at yet is applied without a
// version, and again when there is one.
func (w *Watcher) Use(functions map[string]*gateway.Function) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.functions, w.sources = functions, w.named(functions)
	w.applyNow()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Check is an error as long as the code of a function is not known and may still come: code that is not there is not waited
// for, and a store that cannot be asked not for ever.
func (w *Watcher) Check(context.Context) error {
	waiting := w.describe(func(s *source) bool { return !s.waited(w.opts.Patience) })
	if len(waiting) == 0 {
		return nil
	}
	return errors.New("functions wait for their code: " + strings.Join(inOrder(waiting), "; "))
}

// Problems are the functions that cannot be started because their code is not known, and why.
func (w *Watcher) Problems() map[string]string {
	return w.describe(func(s *source) bool { return s.version == "" })
}

// Notes are the Problems as sentences.
func (w *Watcher) Notes() []string { return inOrder(w.Problems()) }

func inOrder(problems map[string]string) []string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(problems)) {
		all = append(all, name+": "+problems[name])
	}
	return all
}

// describe says of each function that has such a source what is wrong with the first.
func (w *Watcher) describe(is func(*source) bool) map[string]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	found := map[string]string{}
	for name, fn := range w.functions {
		for _, location := range locations(fn.Code) {
			if s := w.sources[location]; is(s) {
				found[name] = s.trouble()
				break
			}
		}
	}
	return found
}

func locations(code *gateway.FunctionCode) []string {
	if code == nil {
		return nil
	}
	all := []string{code.Source.Location}
	for _, l := range code.Layers {
		all = append(all, l.Location)
	}
	return all
}

// applyNow gives apply all functions. The caller holds mu.
func (w *Watcher) applyNow() {
	functions := make(map[string]*gateway.Function, len(w.functions))
	for name, fn := range w.functions {
		functions[name] = w.versioned(fn)
	}
	w.apply(functions)
}

// versioned returns a function with the versions of its code.
func (w *Watcher) versioned(fn *gateway.Function) *gateway.Function {
	if fn.Code == nil {
		return fn
	}
	at := func(s gateway.CodeSource) gateway.CodeSource {
		known := w.sources[s.Location]
		return gateway.CodeSource{Location: s.Location, Version: known.version, Problem: known.reason}
	}
	code := *fn.Code
	code.Source = at(code.Source)
	code.Layers = nil
	for _, l := range fn.Code.Layers {
		code.Layers = append(code.Layers, at(l))
	}
	data, err := json.Marshal([]any{fn.Generation, code})
	if err != nil {
		panic(fmt.Sprintf("codewatch: digest of function %s: %v", fn.Name, err)) // strings always encode
	}
	sum := sha256.Sum256(data)
	copied := *fn
	copied.Code, copied.Generation = &code, hex.EncodeToString(sum[:16])
	return &copied
}

// run looks at everything from time to time, and at local code soon after it has changed.
func (w *Watcher) run() {
	defer close(w.done)
	poll := time.NewTimer(w.opts.Poll)
	defer poll.Stop()
	settle := time.NewTimer(quiet)
	settle.Stop()
	defer settle.Stop()
	for {
		select {
		case <-w.life.Done():
			return
		case <-w.wake:
			poll.Reset(w.pause())
		case <-w.notify.events():
			settle.Reset(quiet)
		case err := <-w.notify.errors():
			w.log.Warn("watching function code", "error", err)
			settle.Reset(quiet) // events may have been lost
		case <-settle.C:
			w.check(func(s *source) bool { return !isObject(s.location) })
		case <-poll.C:
			w.check(func(*source) bool { return true })
			poll.Reset(w.pause())
		}
	}
}

// pause is the time until all is looked at again.
func (w *Watcher) pause() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.sources {
		if s.version == "" {
			return min(retry, w.opts.Poll)
		}
	}
	return w.opts.Poll
}

// check looks at some sources, and applies when one has changed.
func (w *Watcher) check(which func(*source) bool) {
	w.mu.Lock()
	var sources []*source
	for _, s := range w.sources {
		if which(s) {
			sources = append(sources, s)
		}
	}
	w.mu.Unlock()
	changed := w.lookAt(w.life, sources)
	if w.life.Err() != nil || !changed {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.applyNow()
}

// lookAt brings the versions of sources up to date and says whether one has changed.
func (w *Watcher) lookAt(ctx context.Context, sources []*source) bool {
	var looking sync.WaitGroup
	slots := make(chan struct{}, parallel)
	changed := make([]bool, len(sources))
	for i, s := range sources {
		looking.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ctx, cancel := context.WithTimeout(ctx, lookTimeout)
			defer cancel()
			changed[i] = w.look(ctx, s)
		})
	}
	looking.Wait()
	return slices.Contains(changed, true)
}

// look brings the version of one source up to date and says whether it has changed, or why there is none.
func (w *Watcher) look(ctx context.Context, s *source) bool {
	s.look.Lock()
	defer s.look.Unlock()
	version, err := w.versionOf(ctx, s)
	if w.life.Err() != nil {
		return false // Close cut it short
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		if text := err.Error(); text != s.problem {
			s.problem = text
			if s.version == "" {
				w.log.Error("function code cannot be looked at, functions with it wait for it", "location", s.location, "error", text)
			} else {
				w.log.Warn("function code cannot be looked at, the old one stays", "location", s.location, "version", s.version, "error", text)
			}
		}
		reason := reasonOf(s.location, err)
		told := s.version != "" || s.reason == reason
		s.reason = reason
		return !told // callers wait for a version that does not come, and are told why
	}
	if s.problem != "" {
		w.log.Info("function code can be looked at again", "location", s.location)
	}
	s.problem, s.reason = "", ""
	if version == s.version {
		return false
	}
	w.log.Info("function code has a new version", "location", s.location, "version", version)
	s.version = version
	return true
}

// versionOf finds a source's version. The caller holds s.look.
func (w *Watcher) versionOf(ctx context.Context, s *source) (string, error) {
	if isObject(s.location) {
		if w.opts.Objects == nil {
			return "", errNoStore()
		}
		bucket, key, _ := strings.Cut(strings.TrimPrefix(s.location, objectScheme), "/")
		etag, err := w.opts.Objects.ETag(ctx, bucket, key)
		return codeversion.ETag + etag, err
	}
	signature, settled, err := sign(ctx, s.location)
	if err != nil {
		s.seen = ""
		return "", err
	}
	w.mu.Lock()
	known := s.version
	w.mu.Unlock()
	if signature == s.seen && known != "" {
		return known, nil
	}
	w.notify.set([]string{s.location}) // it may have new folders
	version, err := codeversion.Of(ctx, s.location)
	if s.seen = ""; err == nil && settled {
		s.seen = signature
	}
	return version, err
}

const objectScheme = "s3://"

func isObject(location string) bool { return strings.HasPrefix(location, objectScheme) }

// folders tells of changes below folders, as far as the system can.
type folders struct {
	log     *slog.Logger
	watcher *fsnotify.Watcher // nil when the system lets us watch nothing
	once    sync.Once
}

func watchFolders(log *slog.Logger) *folders {
	f := &folders{log: log}
	var err error
	if f.watcher, err = fsnotify.NewWatcher(); err != nil {
		f.watcher = nil
		f.complain(err)
	}
	return f
}

func (f *folders) complain(err error) {
	f.once.Do(func() {
		f.log.Warn("not all function code can be watched, changes are found by looking every CODE_POLL_SECONDS", "error", err)
	})
}

func (f *folders) close() error {
	if f.watcher == nil {
		return nil
	}
	if err := f.watcher.Close(); err != nil {
		return fmt.Errorf("stop watching function code: %w", err)
	}
	return nil
}

// events is nil, which never delivers, when nothing is watched.
func (f *folders) events() <-chan fsnotify.Event {
	if f.watcher == nil {
		return nil
	}
	return f.watcher.Events
}

func (f *folders) errors() <-chan error {
	if f.watcher == nil {
		return nil
	}
	return f.watcher.Errors
}

// set watches the folders of local code as well: those in it, and the one around it, for a path that is replaced by a
// rename. One too many costs little, so none is ever left out again; the kernel drops those that are removed.
func (f *folders) set(locations []string) {
	if f.watcher == nil {
		return
	}
	for _, location := range locations {
		if isObject(location) {
			continue
		}
		for _, dir := range append([]string{filepath.Dir(location)}, foldersIn(location)...) {
			if err := f.watcher.Add(dir); err != nil {
				f.complain(err)
			}
		}
	}
}

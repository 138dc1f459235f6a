package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/lock"
)

// Plan builds targets part by part. What is downloaded for the later ones is downloaded while the first compile: processors are busy
// with the one, the network with the other.
type Plan struct {
	b     *Builder
	held  *lock.Lock
	stale []*part
	// first is true when none of them has ever been built here: then it takes minutes, and people want to know how many.
	first bool
	// end ends fetching, which has ended when fetching is done.
	end      context.CancelFunc
	fetching sync.WaitGroup

	// installed is closed when Debian's packages are there that were lacking, or apt-get failed with installErr.
	installed  chan struct{}
	installErr error

	progress progress // of the goroutine that builds
}

// part is one target that is to be built.
type part struct {
	Target
	stamp string
	// done is true when it is built.
	done bool
	// fetched is closed when what was to be fetched for it is there, or failed with err. scratch is the folder of what npm brought.
	fetched chan struct{}
	err     error
	scratch string
}

// Open looks which targets are missing or out of date and begins to fetch what those need, in their order. Builders that share a folder
// take turns: until Close.
func (b *Builder) Open(ctx context.Context, targets []Target) (*Plan, error) {
	if err := os.MkdirAll(filepath.Join(b.dir, ".stamps"), 0o755); err != nil {
		return nil, fmt.Errorf("make the folder of the binaries: %w", err)
	}
	held, err := lock.Take(ctx, filepath.Join(b.dir, ".lock"), func() { b.console.Printf("    waiting for another build in %s", b.dir) })
	if err != nil {
		return nil, err
	}
	p := &Plan{b: b, held: held, end: func() {}, installed: make(chan struct{}), progress: progress{pace: 1 / float64(runtime.NumCPU())}}
	for _, t := range targets {
		stamp, err := b.stamp(ctx, t)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("build %s: %w", t.Name, err), p.Close())
		}
		there := b.present(t)
		if old, err := os.ReadFile(b.stampFile(t)); err == nil && string(old) == stamp && there {
			continue
		}
		p.first = !there && (p.first || len(p.stale) == 0)
		p.stale = append(p.stale, &part{Target: t, stamp: stamp, fetched: make(chan struct{})})
		p.progress.todo += float64(t.Seconds)
	}
	if len(p.stale) == 0 {
		close(p.installed)
		return p, nil
	}
	if p.first && p.progress.todo > 0 {
		b.console.Printf("==> building %d programs from pinned sources, for the first time: %s on this machine, and less where Go has compiled some before",
			len(p.stale), words(p.progress.left(0, 0)))
	}
	fetching, end := context.WithCancel(ctx)
	p.end = end
	p.fetch(fetching)
	return p, nil
}

// Close ends what is still fetched.
func (p *Plan) Close() error {
	p.end()
	p.fetching.Wait()
	for _, s := range p.stale {
		if s.scratch != "" {
			_ = os.RemoveAll(s.scratch)
		}
	}
	return p.held.Close()
}

// Missing says whether a program of the targets has never been built here.
func (p *Plan) Missing(targets []Target) bool {
	return slices.ContainsFunc(targets, func(t Target) bool { return !p.b.present(t) })
}

// Installed waits until what some target needed of Debian is installed. Until then nobody else can install something.
func (p *Plan) Installed(ctx context.Context) error {
	select {
	case <-p.installed:
		return p.installErr
	case <-ctx.Done():
		return fmt.Errorf("wait for apt-get: %w", ctx.Err())
	}
}

// Build makes those of the targets that are missing or out of date. All of them are some that the plan was opened with.
func (p *Plan) Build(ctx context.Context, targets []Target) error {
	var parts []*part
	for _, s := range p.stale {
		if !s.done && slices.ContainsFunc(targets, func(t Target) bool { return t.Name == s.Name }) {
			parts = append(parts, s)
		}
	}
	for len(parts) > 0 {
		n := 1
		for n < len(parts) && parts[n].joins(parts[0].Target) {
			n++
		}
		if err := p.make(ctx, parts[:n]); err != nil {
			return err
		}
		parts = parts[n:]
	}
	return nil
}

// joins is true for targets that one run of the Go tool makes: what they share is loaded and compiled once, and one is linked while
// another is compiled.
func (t Target) joins(o Target) bool {
	plain := func(t Target) bool { return t.Workspace && !t.CGO && t.NPM == nil && len(t.Tags)+len(t.LDFlags) == 0 }
	return plain(t) && plain(o)
}

func (p *Plan) make(ctx context.Context, parts []*part) error {
	var targets []Target
	seconds := 0.0
	for _, s := range parts {
		targets = append(targets, s.Target)
		seconds += float64(s.Seconds)
	}
	left := func(elapsed time.Duration) string {
		if !p.first || p.progress.todo == 0 {
			return ""
		}
		return words(p.progress.left(seconds, elapsed)) + " left for all programs"
	}
	start := time.Now()
	err := p.b.console.Long("building "+names(targets), left, func() error {
		for _, s := range parts {
			select {
			case <-s.fetched:
			case <-ctx.Done():
				return fmt.Errorf("build %s: %w", names(targets), ctx.Err())
			}
			if s.err != nil {
				return s.err
			}
		}
		if parts[0].NPM != nil {
			if err := p.b.install(targets, parts[0].scratch); err != nil {
				return err
			}
		} else if err := p.b.compile(ctx, targets); err != nil {
			return err
		}
		for _, s := range parts {
			if err := os.WriteFile(p.b.stampFile(s.Target), []byte(s.stamp), 0o644); err != nil {
				return fmt.Errorf("build %s: %w", s.Name, err)
			}
			s.done = true
		}
		return nil
	})
	p.progress.did(seconds, time.Since(start))
	return err
}

// fetch begins to fetch what the stale targets need.
func (p *Plan) fetch(ctx context.Context) {
	var packages []string
	var waits, now, modules []*part
	for _, s := range p.stale {
		switch {
		case lacking(ctx, s.Target):
			packages = append(packages, s.Debian...)
			waits = append(waits, s)
			if s.NPM == nil {
				modules = append(modules, s)
			}
		case s.NPM != nil:
			p.fetching.Go(func() {
				p.extract(ctx, s)
				close(s.fetched)
			})
		case len(modules) == len(now) && (len(now) == 0 || s.joins(now[0].Target)):
			close(s.fetched) // compiled at once, and that fetches
			now, modules = append(now, s), append(modules, s)
		default:
			modules = append(modules, s)
		}
	}
	// In a goroutine of its own each: one waits for Debian's packages, the other for Go's modules.
	if len(waits) == 0 {
		close(p.installed)
	} else {
		slices.Sort(packages)
		packages = slices.Compact(packages)
		p.b.console.Printf("==> installing what building needs meanwhile: %s", strings.Join(packages, " "))
		p.fetching.Go(func() {
			p.installErr = p.b.apt.Install(ctx, packages)
			close(p.installed)
			for _, s := range waits {
				if s.err = p.installErr; s.err == nil && s.NPM != nil {
					p.extract(ctx, s)
				}
				close(s.fetched)
			}
		})
	}
	p.fetching.Go(func() {
		for _, s := range modules {
			if slices.Contains(now, s) {
				continue
			}
			p.b.download(ctx, s.Target)
			if !slices.Contains(waits, s) {
				close(s.fetched)
			}
		}
	})
}

// download fetches the modules of a target. What fails fails again when it is compiled, which says so.
func (b *Builder) download(ctx context.Context, t Target) {
	args := []string{"list", "-deps", "-f", ""}
	if len(t.Tags) > 0 {
		args = append(args, "-tags", strings.Join(t.Tags, ","))
	}
	cmd := exec.CommandContext(ctx, "go", append(args, b.packages([]Target{t})...)...)
	cmd.Dir = b.folder(t)
	var err error
	if cmd.Env, err = Env(b.root, t); err == nil {
		_ = cmd.Run()
	}
}

// extract fetches a package of npm.
func (p *Plan) extract(ctx context.Context, s *part) {
	if s.scratch, s.err = os.MkdirTemp(p.b.dir, scratch); s.err != nil {
		return
	}
	if err := s.NPM.Extract(ctx, s.scratch, s.Outputs...); err != nil {
		s.err = &native.Problem{
			What: fmt.Sprintf("fetching %s %s from npm failed: %v", s.NPM.Name, s.NPM.Version, err),
			Do:   "Check the network and npm's registry setting, and run the command again.",
		}
	}
}

func (b *Builder) stampFile(t Target) string { return filepath.Join(b.dir, ".stamps", t.Name) }

// progress reckons how long building takes.
type progress struct {
	// todo are seconds of CPU time of what is not built yet, did those of what is, with an empty cache. pace is how many real seconds
	// one of them takes: first all processors for us alone, then what it was so far.
	todo, done, pace float64
	spent            time.Duration
}

// did notes that something was built.
func (p *progress) did(seconds float64, took time.Duration) {
	p.todo -= seconds
	p.done += seconds
	if p.spent += took; p.done > 0 {
		p.pace = p.spent.Seconds() / p.done
	}
}

// left is how long the rest takes, of which the next seconds have run for elapsed. When those take longer than they were to, so does what
// comes after them.
func (p *progress) left(seconds float64, elapsed time.Duration) time.Duration {
	pace, rest := p.pace, seconds*p.pace-elapsed.Seconds()
	if rest < 0 && seconds > 0 {
		pace, rest = elapsed.Seconds()/seconds, 0
	}
	return time.Duration((rest + (p.todo-seconds)*pace) * float64(time.Second))
}

// words says a time as people do.
func words(d time.Duration) string {
	switch {
	case d < 15*time.Second:
		return "a few seconds"
	case d < 95*time.Second:
		return fmt.Sprintf("about %d seconds", int(d.Round(10*time.Second).Seconds()))
	}
	return fmt.Sprintf("about %d minutes", int(d.Round(time.Minute).Minutes()))
}

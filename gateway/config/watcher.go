package config

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// quiet is how long the files must be left alone before they are read: editors and copies write in steps.
const quiet = 200 * time.Millisecond

// again is the pause between two looks for files that could not be read when the gateway started: the disk that they are on may come
// later, and nothing tells of that.
const again = 5 * time.Second

// Watcher reads all files again when one changes. What is right replaces the old configuration as a whole; what
// is not is logged and refused, and the old one stays. It watches the folders of the files, so that a file that is
// replaced by a rename is seen; a change behind a symbolic link to another folder is not, and needs Reload.
type Watcher struct {
	functionsPath, routingPath string
	opts                       Options
	log                        *slog.Logger

	notify  *fsnotify.Watcher // nil when the system lets us watch nothing
	started bool              // run is there to be waited for
	done    chan struct{}     // closed when run has ended

	refused atomic.Pointer[Refusal]

	// mu puts reloads in order, each with its apply, and guards last, the content that was read last, and kept, that of KeptPath as far as
	// it is known.
	mu         sync.Mutex
	last, kept files
	apply      func(*Config) error
}

// Open reads the files and prepares to watch them. When they are refused, what was taken before is returned (Refused says so then),
// and where nothing was kept the error is an *Error. The caller closes the watcher.
func Open(functionsPath, routingPath string, opts Options, log *slog.Logger) (*Watcher, *Config, error) {
	w := &Watcher{
		functionsPath: functionsPath,
		routingPath:   routingPath,
		opts:          opts,
		log:           log,
		done:          make(chan struct{}),
	}
	// The watch begins before the files are read, so that no change falls in between.
	w.notify = watchFolders(log, w.folders()...)
	f, err := read(functionsPath, routingPath, opts)
	if err == nil {
		w.last = f
		var cfg *Config
		if cfg, err = parse(f, opts); err == nil {
			return w, cfg, nil
		}
	}
	cfg, err := w.FallBack(err)
	if err == nil {
		return w, cfg, nil
	}
	return nil, nil, errors.Join(err, w.Close())
}

// folders are those of the files, each once. That of an optional file may be missing.
func (w *Watcher) folders() []string {
	dirs := []string{filepath.Dir(w.functionsPath), filepath.Dir(w.routingPath)}
	if dir := filepath.Dir(w.opts.ResourcesPath); w.opts.ResourcesPath != "" {
		if _, err := os.Stat(dir); err == nil || !w.opts.ResourcesOptional {
			dirs = append(dirs, dir)
		}
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// watchFolders returns nil when the folders cannot be watched: the box then still works, and Reload too.
func watchFolders(log *slog.Logger, dirs ...string) *fsnotify.Watcher {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("configuration files are not watched, send SIGHUP after a change", "error", err)
		return nil
	}
	for _, dir := range dirs {
		if err := notify.Add(dir); err != nil {
			log.Warn("configuration folder is not watched, send SIGHUP after a change", "folder", dir, "error", err)
		}
	}
	return notify
}

// Start begins to watch, after what Open has returned was applied. apply gets each new valid configuration, one at a time; when it returns an error the
// configuration counts as refused. Start is called once.
func (w *Watcher) Start(apply func(*Config) error) {
	w.mu.Lock()
	w.apply = apply
	if w.Refused() == nil {
		w.keep(w.last)
	}
	w.mu.Unlock()
	if w.notify != nil {
		w.started = true
		go w.run()
	}
}

// Close ends the watching, and waits for an apply that is running.
func (w *Watcher) Close() error {
	if w.notify == nil {
		return nil
	}
	err := w.notify.Close()
	if w.started {
		<-w.done
	}
	return err
}

// Reload reads the files now, for SIGHUP. Its error, which is logged too, says why the old configuration stays.
func (w *Watcher) Reload() error { return w.reload(true) }

func (w *Watcher) run() {
	defer close(w.done)
	timer := time.NewTimer(quiet)
	timer.Stop()
	defer timer.Stop()
	look := time.NewTicker(again)
	defer look.Stop()
	for {
		select {
		case ev, open := <-w.notify.Events:
			if !open {
				return
			}
			if w.concerns(ev.Name) {
				timer.Reset(quiet)
			}
		case err, open := <-w.notify.Errors:
			if !open {
				return
			}
			w.log.Warn("watching the configuration files", "error", err)
			timer.Reset(quiet) // events may have been lost
		case <-timer.C:
			_ = w.reload(false) // logged there
		case <-look.C:
			w.lookAgain()
		}
	}
}

// concerns says whether a change of the file at path may be one of ours. "..data" is the link that Kubernetes
// switches when it replaces a mounted ConfigMap.
func (w *Watcher) concerns(path string) bool {
	switch filepath.Base(path) {
	case filepath.Base(w.functionsPath), filepath.Base(w.routingPath), filepath.Base(w.opts.ResourcesPath), "..data":
		return true
	}
	return false
}

func (w *Watcher) reload(force bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.apply == nil {
		return errors.New("reload the configuration: the watcher is not started")
	}
	f, err := read(w.functionsPath, w.routingPath, w.opts)
	if err == nil && f == w.last && !force {
		return nil
	}
	var cfg *Config
	w.last = f // empty when they cannot be read, so that they are news when they can
	if err == nil {
		cfg, err = parse(f, w.opts)
	}
	if err == nil {
		err = w.apply(cfg)
	}
	if err != nil {
		problems := strings.Split(err.Error(), "\n")
		w.refused.Store(&Refusal{At: time.Now(), Problems: problems})
		w.log.Error("new configuration refused, the old one stays", "problems", problems)
		return fmt.Errorf("reload the configuration: %w", err)
	}
	w.refused.Store(nil)
	w.keep(f)
	w.log.Info("configuration reloaded", "functions", len(cfg.Functions), "routes", len(cfg.Routes))
	return nil
}

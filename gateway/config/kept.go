package config

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/guard/statefile"
)

// The text of the files that were taken last is kept, so that a gateway that starts while they have mistakes serves what the one
// before it has served: nobody may be there to correct them when the power comes back.

// keptFiles is the content of Options.KeptPath.
type keptFiles struct {
	// At is when they were taken.
	At        time.Time `json:"at"`
	Functions keptFile  `json:"functions"`
	Routing   keptFile  `json:"routing"`
	Resources *keptFile `json:"resources,omitempty"`
}

type keptFile struct {
	Path string `json:"path"`
	Text string `json:"text"`
}

// keep writes the files that have just been taken.
func (w *Watcher) keep(f files) {
	if w.opts.KeptPath == "" || f == (files{}) || f == w.kept {
		return
	}
	content := keptFiles{
		At: time.Now().UTC(), Functions: keptFile{f.functions.path, f.functions.data}, Routing: keptFile{f.routing.path, f.routing.data},
	}
	if f.resources.path != "" {
		content.Resources = &keptFile{f.resources.path, f.resources.data}
	}
	// For the owner alone: functions may have secrets in their environment.
	if err := statefile.Configuration().Write(w.opts.KeptPath, content, 0o600); err != nil {
		w.log.Warn("the configuration cannot be kept: a gateway that starts with files that have mistakes serves what was kept before, if anything", "error", err)
		return
	}
	w.kept = f
}

// readKept returns what was kept of the files of these paths.
func readKept(functionsPath, routingPath string, opts Options) (files, time.Time, error) {
	var content keptFiles
	if err := statefile.Configuration().Read(opts.KeptPath, &content); err != nil {
		return files{}, time.Time{}, err
	}
	f := files{
		functions: file{content.Functions.Path, content.Functions.Text}, routing: file{content.Routing.Path, content.Routing.Text},
	}
	if r := content.Resources; r != nil {
		f.resources = file{r.Path, r.Text}
	}
	// Another path is another configuration, and no mistake in this one.
	if f.functions.path != functionsPath || f.routing.path != routingPath || f.resources.path != "" && f.resources.path != opts.ResourcesPath {
		return files{}, time.Time{}, fmt.Errorf("%s is of other files: %w", opts.KeptPath, fs.ErrNotExist)
	}
	return f, content.At, nil
}

// FallBack returns the configuration that was kept, after the one of Open could not be used because of cause, which is the error where
// there is none. From then on Refused says cause, until the files are right.
func (w *Watcher) FallBack(cause error) (*Config, error) {
	if w.opts.KeptPath == "" || w.Refused() != nil {
		return nil, cause // what was kept is what could not be used
	}
	f, at, err := readKept(w.functionsPath, w.routingPath, w.opts)
	if errors.Is(err, fs.ErrNotExist) || err == nil && f == w.last {
		return nil, cause
	}
	var cfg *Config
	if err == nil {
		cfg, err = parse(f, w.opts)
	}
	if err != nil {
		w.log.Warn("the configuration that was kept is of no use either", "file", w.opts.KeptPath, "error", err.Error())
		return nil, cause
	}
	w.kept = f
	problems := strings.Split(cause.Error(), "\n")
	w.refused.Store(&Refusal{At: time.Now(), Problems: problems})
	w.log.Error("the configuration is refused, the one that was taken before is served", "taken_at", at, "problems", problems)
	return cfg, nil
}

// lookAgain reads files that could not be read at all, if they are there now, and watches them.
func (w *Watcher) lookAgain() {
	w.mu.Lock()
	unread := w.last == (files{}) && w.Refused() != nil
	w.mu.Unlock()
	if !unread {
		return
	}
	if _, err := read(w.functionsPath, w.routingPath, w.opts); err != nil {
		return
	}
	for _, dir := range w.folders() {
		if err := w.notify.Add(dir); err != nil {
			w.log.Warn("configuration folder is not watched, send SIGHUP after a change", "folder", dir, "error", err)
		}
	}
	_ = w.reload(false) // logged there
}

// Package logview shows the log lines of services and functions, and follows them: from the files, or from VictoriaLogs.
package logview

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/guard/logfile"
)

const (
	// poll is how often followed files are looked at.
	poll = 250 * time.Millisecond
	// chunk bounds what is read of one file before the others have their turn.
	chunk = 1 << 20
	// lineSize is the size of a line that the search for the last ones begins with.
	lineSize = 512
	// asideBytes is how much of the end of the gateway's log is searched for what it says of a function.
	asideBytes = 8 << 20
)

// startFailed is the gateway's line of a start of a function that failed. What it knows without asking the agent, such as code that
// is not there, is in no log of the function's own.
const startFailed = "start failed"

// Options of Show.
type Options struct {
	// Dir is the folder of the log files; those of containers are in functions below it.
	Dir string
	// Names are services (agent, gateway, containerd), functions or containers; empty means all.
	Names []string
	// Lines of each file to begin with.
	Lines int
	// Follow goes on with what is written later, until ctx ends.
	Follow bool
	// Level leaves out what is less grave, empty: nothing.
	Level string
	// JSON writes lines as they are; else time, level, name and text are written, to be read.
	JSON bool
}

// Show writes the last lines of the files that belong to the names, in the order of time, and then follows them, together with
// files that are made later.
func Show(ctx context.Context, w io.Writer, o Options) error {
	out := bufio.NewWriter(w)
	v := viewer{options: o, out: out, files: map[string]*position{}, aside: map[string]bool{}}
	files, err := v.list()
	if err != nil {
		return err
	}
	var last []entry
	for _, file := range files {
		found, err := v.begin(file)
		if err != nil {
			return err
		}
		last = append(last, found...)
	}
	if len(last) == 0 && len(files) == len(v.aside) && !o.Follow {
		return fmt.Errorf("no log of %s in %s: the names of services (agent, gateway, containerd), functions and containers can be given", strings.Join(o.Names, ", "), o.Dir)
	}
	slices.SortStableFunc(last, func(a, b entry) int { return a.order.Compare(b.order) })
	for _, e := range last {
		e.write(out, o.JSON)
	}
	if err := out.Flush(); err != nil || !o.Follow {
		return err
	}
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := v.more(); err != nil {
			return err
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
}

// position in a followed file. inode tells a file that was put in its place from one that has grown.
type position struct {
	info   os.FileInfo
	offset int64
	// rest is a last line that has no end yet.
	rest string
}

type viewer struct {
	options Options
	out     *bufio.Writer
	files   map[string]*position
	// aside has the files that are not among the names: only what they say of starts of the named functions is shown.
	aside map[string]bool
}

// list returns the files that belong to the names, sorted.
func (v *viewer) list() ([]string, error) {
	var files []string
	for _, pattern := range []string{"*.log", "gateway/*.log", "stores/*.log", "functions/*.log"} {
		found, err := filepath.Glob(filepath.Join(v.options.Dir, pattern))
		if err != nil {
			return nil, fmt.Errorf("list logs: %w", err)
		}
		for _, file := range found {
			name := strings.TrimSuffix(filepath.Base(file), ".log")
			own := wanted(name, v.options.Names)
			if !own && name == "gateway" {
				v.aside[file] = true
			}
			if own || v.aside[file] {
				files = append(files, file)
			}
		}
	}
	slices.Sort(files)
	return files, nil
}

// suffix is what the agent puts behind the name of a function to name a container.
var suffix = regexp.MustCompile(`^-[0-9a-z]+$`)

// wanted is true for the log of a service, a container, or a container "lambda-<function>-<suffix>" of a function.
func wanted(name string, names []string) bool {
	if len(names) == 0 {
		return true
	}
	return slices.ContainsFunc(names, func(n string) bool {
		rest, isContainer := strings.CutPrefix(name, "lambda-"+n)
		return name == n || (isContainer && suffix.MatchString(rest))
	})
}

// begin returns the last lines of a file, each with the time of the line before where it has none, and makes the file one that is
// followed.
func (v *viewer) begin(file string) ([]entry, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, ignoreGone(err)
	}
	var found []entry
	var rest string
	// Lines are of any length: back until there are enough of them.
	for size := int64(v.options.Lines+1) * lineSize; ; size *= 4 {
		lines := strings.SplitAfter(logfile.Tail(file, 0, size), "\n")
		rest, found = lines[len(lines)-1], found[:0]
		if rest != "" && !v.options.Follow {
			lines = append(lines[:len(lines)-1], rest, "")
		}
		var at time.Time
		for _, line := range lines[:len(lines)-1] {
			if e, ok := v.entry(file, line); ok {
				if e.at.IsZero() && !at.IsZero() {
					e.order = at
				}
				at = e.order
				found = append(found, e)
			}
		}
		if len(found) >= v.options.Lines || size >= info.Size() || v.aside[file] && size >= asideBytes {
			break
		}
	}
	v.files[file] = &position{info: info, offset: info.Size(), rest: rest}
	return found[max(0, len(found)-v.options.Lines):], nil
}

// entry reads a line; false when it is not to be shown.
func (v *viewer) entry(file, line string) (entry, bool) {
	text := trim([]byte(line))
	if len(text) == 0 {
		return entry{}, false
	}
	e := readEntry(text, strings.TrimSuffix(filepath.Base(file), ".log"))
	if v.aside[file] && (!strings.HasPrefix(e.text, startFailed) || !slices.Contains(v.options.Names, e.function)) {
		return entry{}, false
	}
	return e, e.shown(v.options.Level)
}

// more prints what has come since the last look.
func (v *viewer) more() error {
	files, err := v.list()
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := v.grow(file); err != nil {
			return err
		}
	}
	for file := range v.files {
		if !slices.Contains(files, file) {
			delete(v.files, file)
		}
	}
	return nil
}

func (v *viewer) grow(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return ignoreGone(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("follow %s: %w", file, err)
	}
	p := v.files[file]
	if p == nil || !os.SameFile(p.info, info) || info.Size() < p.offset {
		p = &position{}
		v.files[file] = p
	}
	p.info = info
	if info.Size() == p.offset {
		return nil
	}
	data, err := io.ReadAll(io.NewSectionReader(f, p.offset, min(info.Size()-p.offset, chunk)))
	if err != nil {
		return fmt.Errorf("follow %s: %w", file, err)
	}
	p.offset += int64(len(data))
	lines := strings.SplitAfter(p.rest+string(data), "\n")
	p.rest = lines[len(lines)-1]
	for _, line := range lines[:len(lines)-1] {
		v.print(file, line)
	}
	return nil
}

func (v *viewer) print(file, line string) {
	if e, ok := v.entry(file, line); ok {
		e.write(v.out, v.options.JSON)
	}
}

// ignoreGone makes nothing of a file that was removed between listing and opening it.
func ignoreGone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("show a log: %w", err)
}

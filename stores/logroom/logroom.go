// Package logroom bounds what VictoriaLogs keeps on disk. VictoriaLogs' own bound spares the last two days, whatever they
// have; here the oldest day goes until there is room, and when the present one alone is too large, no line is taken until
// the next.
package logroom

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// Shares of the bound, in percent: from full on nothing is taken and days go, until there is no more than enough. The
	// other half is for VictoriaLogs, which writes everything anew when it merges files, before it removes the old ones.
	full, enough = 50, 45
	// lookEvery is the pause between two looks at the folder.
	lookEvery = time.Second
	// dropTimeout bounds the removal of one day.
	dropTimeout = time.Minute
	// remind is how often it is logged that no line is taken.
	remind = 10 * time.Minute
	// partitions is VictoriaLogs' folder of days, droppedPrefix begins the names of those that are being removed.
	partitions, droppedPrefix = "partitions", "dropped-"
)

// day is the name of a day's folder.
var day = regexp.MustCompile(`^[0-9]{8}$`)

// Config of a Room.
type Config struct {
	// Dir is the folder of VictoriaLogs' data.
	Dir string
	// MaxBytes is how much it may take.
	MaxBytes int64
	// Detach makes VictoriaLogs let go of a day.
	Detach func(ctx context.Context, day string) error
	Logger *slog.Logger
}

// Room watches a folder until Close.
type Room struct {
	cfg  Config
	now  func() time.Time
	stop context.CancelFunc
	done chan struct{}

	// mu guards what follows.
	mu sync.Mutex
	// used is what the folder took at the last look, taken what has been let in since, used at once.
	used, taken int64
	isFull      bool
	told        time.Time
}

// Open removes what an earlier removal has left, and starts to watch.
func Open(cfg Config) (*Room, error) {
	r := newRoom(cfg)
	left, err := filepath.Glob(filepath.Join(cfg.Dir, droppedPrefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("look for days of logs that were being removed: %w", err)
	}
	for _, dir := range left {
		if err := os.RemoveAll(dir); err != nil {
			return nil, fmt.Errorf("remove a day of logs: %w", err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	r.look(ctx)
	go func() {
		defer close(r.done)
		ticker := time.NewTicker(lookEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				r.look(ctx)
			}
		}
	}()
	return r, nil
}

func newRoom(cfg Config) *Room { return &Room{cfg: cfg, now: time.Now, done: make(chan struct{})} }

// Close ends the watching. It may be called once.
func (r *Room) Close() error {
	r.stop()
	<-r.done
	return nil
}

// Take says why a request with so many bytes of lines is not taken, "" when it is; -1 is a size that is not known.
func (r *Room) Take(bytes int64) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isFull || r.used+r.taken > r.cfg.MaxBytes*full/100 {
		return fmt.Sprintf("The log store is full (VICTORIALOGS_MAX_MB, %d MB): lines are taken again when the day is over.", r.cfg.MaxBytes>>20)
	}
	r.taken += max(bytes, 0)
	return ""
}

// look measures the folder and makes room.
func (r *Room) look(ctx context.Context) {
	r.mu.Lock()
	before := r.taken
	r.mu.Unlock()
	used, err := size(r.cfg.Dir)
	if err != nil {
		r.cfg.Logger.Warn("the size of the logs cannot be found", "error", err)
		return
	}
	if used > r.limit() {
		used = r.makeRoom(ctx, used)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used = used
	// What was let in before the measurement is a part of it, or will be of the next: VictoriaLogs has lines in memory for
	// a second.
	r.taken = max(r.taken-before, 0)
	was := r.isFull
	r.isFull = used > r.limitLocked()
	switch now := r.now(); {
	case r.isFull && (!was || now.Sub(r.told) > remind):
		r.told = now
		r.cfg.Logger.Warn("the log store is full: no line is taken until the day is over; they wait in files, which have bounds of their own (VICTORIALOGS_MAX_MB)", "bytes", used, "max_bytes", r.cfg.MaxBytes)
	case was && !r.isFull:
		r.cfg.Logger.Info("the log store takes lines again", "bytes", used)
	}
}

// limit is how much is too much: less once it was full, so that it does not change with each line.
func (r *Room) limit() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.limitLocked()
}

func (r *Room) limitLocked() int64 {
	if r.isFull {
		return r.cfg.MaxBytes * enough / 100
	}
	return r.cfg.MaxBytes * full / 100
}

// makeRoom removes days before the present one, the oldest first, until there is room, and returns what is left.
func (r *Room) makeRoom(ctx context.Context, used int64) int64 {
	entries, err := os.ReadDir(filepath.Join(r.cfg.Dir, partitions))
	if err != nil {
		r.cfg.Logger.Warn("the days of logs cannot be listed", "error", err)
		return used
	}
	today := r.now().UTC().Format("20060102")
	var days []string
	for _, e := range entries {
		if day.MatchString(e.Name()) && e.Name() < today {
			days = append(days, e.Name())
		}
	}
	slices.Sort(days)
	for _, name := range days {
		if used <= r.cfg.MaxBytes*enough/100 {
			break
		}
		freed, err := r.drop(ctx, name)
		if err != nil {
			r.cfg.Logger.Error("a day of logs cannot be removed", "day", name, "error", err)
			break
		}
		used -= freed
		r.cfg.Logger.Warn("a day of logs was removed: the log store is full (VICTORIALOGS_MAX_MB)", "day", name, "bytes", freed)
	}
	return used
}

// drop removes a day. A line of it that comes later makes it anew.
func (r *Room) drop(ctx context.Context, name string) (freed int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, dropTimeout)
	defer cancel()
	from, to := filepath.Join(r.cfg.Dir, partitions, name), filepath.Join(r.cfg.Dir, droppedPrefix+name)
	if freed, err = size(from); err != nil {
		return 0, err
	}
	if err := r.cfg.Detach(ctx, name); err != nil {
		return 0, err
	}
	// At once: a kill while it is removed must not leave half a day, which VictoriaLogs would refuse to open.
	if err := os.Rename(from, to); err != nil {
		return 0, fmt.Errorf("remove a day of logs: %w", err)
	}
	if err := os.RemoveAll(to); err != nil {
		return 0, fmt.Errorf("remove a day of logs: %w", err)
	}
	return freed, nil
}

// size is what a folder takes on disk. Files that vanish meanwhile take nothing.
func size(dir string) (int64, error) {
	var bytes int64
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil {
			var info fs.FileInfo
			if info, err = entry.Info(); err == nil {
				if st, ok := info.Sys().(*syscall.Stat_t); ok {
					bytes += st.Blocks * 512
				}
			}
		}
		if os.IsNotExist(err) {
			return nil
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("measure %s: %w", strings.TrimSuffix(dir, "/"), err)
	}
	return bytes, nil
}

package wholefile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A writer that is killed leaves its temporary file, which may hold a secret. The next one that writes the same target removes it.

// leftAfter is how old a temporary file must be before it counts as left by somebody. That nobody has it locked says so by itself; but a writer
// of before there were locks has none, and between the making of a file and its lock is a moment.
const leftAfter = time.Minute

// swept are the targets beside which this process has found nothing more to sweep: what others leave later, the next process sweeps.
var swept sync.Map // string -> struct{}

// temporary begins the names of a target's temporary files; digits follow (os.CreateTemp).
func temporary(path string) string { return "." + filepath.Base(path) + "." }

// Sweep removes the temporary files of a target whose writers are no more, as Write does. What cannot be removed is no reason not to write.
func Sweep(path string) {
	if _, done := swept.Load(path); done {
		return
	}
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	clean := true
	for _, e := range entries {
		random, ours := strings.CutPrefix(e.Name(), temporary(path))
		if ours && random != "" && strings.Trim(random, "0123456789") == "" && e.Type().IsRegular() {
			clean = remove(filepath.Join(dir, e.Name())) && clean
		}
	}
	if clean {
		swept.Store(path, struct{}{})
	}
}

// remove removes a temporary file that nobody writes. It returns false when it has to be looked at again.
func remove(name string) bool {
	// Another user may have put something else there meanwhile.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || time.Since(info.ModTime()) < leftAfter || lock(f) != nil {
		return false
	}
	return os.Remove(name) == nil
}

// lock takes the lock of a file, which goes with the process that has it.
func lock(f *os.File) error { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) }

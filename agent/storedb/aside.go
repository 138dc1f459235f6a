package storedb

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// damaged is the folder, in that of a containerd, of what was set aside; each time has a folder of its own.
	damaged = "damaged"
	// stamp is the name of such a folder.
	stamp = "20060102T150405.000Z"
	// maxSets and maxBytes bound them: the oldest go first.
	maxSets, maxBytes = 3, 256 << 20
	// noteFor is how long one is worth a note.
	noteFor = 7 * 24 * time.Hour
	// pause is the least time between one and the third after it: a disk that damages files as they are written is not healed by new ones.
	pause = time.Hour
	// snapshotter has the layers of images unpacked.
	snapshotter = "io.containerd.snapshotter.v1.overlayfs"
)

// Databases are those of a containerd with these folders: root lasts, state is of its running containers.
func Databases(root, state string) []string {
	return []string{
		filepath.Join(root, "io.containerd.metadata.v1.bolt", "meta.db"),
		filepath.Join(root, snapshotter, "metadata.db"),
		filepath.Join(state, "io.containerd.mount-manager.v1.bolt", "mounts.db"),
	}
}

// errAgain says that setting aside does not help.
var errAgain = errors.New("its databases were damaged and made anew several times within the hour: the disk, or the memory, of this machine is most likely at fault")

// SetAside moves the databases of a containerd that does not run, and whose containers have ended, to a folder, and returns that. The
// unpacked layers, which nothing lists any more then, are removed; the content of images stays where it is.
func SetAside(root, state string, now time.Time) (kept string, err error) {
	if sets := sets(root); len(sets) >= maxSets-1 && now.Sub(sets[len(sets)-maxSets+1].at).Abs() < pause {
		return "", errAgain
	}
	// First: a full disk has room for the rest then, and until the databases are moved the next start sees the damage, and goes on.
	if err := os.RemoveAll(filepath.Join(root, snapshotter, "snapshots")); err != nil {
		return "", fmt.Errorf("remove the layers that are listed there: %w", err)
	}
	kept = filepath.Join(root, damaged, now.UTC().Format(stamp))
	if err := os.MkdirAll(kept, 0o700); err != nil {
		return "", fmt.Errorf("make the folder for damaged databases: %w", err)
	}
	// The list of all last: with it and without the others the store is damaged, and with the others and without it it would not seem so.
	for _, file := range slices.Backward(Databases(root, state)) {
		if err := move(file, filepath.Join(kept, filepath.Base(file))); err != nil {
			return "", fmt.Errorf("set the database %s aside: %w", file, err)
		}
	}
	return kept, bound(root)
}

// move renames a file, also to another file system. One that is not there is no error.
func move(file, to string) error {
	err := os.Rename(file, to)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	data, readErr := os.ReadFile(file)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		return err
	}
	return os.Remove(file)
}

// set is one folder of what was set aside.
type set struct {
	dir   string
	at    time.Time
	bytes int64
}

// sets lists them, oldest first.
func sets(root string) []set {
	entries, _ := os.ReadDir(filepath.Join(root, damaged)) // sorted by name, which is the time
	var out []set
	for _, e := range entries {
		at, err := time.Parse(stamp, e.Name())
		if err != nil {
			continue // somebody else's
		}
		one := set{dir: filepath.Join(root, damaged, e.Name()), at: at}
		files, _ := os.ReadDir(one.dir)
		for _, f := range files {
			if info, err := f.Info(); err == nil {
				one.bytes += info.Size()
			}
		}
		out = append(out, one)
	}
	return out
}

// bound removes the oldest of what was set aside.
func bound(root string) error {
	all := sets(root)
	total := int64(0)
	for i, s := range slices.Backward(all) {
		if total += s.bytes; len(all)-i > maxSets || total > maxBytes && i < len(all)-1 {
			if err := os.RemoveAll(s.dir); err != nil {
				return fmt.Errorf("remove old damaged databases: %w", err)
			}
		}
	}
	return nil
}

// Notes say for the operator what was set aside of a containerd lately.
func Notes(root string, now time.Time) []string {
	var notes []string
	for _, s := range sets(root) {
		if now.Sub(s.at).Abs() < noteFor {
			notes = append(notes, Note(s.dir, s.at))
		}
	}
	return notes
}

// Note is the sentence for one of them.
func Note(dir string, at time.Time) string {
	return fmt.Sprintf("the store of images was damaged at %s and made anew from archives and registries; the damaged files are in %s",
		at.UTC().Format(time.RFC3339), strings.TrimSuffix(dir, "/"))
}

package code

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// HasLibraries says whether code or layers have shared libraries, or may have them, in a folder that the loader searches for those of the
// interpreter itself: /var/task, /var/task/lib and /opt/lib of LD_LIBRARY_PATH.
func (l *Lease) HasLibraries() (bool, error) {
	for n, id := range l.IDs {
		tree := searched{id: id, top: n == 0} // the second is that of the layers
		known, ok := l.store.libraries.Load(tree)
		if !ok {
			found, err := hasLibraries(l.store.root(id), tree.top)
			if err != nil {
				return false, err
			}
			l.store.libraries.Store(tree, found)
			known = found
		}
		if known.(bool) {
			return true, nil
		}
	}
	return false, nil
}

// searched is a tree in one of its places; top says that its own folder is searched, too.
type searched struct {
	id  string
	top bool
}

// hasLibraries looks at one tree.
func hasLibraries(root string, top bool) (bool, error) {
	dirs := []string{"lib"}
	if top {
		dirs = append(dirs, ".")
	}
	for _, dir := range dirs {
		dir = filepath.Join(root, dir)
		info, err := os.Lstat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return false, err
		}
		if info.Mode().Type() == fs.ModeSymlink {
			return true, nil // where it leads is known in the container alone
		}
		if !info.IsDir() {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return false, err
		}
		for _, e := range entries {
			// Extension modules of Python in the folder of the code are no libraries that the loader would look for.
			library := strings.HasPrefix(e.Name(), "lib") || dir != root
			if e.Name() == "glibc-hwcaps" || library && (strings.HasSuffix(e.Name(), ".so") || strings.Contains(e.Name(), ".so.")) {
				return true, nil
			}
		}
	}
	return false, nil
}

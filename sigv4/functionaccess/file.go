package functionaccess

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// mode lets the stores read the file where they run as a user of their own, in the gateway's group.
const mode = 0o640

// Save puts a list into the file at path: the old list is there, or the new one, and never a part. The folder must exist.
func Save(path string, l List) error {
	if err := save(path, l); err != nil {
		return fmt.Errorf("write what functions may do at the stores to %s: %w", path, err)
	}
	return nil
}

func save(path string, l List) error {
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync() // else a power cut may leave an empty file under the final name
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// File knows what functions may do by a file that the gateway writes. It is looked at with each question: what the gateway
// has written holds for the next request. While there is no file, no function may do anything; when one cannot be read,
// what was read before holds.
type File struct {
	path string
	log  *slog.Logger

	// mu guards what the file said, what it looked like then, and the last problem, which is logged once.
	mu      sync.Mutex
	list    List
	read    os.FileInfo
	problem string
}

// NewFile returns what the file at path (FUNCTION_ACCESS_FILE) says, which need not be there yet.
func NewFile(path string, log *slog.Logger) *File { return &File{path: path, log: log} }

// Rights returns those of the function with an access key, false when there is no such function.
func (f *File) Rights(accessKeyID string) (Rights, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	problem := ""
	if err := f.refresh(); err != nil {
		problem = err.Error()
	}
	if problem != f.problem && problem != "" {
		f.log.Warn("what functions may do at the stores cannot be read (FUNCTION_ACCESS_FILE)", "error", problem)
	}
	f.problem = problem
	return f.list.Rights(accessKeyID)
}

// refresh reads the file when it is another one than before.
func (f *File) refresh() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if f.read != nil && os.SameFile(f.read, info) && f.read.ModTime().Equal(info.ModTime()) && f.read.Size() == info.Size() {
		return nil
	}
	if info.Mode().Perm()&0o027 != 0 {
		return fmt.Errorf("%s: others may read or change it (mode %04o); run: chmod 640 %s", f.path, info.Mode().Perm(), f.path)
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	var list List
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.list, f.read = list, info
	return nil
}

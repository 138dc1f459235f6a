package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/edge-serverless-box/esb/guard/wholefile"
)

const suffix = ".xml"

// Rules keeps the configurations of buckets, a file each. It is safe for concurrent use.
type Rules struct {
	dir string
	// mu keeps two writers of one bucket apart, and a reader from a file that is about to go.
	mu sync.Mutex
}

// Open returns the rules in a folder, which is made.
func Open(dir string) (*Rules, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("lifecycle rules: %w", err)
	}
	return &Rules{dir: dir}, nil
}

// path is where a bucket's are; a name that is none of a bucket has none.
func (r *Rules) path(bucket string) (string, error) {
	if bucket == "" || strings.ContainsAny(bucket, "/\\\x00") || strings.HasPrefix(bucket, ".") {
		return "", fmt.Errorf("lifecycle rules: %q is no bucket", bucket)
	}
	return filepath.Join(r.dir, bucket+suffix), nil
}

// Get returns a bucket's configuration, false when it has none.
func (r *Rules) Get(bucket string) (Configuration, bool, error) {
	path, err := r.path(bucket)
	if err != nil {
		return Configuration{}, false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Configuration{}, false, nil
	}
	if err != nil {
		return Configuration{}, false, fmt.Errorf("lifecycle rules: %w", err)
	}
	c, err := Parse(data)
	if err != nil {
		return c, false, fmt.Errorf("lifecycle rules: %s: %w", path, err)
	}
	return c, true, nil
}

// Put sets a bucket's configuration. It is on disk when Put returns.
func (r *Rules) Put(bucket string, c Configuration) error {
	path, err := r.path(bucket)
	if err != nil {
		return err
	}
	data, err := c.Marshal()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := wholefile.Write(path, data, 0o600); err != nil {
		return fmt.Errorf("lifecycle rules: %w", err)
	}
	return nil
}

// Delete forgets a bucket's configuration; one that it does not have is no error.
func (r *Rules) Delete(bucket string) error {
	path, err := r.path(bucket)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lifecycle rules: %w", err)
	}
	return nil
}

// Buckets are those that have a configuration.
func (r *Rules) Buckets() ([]string, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, fmt.Errorf("lifecycle rules: %w", err)
	}
	var all []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && !strings.HasPrefix(name, ".") {
			all = append(all, name)
		}
	}
	return all, nil
}

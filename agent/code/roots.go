package code

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/api/reason"
)

// rootOf returns which of the folders that code may lie in a local path is in, and where in it.
func (s *Store) rootOf(location string) (root, name string, err error) {
	if root, name, ok := within(s.cfg.Roots, location); ok {
		return root, name, nil
	}
	return "", "", agent.Errorf(agent.CodePrecondition, "%s: function code may lie in S3 or below %s only: move it there, or add its folder to CODE_ROOTS",
		location, strings.Join(s.cfg.Roots, ", "))
}

func within(roots []string, path string) (root, name string, ok bool) {
	for _, root := range roots {
		if name, err := filepath.Rel(root, path); err == nil && filepath.IsLocal(name) {
			return root, name, true
		}
	}
	return "", "", false
}

// resolve follows the links that are there now, to a place in one of the roots.
func (s *Store) resolve(path string) (root, name string, err error) {
	if _, _, err := s.rootOf(path); err != nil {
		return "", "", err
	}
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", "", unreadable(path, err)
	}
	var roots []string
	for _, r := range s.cfg.Roots {
		if real, err := filepath.EvalSymlinks(r); err == nil { // one that is not there holds nothing
			roots = append(roots, real)
		}
	}
	root, name, ok := within(roots, resolved)
	if !ok {
		return "", "", unreadable(path, errOutside)
	}
	return root, name, nil
}

// errOutside is a link that leads out of all roots.
var errOutside = errors.New("it leads elsewhere")

// fetchPath copies a local folder or unpacks a local zip file, and returns the digest of what it read. Whoever puts links
// into the way meanwhile: nothing outside of the root is read.
func (s *Store) fetchPath(ctx context.Context, path, dir string) (about info, digest string, err error) {
	rootPath, name, err := s.resolve(path)
	if err != nil {
		return info{}, "", err
	}
	root, err := os.OpenRoot(rootPath)
	if err != nil {
		return info{}, "", unreadable(path, err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	found, err := root.Stat(name)
	if err != nil {
		return info{}, "", unreadable(path, err)
	}
	if found.IsDir() {
		folder, err := root.OpenRoot(name)
		if err != nil {
			return info{}, "", unreadable(path, err)
		}
		defer func() { _ = folder.Close() }()
		return fetchFolder(ctx, path, folder, dir)
	}
	in, err := openFile(root, name)
	if err != nil {
		return info{}, "", unreadable(path, err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	return fetchFile(ctx, path, in, dir)
}

// openFile opens a file to read, and does not wait for anybody when it has become a pipe meanwhile.
func openFile(root *os.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// unreadable is the error for a path in a root that cannot be opened.
func unreadable(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return agent.Because(reason.CodeMissing, agent.Errorf(agent.CodePrecondition, "%s: the agent has no such file or folder: gateway and agent must see code at the same path", path))
	}
	return agent.Because(reason.CodeMissing, agent.Errorf(agent.CodePrecondition, "%s: the agent cannot read it, or a symbolic link leads out of its folder in CODE_ROOTS: %w", path, withoutPath(err)))
}

// withoutPath leaves away what names a file.
func withoutPath(err error) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}

package codewatch

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/api/codeversion"
)

const (
	// settling is how old the last change must be before a signature stands for the content: two changes within one tick
	// of the file system's clock look the same.
	settling = 2 * time.Second
	// maxFolders bounds the folders that are watched of one source; the rest is found by looking.
	maxFolders = 4096
)

// sign describes the files at path by what the file system says about them, which is cheap to ask for: as long as that
// stays the same, so does the content. settled is false when they have changed just now.
func sign(ctx context.Context, path string) (signature string, settled bool, err error) {
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", false, err
	}
	sum := sha256.New()
	var newest time.Time
	entries := 0
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		if entries++; entries > codeversion.MaxEntries+1 {
			return fmt.Errorf("%s: holds more than %d files and folders", path, codeversion.MaxEntries)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return fmt.Errorf("%s: the file system does not tell enough about it", file)
		}
		changed := time.Unix(stat.Ctim.Unix())
		if changed.After(newest) {
			newest = changed
		}
		_, err = fmt.Fprintf(sum, "%q %d %d %d %d\n", file, stat.Ino, info.Size(), info.Mode(), changed.UnixNano())
		return err
	})
	return string(sum.Sum(nil)), time.Since(newest) > settling, err
}

// Look says what is wrong with code at a local path, nil when it is there and can be read. Code in a store is not looked at, but
// there must be one.
func Look(ctx context.Context, location string, store bool) error {
	if isObject(location) {
		if !store {
			return errNoStore()
		}
		return nil
	}
	if _, err := codeversion.Of(ctx, location); err != nil {
		return err
	}
	if info, err := os.Stat(location); err != nil || info.IsDir() {
		return err
	}
	archive, err := zip.OpenReader(location)
	if err != nil {
		return fmt.Errorf("%s: is no zip file: %w", location, err)
	}
	return archive.Close()
}

// foldersIn returns path and the folders below it, none when it is a file.
func foldersIn(path string) []string {
	root, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil
	}
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return []string{filepath.Dir(root)}
	}
	var all []string
	_ = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // a folder that cannot be read is not watched, and looking says why
		}
		if d.IsDir() {
			all = append(all, file)
		}
		if len(all) >= maxFolders {
			return fs.SkipAll
		}
		return nil
	})
	return all
}

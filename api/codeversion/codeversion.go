// Package codeversion is the part of the contract that says what version a local piece of function code has: gateway and
// agent compute it each for itself and must come to the same.
package codeversion

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"syscall"
)

// Limits of one piece of code.
const (
	// MaxBytes of code and layers, unpacked and together (AWS: "Unzipped size must be smaller than 262144000 bytes").
	MaxBytes = 262_144_000
	// MaxEntries of one zip file or folder. AWS names no such limit; this is what a zip file without extensions can hold.
	MaxEntries = 65_535
)

// Prefixes of versions.
const (
	// Content begins the version of a local file or folder: SHA-256 of what is in it, hexadecimal.
	Content = "sha256:"
	// ETag begins the version of an object in S3: its ETag without quotes.
	ETag = "etag:"
)

// Of returns the version of the zip file or folder at path. For a file, that is the digest of its bytes; for a folder, of
// the names, kinds, execute bits and contents of all that is in it, in order of names: times, owners and other modes do not
// count. A folder with more than MaxEntries or MaxBytes, or with anything but files, folders and links in it, is an
// error that names what is wrong.
func Of(ctx context.Context, path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	switch {
	case info.Mode().IsRegular():
		if info.Size() > MaxBytes {
			return "", fmt.Errorf("%s: has %d bytes, at most %d are allowed", path, info.Size(), MaxBytes)
		}
		err = addFile(sum, MaxBytes, func() (*os.File, error) { return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) })
	case info.IsDir():
		err = addFolder(ctx, sum, path)
	default:
		err = fmt.Errorf("%s: is neither a zip file nor a folder", path)
	}
	if err != nil {
		return "", err
	}
	return Content + hex.EncodeToString(sum.Sum(nil)), nil
}

// addFolder follows no link in the folder, also none that somebody puts in a file's place meanwhile: links are part of the
// code, and lead where they lead in the container.
func addFolder(ctx context.Context, sum hash.Hash, path string) (err error) {
	_, _ = io.WriteString(sum, "esb code folder 1\n") // no zip file begins like this
	entries, left := 0, int64(MaxBytes)
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	// WalkDir visits in lexical order.
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || name == "." {
			return err
		}
		if entries++; entries > MaxEntries {
			return fmt.Errorf("%s: holds more than %d files and folders", path, MaxEntries)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch kind := info.Mode().Type(); kind {
		case fs.ModeDir:
			_, err = fmt.Fprintf(sum, "d %q\n", name)
		case fs.ModeSymlink:
			var target string
			if target, err = root.Readlink(name); err == nil {
				_, err = fmt.Fprintf(sum, "l %q %q\n", name, target)
			}
		case 0:
			if left -= info.Size(); left < 0 {
				return fmt.Errorf("%s: holds more than %d bytes (with %s)", path, MaxBytes, name)
			}
			_, _ = fmt.Fprintf(sum, "f %q %t %d\n", name, info.Mode()&0o111 != 0, info.Size())
			err = addFile(sum, info.Size(), func() (*os.File, error) { return root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) })
		default:
			return fmt.Errorf("%s: %s is neither a file nor a folder nor a link", path, name)
		}
		return err
	})
}

// addFile adds a file's bytes, at most as many as it had when it was looked at: one that grows without end does not hold
// the caller up, and its version is another one next time. It does not wait for what has become a pipe either.
func addFile(sum hash.Hash, size int64, open func() (*os.File, error)) error {
	f, err := open()
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if now, err := f.Stat(); err != nil || !now.Mode().IsRegular() {
		return errors.Join(err, fmt.Errorf("%s: changes while it is read", f.Name()))
	}
	_, err = io.Copy(sum, io.LimitReader(f, size))
	return err
}

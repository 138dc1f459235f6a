// Package codeversion is the part of the contract that says what version a local piece of function code has: gateway and
// agent compute it each for itself and must come to the same.
package codeversion

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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
		err = addFile(sum, path, MaxBytes)
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

func addFolder(ctx context.Context, sum hash.Hash, root string) error {
	_, _ = io.WriteString(sum, "esb code folder 1\n") // no zip file begins like this
	entries, left := 0, int64(MaxBytes)
	// WalkDir does not follow a root that is a link, and visits in lexical order.
	resolved, err := filepath.EvalSymlinks(root)
	if err != nil {
		return err
	}
	return filepath.WalkDir(resolved, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || path == resolved {
			return err
		}
		name, err := filepath.Rel(resolved, path)
		if err != nil {
			return err
		}
		if entries++; entries > MaxEntries {
			return fmt.Errorf("%s: holds more than %d files and folders", root, MaxEntries)
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
			if target, err = os.Readlink(path); err == nil {
				_, err = fmt.Fprintf(sum, "l %q %q\n", name, target)
			}
		case 0:
			if left -= info.Size(); left < 0 {
				return fmt.Errorf("%s: holds more than %d bytes (with %s)", root, MaxBytes, name)
			}
			_, _ = fmt.Fprintf(sum, "f %q %t %d\n", name, info.Mode()&0o111 != 0, info.Size())
			err = addFile(sum, path, info.Size())
		default:
			return fmt.Errorf("%s: %s is neither a file nor a folder nor a link", root, name)
		}
		return err
	})
}

// addFile adds a file's bytes, at most as many as it had when it was looked at: one that grows without end does not hold
// the caller up, and its version is another one next time.
func addFile(sum hash.Hash, path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.Copy(sum, io.LimitReader(f, size))
	return err
}

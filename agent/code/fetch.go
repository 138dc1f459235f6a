package code

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/api/codeversion"
	"github.com/edge-serverless-box/esb/api/reason"
)

// ParseS3 splits "s3://bucket/key", false when location is none.
func ParseS3(location string) (bucket, key string, ok bool) {
	rest, ok := strings.CutPrefix(location, "s3://")
	if !ok {
		return "", "", false
	}
	bucket, key, _ = strings.Cut(rest, "/")
	return bucket, key, bucket != "" && key != ""
}

// fetch fills the empty folder dir with a source's files, in the version that is asked for.
func (s *Store) fetch(ctx context.Context, source agent.CodeSource, dir string) (string, info, error) {
	if bucket, key, ok := ParseS3(source.Location); ok {
		return s.fetchObject(ctx, source, bucket, key, dir)
	}
	want := strings.TrimPrefix(source.Version, codeversion.Content)
	about, got, err := s.fetchPath(ctx, source.Location, dir)
	if err != nil {
		return "", info{}, err
	}
	if got != want {
		return "", info{}, agent.Because(reason.CodeChanging, agent.Errorf(agent.CodeUnavailable,
			"%s: holds another version of the code than was asked for: the gateway takes it up when it has seen it", source.Location))
	}
	return want, about, nil
}

// fetchObject downloads and unpacks a zip file of S3.
func (s *Store) fetchObject(ctx context.Context, source agent.CodeSource, bucket, key, dir string) (string, info, error) {
	if s.cfg.Objects == nil {
		return "", info{}, agent.Because(reason.CodeMissing, agent.Errorf(agent.CodePrecondition, "%s: the agent has no S3 store: set S3_ENDPOINT", source.Location))
	}
	zipped := filepath.Join(filepath.Dir(dir), "zip")
	id, err := spool(zipped, source.Location, func(w io.Writer) error {
		return s.cfg.Objects.Fetch(ctx, bucket, key, strings.TrimPrefix(source.Version, codeversion.ETag), w)
	})
	if err != nil {
		return "", info{}, err
	}
	about, err := unzip(ctx, source.Location, zipped, dir)
	if err != nil {
		return "", info{}, err
	}
	if err := s.remember(source, id); err != nil {
		return "", info{}, fmt.Errorf("remember %s: %w", source.Location, err)
	}
	return id, about, os.Remove(zipped)
}

// fetchFolder copies a local folder.
func fetchFolder(ctx context.Context, path string, folder *os.Root, dir string) (info, string, error) {
	about, err := copyFolder(ctx, path, folder, dir)
	if err != nil {
		return info{}, "", err
	}
	// Of the copy: the folder itself may change while it is read.
	digest, err := codeversion.Of(ctx, dir)
	if err != nil {
		return info{}, "", fmt.Errorf("digest of %s: %w", path, err)
	}
	return about, strings.TrimPrefix(digest, codeversion.Content), nil
}

// fetchFile unpacks a local zip file.
func fetchFile(ctx context.Context, path string, in *os.File, dir string) (about info, digest string, err error) {
	found, err := in.Stat()
	if err != nil {
		return info{}, "", fmt.Errorf("look at the code: %w", err)
	}
	if !found.Mode().IsRegular() {
		return info{}, "", agent.Errorf(agent.CodePrecondition, "%s: is neither a zip file nor a folder", path)
	}
	zipped := filepath.Join(filepath.Dir(dir), "zip")
	digest, err = spool(zipped, path, func(w io.Writer) error {
		_, err := io.Copy(w, in)
		return err
	})
	if err != nil {
		return info{}, "", err
	}
	if about, err = unzip(ctx, path, zipped, dir); err != nil {
		return info{}, "", err
	}
	return about, digest, os.Remove(zipped)
}

// spool writes what fill gives to a new file and returns its SHA-256. A zip file larger than what may be in it, unpacked,
// is refused before it fills the disk.
func spool(file, location string, fill func(io.Writer) error) (digest string, err error) {
	out, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", fmt.Errorf("make a file for %s: %w", location, err)
	}
	sum := sha256.New()
	err = fill(&limited{to: io.MultiWriter(out, sum), left: codeversion.MaxBytes, location: location})
	if err = errors.Join(err, out.Close()); err != nil {
		return "", fmt.Errorf("read %s: %w", location, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// limited is a writer that takes so many bytes.
type limited struct {
	to       io.Writer
	left     int64
	location string
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, agent.Errorf(agent.CodePrecondition, "%s: the zip file has more than %d bytes", l.location, codeversion.MaxBytes)
	}
	return l.to.Write(p)
}

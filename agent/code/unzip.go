package code

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/api/codeversion"
)

const (
	// directoryBytes bounds what is read to list a zip file's entries: a directory of millions of them would cost
	// gigabytes of memory before they could be counted.
	directoryBytes = 32 << 20
	// flagEncrypted is set for encrypted entries (APPNOTE.TXT 4.4.4).
	flagEncrypted = 0x1
)

var errDirectory = errors.New("its list of entries is too long")

// unzip unpacks a zip file into the empty folder dir; location is its name in messages.
func unzip(ctx context.Context, location, file, dir string) (_ info, err error) {
	f, err := os.Open(file)
	if err != nil {
		return info{}, fmt.Errorf("unpack %s: %w", location, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	found, err := f.Stat()
	if err != nil {
		return info{}, fmt.Errorf("unpack %s: %w", location, err)
	}
	budget := &budgetReader{from: f, left: directoryBytes}
	archive, err := zip.NewReader(budget, found.Size())
	if err != nil {
		return info{}, agent.Errorf(agent.CodePrecondition, "%s: is not a zip file that can be read: %w", location, err)
	}
	budget.unlimited = true
	if len(archive.File) == 0 {
		return info{}, agent.Errorf(agent.CodePrecondition, "%s: the zip file is empty", location)
	}
	if len(archive.File) > codeversion.MaxEntries {
		return info{}, agent.Errorf(agent.CodePrecondition, "%s: entry %q: is one too many: at most %d files and folders are allowed",
			location, archive.File[codeversion.MaxEntries].Name, codeversion.MaxEntries)
	}
	// Before anything is written: what the file says about itself. What it says too little of is found out by file.
	total := uint64(0)
	for _, e := range archive.File {
		if total += e.UncompressedSize64; e.UncompressedSize64 > codeversion.MaxBytes || total > codeversion.MaxBytes {
			return info{}, agent.Errorf(agent.CodePrecondition, "%s: entry %q: makes the code larger than %d bytes unpacked",
				location, e.Name, codeversion.MaxBytes)
		}
	}
	b, err := newBuilder(location, dir)
	if err != nil {
		return info{}, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	for _, e := range archive.File {
		if err := ctx.Err(); err != nil {
			return info{}, fmt.Errorf("unpack %s: %w", location, err)
		}
		if err := b.unzipEntry(e); err != nil {
			return info{}, err
		}
	}
	return b.info, nil
}

func (b *builder) unzipEntry(e *zip.File) error {
	mode := e.Mode()
	switch {
	case e.Flags&flagEncrypted != 0:
		return b.refuse(e.Name, "is encrypted")
	case mode&(fs.ModeSetuid|fs.ModeSetgid) != 0:
		return b.refuse(e.Name, "has the mode %s: setuid and setgid are not allowed", mode)
	case mode.IsDir():
		return b.folder(e.Name)
	case mode.Type() != 0 && mode.Type() != fs.ModeSymlink:
		return b.refuse(e.Name, "is neither a file nor a folder nor a link (%s)", mode.Type())
	}
	r, err := e.Open()
	if err != nil {
		return b.refuse(e.Name, "cannot be read: %w", err)
	}
	defer func() { _ = r.Close() }()
	if mode.Type() == fs.ModeSymlink {
		target, err := io.ReadAll(io.LimitReader(r, maxLink+1))
		if err != nil {
			return b.refuse(e.Name, "cannot be read: %w", err)
		}
		return b.link(e.Name, string(target))
	}
	source := &zipped{from: r}
	err = b.file(e.Name, mode&0o111 != 0, int64(e.UncompressedSize64), source)
	if source.err != nil {
		return b.refuse(e.Name, "cannot be read: %w", source.err)
	}
	return err
}

// zipped remembers whether reading failed, rather than writing: the first is the zip file's fault.
type zipped struct {
	from io.Reader
	err  error
}

// Read implements io.Reader.
func (z *zipped) Read(p []byte) (int, error) {
	n, err := z.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		z.err = err
	}
	return n, err
}

// budgetReader reads so many bytes until it is unlimited. It is used by one goroutine.
type budgetReader struct {
	from      io.ReaderAt
	left      int64
	unlimited bool
}

// ReadAt implements io.ReaderAt.
func (r *budgetReader) ReadAt(p []byte, off int64) (int, error) {
	if r.left -= int64(len(p)); r.left < 0 && !r.unlimited {
		return 0, errDirectory
	}
	return r.from.ReadAt(p, off)
}

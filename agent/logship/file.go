package logship

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/agent/logfiles"
)

const (
	// headBytes is how much of a file's beginning identifies it; it lies in the block that is never freed.
	headBytes = 1 << 10
	// vanished is the number of scans after which a file that is not seen is gone. One that is renamed during a scan can
	// be missed by it.
	vanished = 3
	// settled is how long a rotated file must have been left alone until its last line counts as whole.
	settled = 10 * time.Second
)

// services are those whose own log is shipped.
var services = []string{jobGateway, jobAgent}

type fileID struct{ device, inode uint64 }

// file is one log file. It belongs to one content: a file that was cut or replaced gets another one.
type file struct {
	position
	origin
	path string
	// size, used (on disk) and changed are as of the last scan.
	size, used int64
	changed    time.Time
	// alive: it may still grow.
	alive bool
	// missing counts the scans that have not seen it.
	missing int
	// last is the time of the last record that got one made up.
	last time.Time
}

// scan brings s.files up to date with the folder.
func (s *Shipper) scan() error {
	found, err := s.list()
	if err != nil {
		return err
	}
	seen := map[*file]bool{}
	var fresh []*file
	for _, now := range found {
		known := s.files[fileID{now.Device, now.Inode}]
		// Containers' files are never renamed, and a service's once: anything else is another file with the inode of a
		// removed one.
		if known == nil || (known.Name != now.Name && (now.job == jobLambda || now.current())) {
			fresh = append(fresh, now)
			continue
		}
		seen[s.update(known, now)] = true
	}
	for _, now := range fresh {
		if known := s.moved(now, seen); known != nil {
			delete(s.files, fileID{known.Device, known.Inode})
			known.Device, known.Inode = now.Device, now.Inode
			s.files[fileID{now.Device, now.Inode}] = known
			now = s.update(known, now)
		} else {
			if before := s.files[fileID{now.Device, now.Inode}]; before != nil {
				s.gone(before)
			}
			s.files[fileID{now.Device, now.Inode}] = now
		}
		seen[now] = true
	}
	var backlog int64
	for id, f := range s.files {
		if seen[f] {
			backlog += max(f.size-f.Offset, 0)
			continue
		}
		if f.missing++; f.missing < vanished {
			continue
		}
		delete(s.files, id)
		s.gone(f)
	}
	s.backlog.Store(backlog)
	return nil
}

// gone reports what is lost with a file that somebody else has removed.
func (s *Shipper) gone(f *file) {
	if s.store != nil && f.size > f.Offset {
		s.log.Warn("a log file is gone that was not shipped yet", "file", f.Name, "bytes", f.size-f.Offset)
	}
}

// current is true for the file that a service writes now.
func (f *file) current() bool {
	return f.job != jobLambda && filepath.Base(f.Name) == f.container+".log"
}

// update takes over what a scan has seen of a known file, and returns it, or its successor when its content is another.
func (s *Shipper) update(known, now *file) *file {
	if now.size < known.Offset {
		s.files[fileID{now.Device, now.Inode}] = now
		return now
	}
	if now.function == "" {
		now.function, now.supervised = known.Function, known.Supervised
	}
	known.Name, known.Function, known.Supervised = now.Name, now.function, now.supervised
	known.origin, known.path, known.alive = now.origin, now.path, now.alive
	known.size, known.used, known.changed, known.missing = now.size, now.used, now.changed, 0
	return known
}

// moved finds the known file that now is under another device or inode number: after a reboot, or from a backup.
func (s *Shipper) moved(now *file, seen map[*file]bool) *file {
	for _, known := range s.files {
		if seen[known] || known.HeadSize == 0 || now.size < known.Offset || (known.Inode != now.Inode && known.Name != now.Name) {
			continue
		}
		if now.job == jobLambda && known.Name != now.Name {
			continue
		}
		if head, err := readHead(now.path, known.HeadSize); err == nil && head == known.Head {
			return known
		}
	}
	return nil
}

// list returns the log files that there are now.
func (s *Shipper) list() ([]*file, error) {
	var found []*file
	for _, dir := range []string{"", gatewayDir, functionsDir} {
		entries, err := os.ReadDir(filepath.Join(s.cfg.Dir, dir))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list log files: %w", err)
		}
		for _, e := range entries {
			f := &file{path: filepath.Join(s.cfg.Dir, dir, e.Name())}
			f.Name = filepath.Join(dir, e.Name())
			if !s.identify(f, dir) {
				continue
			}
			info, err := e.Info()
			if err != nil || !info.Mode().IsRegular() {
				continue // gone meanwhile, or not ours
			}
			st, ok := info.Sys().(*syscall.Stat_t)
			if !ok {
				continue
			}
			f.Device, f.Inode = st.Dev, st.Ino
			f.size, f.used, f.changed = st.Size, st.Blocks*512, info.ModTime()
			if f.job != jobLambda {
				f.alive = f.current() || time.Since(f.changed) < settled
			}
			found = append(found, f)
		}
	}
	return found, nil
}

// identify fills in whose file it is; false for files that are nobody's.
func (s *Shipper) identify(f *file, dir string) bool {
	name := filepath.Base(f.path)
	if dir == functionsDir {
		container, ok := logfiles.Container(name)
		if !ok {
			return false
		}
		c := s.cfg.Container(container)
		f.origin = origin{job: jobLambda, container: container, function: c.Function, supervised: c.Supervised}
		f.Function, f.Supervised, f.alive = c.Function, c.Supervised, c.Alive
		return true
	}
	for _, service := range services {
		if dir == gatewayDir && service != jobGateway {
			continue // the folder is the gateway's, who is not to write in another's name
		}
		if rest, ok := strings.CutPrefix(name, service+".log"); ok && (rest == "" || rest[0] == '.') {
			f.origin = origin{job: service, container: service}
			return true
		}
	}
	return false
}

// take appends the next lines of a file to a batch, up to readSize. It returns true when there may be more.
func (s *Shipper) take(f *file, b *batch) (more bool, err error) {
	at, started := b.to[f]
	if !started {
		at = cursor{f.Offset, f.Request}
	}
	r, err := open(f.path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // rotated or removed since the scan; the next one knows
	}
	if err != nil {
		return false, fmt.Errorf("read a log: %w", err)
	}
	defer func() { _ = r.Close() }()
	size, same, err := s.verify(r, f)
	if err != nil || !same {
		return false, err
	}
	data, err := read(r, at.offset, min(size-at.offset, readSize))
	if err != nil {
		return false, err
	}
	if bytes.IndexByte(data, '\n') < 0 && int64(len(data)) == readSize {
		if data, err = read(r, at.offset, min(size-at.offset, maxLine)); err != nil {
			return false, err
		}
	}
	if len(data) > 0 && data[0] == 0 {
		// A hole: how far the file was shipped has been forgotten. What was freed was shipped.
		if next, err := unix.Seek(int(r.Fd()), at.offset, unix.SEEK_DATA); err == nil && next > at.offset {
			at.offset = next
			b.to[f] = at
			return true, nil
		}
	}
	end := at.offset + int64(len(data))
	for len(data) > 0 {
		n := bytes.IndexByte(data, '\n')
		line, skip := data[:max(n, 0)], n+1
		if n < 0 {
			whole := len(data) >= maxLine || (!f.alive && end == size)
			if !whole {
				break
			}
			line, skip = data, len(data)
		}
		if now := f.changed; now.After(f.last) {
			f.last = now
		} else {
			f.last = f.last.Add(1) // keeps the order
		}
		var records int
		before, source := len(b.body), f.source()
		b.body, records, at.request = appendRecords(b.body, line, source, f.last, at.request)
		if source.job == jobLambda && !s.cfg.Shares.Take(source.function, int64(len(b.body)-before), records) {
			b.body, records = b.body[:before], 0
			b.skipped = true
		}
		b.lines += int64(records)
		at.offset += int64(skip)
		data = data[skip:]
		b.to[f] = at
		if b.full = len(b.body) >= s.cfg.BatchBytes; b.full {
			return true, nil
		}
	}
	return end < size, nil
}

// source is the origin of the file's lines. A container that ended before this agent was started is known by its name
// alone, lambda-<function>-<suffix>.
func (f *file) source() origin {
	o := f.origin
	if o.job == jobLambda && o.function == "" {
		o.function, o.supervised = f.Function, f.Supervised
	}
	if o.job == jobLambda && o.function == "" {
		name := strings.TrimPrefix(o.container, "lambda-")
		o.function = name[:max(strings.LastIndexByte(name, '-'), 0)]
	}
	return o
}

// verify makes sure that the open file is the one that is known, and returns its size. When it is another one, that
// takes its place.
func (s *Shipper) verify(r *os.File, f *file) (size int64, same bool, err error) {
	info, err := r.Stat()
	if err != nil {
		return 0, false, fmt.Errorf("read a log: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Dev != f.Device || st.Ino != f.Inode {
		return 0, false, nil // another file has this name now
	}
	head, err := headOf(r, f.HeadSize)
	if err != nil {
		return 0, false, err
	}
	if st.Size < f.Offset || head != f.Head {
		if s.store != nil {
			s.log.Warn("a log file was cut or replaced; it is shipped from its beginning", "file", f.Name)
		}
		next := &file{origin: f.origin, path: f.path, alive: f.alive, size: st.Size, used: st.Blocks * 512, changed: info.ModTime()}
		next.Name, next.Device, next.Inode, next.Function, next.Supervised = f.Name, f.Device, f.Inode, f.Function, f.Supervised
		s.files[fileID{f.Device, f.Inode}] = next
		return 0, false, nil
	}
	if f.HeadSize < headBytes && st.Size > f.HeadSize {
		longer := min(st.Size, headBytes)
		if f.Head, err = headOf(r, longer); err != nil {
			return 0, false, err
		}
		f.HeadSize = longer
	}
	return st.Size, true, nil
}

// open opens a log file. The folder may be a service's own: a link is not followed, and a pipe does not hold the reader up.
func open(path string, flags int) (*os.File, error) {
	return os.OpenFile(path, flags|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}

func readHead(path string, size int64) (string, error) {
	r, err := open(path, os.O_RDONLY)
	if err != nil {
		return "", fmt.Errorf("read a log: %w", err)
	}
	defer func() { _ = r.Close() }()
	return headOf(r, size)
}

// headOf returns the digest of the first size bytes, "" for none.
func headOf(r io.ReaderAt, size int64) (string, error) {
	if size == 0 {
		return "", nil
	}
	data, err := read(r, 0, size)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:16]), nil
}

// read returns size bytes from offset, fewer at the end of the file.
func read(r io.ReaderAt, offset, size int64) ([]byte, error) {
	data := make([]byte, max(size, 0))
	n, err := r.ReadAt(data, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read a log: %w", err)
	}
	return data[:n], nil
}

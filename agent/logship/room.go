package logship

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/edge-serverless-box/esb/agent/logfiles"
)

const (
	// keepFiles is how many files of ended containers are kept for people to read, once they are shipped.
	keepFiles = 1000
	// keepTail is how much of what was shipped stays in the file of a running container, for the same reason.
	keepTail = 64 << 10
)

const (
	// lookInterval is how often the sizes of files are looked at; lookOften is the same while something writes that nobody holds
	// back: a function behind the Runtime Interface Emulator.
	lookInterval = time.Second
	lookOften    = 100 * time.Millisecond
)

// nextLook is when there is something to do: a step, or a look at the files' sizes before it.
func (s *Shipper) nextLook() time.Time {
	if now := time.Now(); !now.Before(s.look) {
		every := lookInterval
		for _, f := range s.files {
			if f.job == jobLambda && f.alive && !f.Supervised {
				every = lookOften
				break
			}
		}
		s.look = now.Add(every)
	}
	if s.due.Before(s.look) {
		return s.due
	}
	return s.look
}

// keepBound looks at the sizes of the files that may grow, and makes room when they have grown much.
func (s *Shipper) keepBound() {
	var grown int64
	for _, f := range s.files {
		if f.job != jobLambda || !f.alive || f.missing > 0 {
			continue
		}
		if info, err := os.Stat(f.path); err == nil {
			grown += max(info.Size()-f.size, 0)
		}
	}
	if s.used+grown < s.cfg.MaxBytes && (grown < s.cfg.MaxBytes/16 || s.used+grown < s.cfg.MaxBytes/2) {
		return
	}
	if err := s.scan(); err != nil {
		s.trouble("log files cannot be listed", err)
	}
	s.makeRoom()
}

// makeRoom keeps the files of functions within MaxBytes. What has been shipped goes first, oldest first, from half the
// bound on. What has not is touched when the bound itself is reached: lines are lost then, and counted. Lines that are nowhere else
// are taken from the functions that have most of them, so that one that writes without end does not cost another's.
func (s *Shipper) makeRoom() {
	var files []*file
	var used int64
	for _, f := range s.files {
		if f.job == jobLambda && f.missing == 0 {
			files = append(files, f)
			used += f.used
		}
	}
	slices.SortFunc(files, func(a, b *file) int { return a.changed.Compare(b.changed) })
	shippedBound := s.cfg.MaxBytes / 2
	if s.store == nil {
		shippedBound = s.cfg.MaxBytes
	}
	ended := 0
	for _, f := range files {
		if !f.alive {
			ended++
		}
	}
	// Without a store no file is anywhere else.
	due := map[string]int64{}
	if s.store == nil {
		due = dues(files, used-shippedBound)
	}
	mayGo := func(f *file) bool { return s.store != nil || due[f.owner()] > 0 }
	for _, f := range files {
		if (used <= shippedBound || !mayGo(f)) && ended <= keepFiles || f.alive || f.Offset < f.size && s.store != nil {
			continue
		}
		freed := s.remove(f)
		due[f.owner()] -= freed
		used -= freed
		ended--
	}
	for _, keep := range []int64{keepTail, 0} {
		for _, f := range files {
			if used > shippedBound && s.known(f) && mayGo(f) {
				freed := s.free(f, s.releasable(f)-keep)
				due[f.owner()] -= freed
				used -= freed
			}
		}
	}
	if used > s.cfg.MaxBytes && s.store != nil {
		need := used - s.cfg.MaxBytes*9/10
		s.drop(files, need)
		used -= need
	}
	s.used = used
}

// releasable is up to where the bytes of a file are needed no more: all of them without a store.
func (s *Shipper) releasable(f *file) int64 {
	if s.store == nil {
		return f.size
	}
	return f.Offset
}

// known is false for a file that was removed or replaced.
func (s *Shipper) known(f *file) bool { return s.files[fileID{f.Device, f.Inode}] == f }

// remove removes a file and returns how much that has freed.
func (s *Shipper) remove(f *file) int64 {
	if err := os.Remove(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.trouble("a log file cannot be removed", err)
		return 0
	}
	delete(s.files, fileID{f.Device, f.Inode})
	return f.used
}

// free gives the blocks of a file before byte to back, and returns how much that was.
func (s *Shipper) free(f *file, to int64) int64 {
	to = min(to, f.size) / logfiles.Block * logfiles.Block
	if to-max(f.Freed, logfiles.Block) <= 0 {
		return 0
	}
	if !s.noHoles {
		err := logfiles.Free(f.path, f.Freed, to)
		switch {
		case err == nil:
			freed := min(to-max(f.Freed, logfiles.Block), f.used)
			f.Freed = to
			f.used -= freed
			return freed
		case !errors.Is(err, logfiles.ErrNoHoles):
			s.trouble("a part of a log file cannot be freed", err)
			return 0
		}
		s.noHoles = true
		s.log.Warn("the file system cannot free parts of files: a log is emptied when all of it is shipped")
	}
	// All or nothing, and only when there is nothing that would be lost: the writer appends, and goes on at the start.
	if info, err := os.Stat(f.path); err != nil || info.Size() > s.releasable(f) && s.store != nil {
		return 0
	}
	return s.empty(f)
}

// empty cuts a file to nothing.
func (s *Shipper) empty(f *file) int64 {
	if err := os.Truncate(f.path, 0); err != nil {
		s.trouble("a log file cannot be emptied", err)
		return 0
	}
	freed := f.used
	next := &file{origin: f.origin, path: f.path, alive: f.alive, changed: f.changed}
	next.Name, next.Device, next.Inode, next.Function, next.Supervised = f.Name, f.Device, f.Inode, f.Function, f.Supervised
	s.files[fileID{f.Device, f.Inode}] = next
	return freed
}

// drop gives up lines that were not shipped, of the functions that have most, the oldest first, until need bytes are free. Those of
// the batch that is being sent are not lost: it is in memory.
func (s *Shipper) drop(files []*file, need int64) {
	var lost, freed int64
	files = slices.DeleteFunc(files, func(f *file) bool { return !s.known(f) })
	due := dues(files, need)
	for _, f := range files {
		owner := f.owner()
		if due[owner] <= 0 {
			continue
		}
		l, n := s.dropFrom(f, due[owner])
		lost += l
		freed += n
		due[owner] -= n
	}
	if lost == 0 && freed == 0 {
		return
	}
	s.dropped.Add(lost)
	// A kill must not bring back the offsets of lines that are gone.
	if err := s.save(); err != nil {
		s.trouble(troubleKeep, err)
	}
	s.log.Error("log lines were dropped: the store takes none and the bound is reached (FUNCTION_LOG_MAX_MB)",
		"lines", lost, "bytes", freed, "lines_in_all", s.dropped.Load())
}

// dropFrom gives up lines of one file, and returns how many were lost and how much is free now.
func (s *Shipper) dropFrom(f *file, need int64) (lost, freed int64) {
	from := f.Offset
	if s.batch != nil {
		from = max(from, s.batch.to[f].offset)
	}
	if !f.alive && f.used <= need+logfiles.Block {
		lost = s.count(f, from, f.size)
		return lost, s.remove(f)
	}
	to, err := lineEnd(f.path, max(f.Freed, from)+need, f.size)
	if err != nil {
		s.trouble("a log file cannot be read", err)
		return 0, 0
	}
	lost = s.count(f, from, to)
	f.Offset, f.Request = max(f.Offset, to), ""
	if s.noHoles {
		lost += s.count(f, to, f.size)
		return lost, s.empty(f)
	}
	return lost, s.free(f, to)
}

// count returns the number of lines from byte from to byte to.
func (s *Shipper) count(f *file, from, to int64) int64 {
	r, err := open(f.path, os.O_RDONLY)
	if err != nil {
		s.trouble("a log file cannot be read", err)
		return 0
	}
	defer func() { _ = r.Close() }()
	var lines int64
	for from < to {
		data, err := read(r, from, min(to-from, readSize))
		if err != nil || len(data) == 0 {
			break
		}
		lines += int64(bytes.Count(data, []byte("\n")))
		from += int64(len(data))
	}
	return lines
}

// lineEnd returns the first end of a line at or after at, the size of the file when there is none near.
func lineEnd(path string, at, size int64) (int64, error) {
	if at >= size {
		return size, nil
	}
	r, err := open(path, os.O_RDONLY)
	if err != nil {
		return 0, fmt.Errorf("read a log: %w", err)
	}
	defer func() { _ = r.Close() }()
	data, err := read(r, at, min(size-at, maxLine))
	if err != nil {
		return 0, err
	}
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return at + int64(i) + 1, nil
	}
	return min(at+maxLine, size), nil
}

package logship

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/guard/statefile"
)

// Both are in the folder whose files they are about. Most files are of containers that have ended and are shipped to their end: what is
// written after each batch has only what is other than in offsetsFile.
const (
	offsetsFile = "shipped.json"
	sinceFile   = "shipped-since.json"
	// endedSince is how many files that change no more sinceFile may have until all are written anew.
	endedSince = 64
)

// position is how far a file has been shipped, as it is kept on disk.
type position struct {
	// Name of the file, relative to the log folder, when it was last seen.
	Name string `json:"name"`
	// Device, Inode and the digest of its first HeadSize bytes are what the file is known by. Device numbers may
	// change with a reboot and both with a restored backup; the head decides then.
	Device   uint64 `json:"device"`
	Inode    uint64 `json:"inode"`
	Head     string `json:"head"`
	HeadSize int64  `json:"head_size"`
	// Offset is where the next line to ship begins.
	Offset int64 `json:"offset"`
	// Freed is up to where the file's blocks have been given back.
	Freed int64 `json:"freed,omitempty"`
	// Function of the container, and the invocation that its next raw line belongs to.
	Function string `json:"function,omitempty"`
	Request  string `json:"request,omitempty"`
	// Supervised says that lambda-init writes the file, and nobody else.
	Supervised bool `json:"supervised,omitempty"`
}

type offsets struct {
	// Series is another one each time that offsetsFile is written anew, and what is in sinceFile counts from that one alone: a program
	// that knows offsetsFile only, and writes no Series, may have run between the two.
	Series string `json:"series,omitempty"`
	// DroppedLines is how many lines were given up since the file was made.
	DroppedLines int64      `json:"dropped_lines,omitempty"`
	Files        []position `json:"files"`
}

// readOffsets returns what writeOffsets kept; nothing yet is no error.
func readOffsets(path string) (offsets, error) {
	var o offsets
	if err := statefile.Shipped().Read(path, &o); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return offsets{}, fmt.Errorf("read how far logs are shipped: %w", err)
	}
	return o, nil
}

// writeOffsets replaces the file in one step that a crash or a power cut leaves done or undone.
func writeOffsets(path string, o offsets) error {
	if err := statefile.Shipped().Write(path, o, 0o600); err != nil {
		return fmt.Errorf("keep how far logs are shipped: %w", err)
	}
	return nil
}

// save puts on disk how far each file has been shipped.
func (s *Shipper) save() error {
	since, ended := offsets{Series: s.series, DroppedLines: s.dropped.Load()}, 0
	for id, f := range s.files {
		base, known := s.base[id]
		if f.Offset == 0 && known && base.Name == f.Name {
			return s.saveAll() // it was cut: what was known of it must go
		}
		if f.Offset == 0 || base == f.position {
			continue
		}
		since.Files = append(since.Files, f.position)
		if !f.alive && f.Offset >= f.size {
			ended++
		}
	}
	if s.base == nil || ended > endedSince {
		return s.saveAll()
	}
	since.sort()
	return s.keep(filepath.Join(s.cfg.Dir, sinceFile), since)
}

// saveAll writes offsetsFile anew. What a crash leaves of sinceFile then is of the series before.
func (s *Shipper) saveAll() error {
	all, base := offsets{Series: rand.Text(), DroppedLines: s.dropped.Load()}, make(map[fileID]position, len(s.files))
	for id, f := range s.files {
		if f.Offset > 0 {
			all.Files = append(all.Files, f.position)
			base[id] = f.position
		}
	}
	all.sort()
	if err := s.keep(filepath.Join(s.cfg.Dir, offsetsFile), all); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(s.cfg.Dir, sinceFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove how far logs were shipped before: %w", err)
	}
	s.base, s.series = base, all.Series
	return nil
}

func (o *offsets) sort() {
	slices.SortFunc(o.Files, func(a, b position) int { return strings.Compare(a.Name, b.Name) })
}

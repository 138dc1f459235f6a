package logship

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// offsetsFile is in the folder whose files it is about.
const offsetsFile = "shipped.json"

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
	Version int `json:"version"`
	// DroppedLines is how many lines were given up since the file was made.
	DroppedLines int64      `json:"dropped_lines,omitempty"`
	Files        []position `json:"files"`
}

// readOffsets returns what writeOffsets kept; nothing yet is no error.
func readOffsets(path string) (offsets, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return offsets{}, nil
	}
	if err != nil {
		return offsets{}, fmt.Errorf("read how far logs are shipped: %w", err)
	}
	var o offsets
	if err := json.Unmarshal(data, &o); err != nil || o.Version != 1 {
		// Lines twice are better than lines lost.
		return offsets{}, errDamaged
	}
	return o, nil
}

var errDamaged = errors.New("the file that says how far logs are shipped is damaged")

// writeOffsets replaces the file in one step that a crash or a power cut leaves done or undone.
func writeOffsets(path string, o offsets) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("keep how far logs are shipped: %w", err)
		}
	}()
	o.Version = 1
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

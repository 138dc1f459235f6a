package logship

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/edge-serverless-box/esb/guard/statefile"
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

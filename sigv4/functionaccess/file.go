package functionaccess

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/edge-serverless-box/esb/guard/statefile"
	"github.com/edge-serverless-box/esb/guard/wholefile"
)

// mode lets the stores read the file where they run as a user of their own, in the gateway's group.
const mode = 0o640

// Save puts a list into the file at path: the old list is there, or the new one, and never a part. The folder must exist.
func Save(path string, l List) error {
	if err := statefile.FunctionAccess().Write(path, l, mode); err != nil {
		return fmt.Errorf("write what functions may do at the stores: %w", err)
	}
	return nil
}

// File knows what functions may do by a file that the gateway writes. It is looked at with each question: what the gateway
// has written holds for the next request. While there is no file, no function may do anything; when one cannot be read,
// what was read before holds.
type File struct {
	log *slog.Logger

	// mu guards the file, what it said, and the last problem, which is logged once.
	mu      sync.Mutex
	file    *wholefile.Reader
	list    List
	problem string
}

// NewFile returns what the file at path (FUNCTION_ACCESS_FILE) says, which need not be there yet.
func NewFile(path string, log *slog.Logger) *File {
	return &File{file: wholefile.NewReader(path), log: log}
}

// Rights returns those of the function with an access key, false when there is no such function.
func (f *File) Rights(accessKeyID string) (Rights, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	problem := ""
	if err := f.refresh(); err != nil {
		problem = err.Error()
	}
	if problem != f.problem && problem != "" {
		f.log.Warn("what functions may do at the stores cannot be read (FUNCTION_ACCESS_FILE)", "error", problem)
	}
	f.problem = problem
	return f.list.Rights(accessKeyID)
}

// refresh reads the file when it is another one than before.
func (f *File) refresh() error {
	return f.file.Refresh("others may read or change it; run: chmod 640", func(data []byte) error {
		var list List
		if err := statefile.FunctionAccess().Decode(data, &list); err != nil {
			return err
		}
		f.list = list
		return nil
	})
}

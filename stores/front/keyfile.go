package front

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
)

// lookEvery bounds how often the file is looked at.
const lookEvery = time.Second

// KeyFile knows the secrets of functions' access keys by the master secret in a file, which the gateway makes. The file is
// read when the first function's key comes, and again when it has changed: stores start before the gateway.
type KeyFile struct {
	path string
	log  *slog.Logger

	// mu guards what the file said when it was read, and when it was looked at.
	mu     sync.Mutex
	keys   *functionkeys.Keys
	read   os.FileInfo
	looked time.Time
}

// NewKeyFile returns the keys of the master secret in a file (FUNCTION_KEYS_FILE), which need not be there yet.
func NewKeyFile(path string, log *slog.Logger) *KeyFile {
	return &KeyFile{path: path, log: log}
}

// Secret returns the secret of a function's access key, false for any other key. It is a sigv4.Keys.
func (f *KeyFile) Secret(accessKeyID string) (string, bool) {
	if !functionkeys.IsID(accessKeyID) {
		return "", false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); f.looked.IsZero() || now.Sub(f.looked) >= lookEvery {
		f.looked = now
		if err := f.refresh(); err != nil {
			f.log.Warn("the keys of functions cannot be read (FUNCTION_KEYS_FILE)", "error", err.Error())
		}
	}
	if f.keys == nil {
		return "", false
	}
	return f.keys.Secret(accessKeyID)
}

// refresh reads the file when it is another one than before. When it cannot be read, what was read before stays.
func (f *KeyFile) refresh() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if f.read != nil && os.SameFile(f.read, info) && f.read.ModTime().Equal(info.ModTime()) && f.read.Size() == info.Size() {
		return nil
	}
	if info.Mode().Perm()&0o027 != 0 {
		return fmt.Errorf("%s: others may read or change the secret of the functions' keys (mode %04o); if nobody has, run: chmod 600 %s", f.path, info.Mode().Perm(), f.path)
	}
	master, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	keys, err := functionkeys.New(bytes.TrimSpace(master))
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.keys, f.read = keys, info
	return nil
}

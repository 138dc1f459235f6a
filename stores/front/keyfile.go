package front

import (
	"bytes"
	"log/slog"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/guard/wholefile"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
)

// lookEvery bounds how often the file is looked at.
const lookEvery = time.Second

// KeyFile knows the secrets of functions' access keys by the master secret in a file, which the gateway makes. The file is
// read when the first function's key comes, and again when it has changed: stores start before the gateway.
type KeyFile struct {
	log *slog.Logger

	// mu guards the file, what it said when it was read, and when it was looked at.
	mu     sync.Mutex
	file   *wholefile.Reader
	keys   *functionkeys.Keys
	looked time.Time
}

// NewKeyFile returns the keys of the master secret in a file (FUNCTION_KEYS_FILE), which need not be there yet.
func NewKeyFile(path string, log *slog.Logger) *KeyFile {
	return &KeyFile{file: wholefile.NewReader(path), log: log}
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
	return f.file.Refresh("others may read or change the secret of the functions' keys; if nobody has, run: chmod 600", func(master []byte) error {
		keys, err := functionkeys.New(bytes.TrimSpace(master))
		if err != nil {
			return err
		}
		f.keys = keys
		return nil
	})
}

// Package secretfile keeps a secret in a file of its own: made at the first start, readable by its owner alone, and
// refused when others may read it.
package secretfile

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/edge-serverless-box/esb/guard/wholefile"
)

// randomBytes is how long a secret is that Open makes, before it is written in hex.
const randomBytes = 32

// Open reads the secret in a file, and makes the file (mode 0600, 64 random hex digits) when it is not there. Any number
// of programs may do so at once: they all get the same secret. A file that others than its owner may read, or that is
// empty, is an error that says what to do.
func Open(path string) (string, error) {
	wholefile.Sweep(path) // what is left of a Create that was killed is a secret, too
	secret, err := Read(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	if err := Create(path, Random()); err != nil {
		return "", err
	}
	return Read(path)
}

// Read reads the secret in a file. The error wraps fs.ErrNotExist when there is none.
func Read(path string) (string, error) {
	if err := Check(path); err != nil {
		return "", err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the secret: %w", err)
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return "", fmt.Errorf("%s: is empty: remove it, and a new secret is made at the next start", path)
	}
	return secret, nil
}

// Check refuses a file with a secret that others than its owner may read or change, because it is one no longer. The
// error wraps fs.ErrNotExist when there is no such file.
func Check(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at the secret: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s: others than its owner may use this secret (mode %04o); if nobody has: chmod 600 %s", path, mode, path)
	}
	return nil
}

// CheckGiven refuses a file with a secret that somebody else provides, a TLS key for example, when others than its owner and
// its group may read it, or others than its owner change it. The error wraps fs.ErrNotExist when there is no such file.
func CheckGiven(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("look at the secret: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o027 != 0 {
		return fmt.Errorf("%s: others than its owner and its group may use this secret (mode %04o); if nobody has: chmod 600 %s, or 640 with a group of those who need it", path, mode, path)
	}
	return nil
}

// Create makes the file with a secret, whole or not at all, and on the disk when it returns; one that another program
// has made meanwhile stays.
func Create(path, secret string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of the secret: %w", err)
	}
	temp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".") // mode 0600
	if err != nil {
		return fmt.Errorf("make the secret: %w", err)
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	_, err = temp.WriteString(secret + "\n")
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return fmt.Errorf("make the secret: %w", err)
	}
	if err := os.Link(temp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the secret: %w", err)
	}
	return nil
}

// Random returns a new secret, 64 hex digits.
func Random() string {
	var random [randomBytes]byte
	_, _ = rand.Read(random[:]) // never fails (crypto/rand)
	return hex.EncodeToString(random[:])
}

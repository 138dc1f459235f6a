package settings

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/edge-serverless-box/esb/guard/secretfile"
	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/guard/wholefile"
)

// jwtKeyFile holds the generated signing key, in the folder Home.
const jwtKeyFile = "jwt.key"

// keptSecret reads the signing key at path, or makes one there.
func keptSecret(path string) (setting.Secret, error) {
	if err := secretfile.Check(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		key := bytes.TrimSpace(data)
		if len(key) < minJWTSecret {
			return "", fmt.Errorf("%s holds no key: delete it to have a new one made (tokens then become invalid)", path)
		}
		return setting.Secret(key), nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("its stand-in cannot be read: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("the folder of ESB_HOME cannot be made: %w", err)
	}
	key := hex.AppendEncode(nil, randomBytes(32))
	if err := wholefile.Write(path, append(key, '\n'), 0o600); err != nil {
		return "", fmt.Errorf("its stand-in cannot be kept: %w", err)
	}
	return setting.Secret(key), nil
}

// randomBytes never fails: crypto/rand ends the process when the system has no randomness.
func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

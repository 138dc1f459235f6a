package app

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"

	"github.com/edge-serverless-box/esb/gateway/settings"
	"github.com/edge-serverless-box/esb/guard/credentials"
)

// Credentials prints the secrets that the box has made for itself, as lines NAME=value, and makes them when the gateway has
// not been started yet. Secrets that somebody has set are not printed.
func Credentials(getenv func(string) string, out io.Writer) error {
	s, err := settings.Load(getenv)
	if err != nil {
		return err
	}
	kept, err := credentials.Read(filepath.Join(s.Home, credentials.File))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		if getenv(name) != "" {
			continue
		}
		if _, err := fmt.Fprintf(out, "%s=%s\n", name, kept[name]); err != nil {
			return fmt.Errorf("print the box's secrets: %w", err)
		}
	}
	return nil
}

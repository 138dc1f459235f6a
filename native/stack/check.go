package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/edge-serverless-box/esb/guard/credentials"
	"github.com/edge-serverless-box/esb/native"
)

// Check reads functions.yml, routing.yml and resources.yml as the gateway would, without touching one that runs, and names
// misspelt settings as Up does. Its error has all that is wrong with the files.
func (s *Stack) Check(ctx context.Context) error {
	s.sayStrange()
	gateway := filepath.Join(s.settings.BinDir, native.Gateway)
	if _, err := os.Stat(gateway); err != nil {
		return &native.Problem{What: "there is no " + gateway + " yet, which reads the files", Do: "Run `esb build services` first."}
	}
	// Secrets that nobody has set are made at the first `up`; these are for this look alone.
	if s.secrets == nil {
		dir, err := os.MkdirTemp("", "esb-check-")
		if err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		secrets, _, err := credentials.Keep(filepath.Join(dir, "secrets"), s.settings.MadeSecrets...)
		if err != nil {
			return err
		}
		s.secrets = secrets
		defer func() { s.secrets = nil }()
	}
	if _, err := os.Stat(s.settings.ImagesDir); err == nil {
		_ = s.askRuntimes(ctx) // without, those of the box's own images count
	}
	said, err := s.readFiles(ctx)
	if err == nil {
		s.console.Printf("%s", said)
	}
	return err
}

// readFiles has the gateway's program read the files, and returns what it says of them.
func (s *Stack) readFiles(ctx context.Context) (string, error) {
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(s.settings.BinDir, native.Gateway), "check")
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.settings.Root, s.env(native.Gateway), &out, &problems
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return strings.TrimSpace(out.String()), nil
	case !errors.As(err, &exit) || ctx.Err() != nil:
		return "", fmt.Errorf("read the files: %w", errors.Join(err, ctx.Err()))
	}
	text := strings.TrimPrefix(strings.TrimSpace(problems.String()), "gateway: ")
	return "", &native.Problem{
		What: "the settings or the files have mistakes:\n" + native.Indent(text, "      "),
		Do:   "Correct them. What a running box serves is not touched by this.",
	}
}

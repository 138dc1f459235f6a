package stack

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/guard/credentials"
	"github.com/edge-serverless-box/esb/native"
)

// Check reads functions.yml, routing.yml and resources.yml and compiles them as the gateway would, looks at the code and images that
// they name, without touching a box that runs, and names misspelt settings as Up does. Its error has all that is wrong with the files.
func (s *Stack) Check(ctx context.Context) error {
	s.sayStrange()
	return s.asked(ctx, func() error {
		said, err := s.readFiles(ctx, "-json")
		if err != nil {
			return err
		}
		var found struct {
			Summary string       `json:"summary"`
			Images  []namedImage `json:"images"`
		}
		if err := json.Unmarshal([]byte(said), &found); err != nil {
			return fmt.Errorf("read what the gateway's program says of the files: %w", err)
		}
		s.console.Printf("%s", found.Summary)
		return s.sayAbsent(ctx, found.Images)
	})
}

// asked calls ask, in which the gateway's program can be asked of the files.
func (s *Stack) asked(ctx context.Context, ask func() error) error {
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
	return ask()
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// namedImage is an image and where a file names it.
type namedImage struct {
	Place string `json:"place"`
	Image string `json:"image"`
}

// misunderstood is the exit code of the gateway's program when there is no such command or option in it.
const misunderstood = 2

// older says that a program is not of this esb's version: sources that are new, and not built yet, for example.
func (s *Stack) older(service string) error {
	do := "Run `esb build services` first: the sources are newer than what was built of them."
	if s.layout != nil {
		do = "Bring the release again (`esb install`): its programs are not of one version."
	}
	return &native.Problem{What: filepath.Join(s.settings.BinDir, service) + " is older than this esb, and cannot be asked", Do: do}
}

// unreadArchive is the exit code of the agent's program when an archive cannot be read, and not something else is wrong.
const unreadArchive = 3

// sayAbsent names the images that no archive has. A registry may have them, so they are no mistakes.
func (s *Stack) sayAbsent(ctx context.Context, images []namedImage) error {
	// The first `up` makes both, and the archives of the samples.
	if !exists(filepath.Join(s.settings.BinDir, native.Agent)) || !exists(s.settings.ImagesDir) || len(images) == 0 {
		return nil
	}
	var names []string
	for _, i := range images {
		names = append(names, i.Image)
	}
	absent, unread, err := s.absent(ctx, names...)
	if err != nil || unread != nil {
		return cmp.Or(err, unread)
	}
	for _, i := range images {
		if slices.Contains(absent, i.Image) {
			s.console.Printf("==> note: %s: no archive in %s has %s: a registry has to, when the box has not fetched it yet", i.Place, s.settings.ImagesDir, i.Image)
		}
	}
	return nil
}

// absent asks the agent's program which of the images no archive has. unread is what is wrong with archives, err with its settings.
func (s *Stack) absent(ctx context.Context, names ...string) (absent []string, unread, err error) {
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(s.settings.BinDir, native.Agent), append([]string{"absent-images"}, names...)...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = s.settings.Root, s.env(native.Agent), &out, &problems
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return strings.Fields(out.String()), nil, nil
	case !errors.As(err, &exit) || ctx.Err() != nil:
		return nil, nil, fmt.Errorf("look at the archives of images: %w", errors.Join(err, ctx.Err()))
	}
	said := native.Indent(strings.TrimPrefix(strings.TrimSpace(problems.String()), "agent: "), "      ")
	if strings.HasPrefix(strings.TrimSpace(said), "usage: ") { // there is no absent-images
		return nil, nil, s.older(native.Agent)
	}
	if exit.ExitCode() != unreadArchive {
		return nil, nil, &native.Problem{What: "the settings of the agent have mistakes:\n" + said, Do: "Correct them. A running box is not touched by this."}
	}
	return nil, &native.Problem{
		What: "not all archives of images can be read:\n" + said,
		Do:   "Make them again, or take them away from " + s.settings.ImagesDir + ".",
	}, nil
}

// readFiles has the gateway's program read the files, and returns what it says of them.
func (s *Stack) readFiles(ctx context.Context, options ...string) (string, error) {
	var out, problems bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(s.settings.BinDir, native.Gateway), append([]string{"check"}, options...)...)
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
	if exit.ExitCode() == misunderstood && strings.HasPrefix(text, "there is no command") {
		return "", s.older(native.Gateway)
	}
	return "", &native.Problem{
		What: "the settings or the files have mistakes:\n" + native.Indent(text, "      "),
		Do:   "Correct them. What a running box serves is not touched by this.",
	}
}

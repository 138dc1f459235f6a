package stack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/apt"
	"github.com/edge-serverless-box/esb/native/build"
)

// Build builds groups of targets.
func (s *Stack) Build(ctx context.Context, groups ...string) error {
	if s.layout != nil {
		return &native.Problem{What: "this is the esb of an installation, which builds nothing", Do: "Make a release in the repository (`esb release`), and bring it here with `esb upgrade`."}
	}
	var binaries, tools []build.Target
	for _, group := range groups {
		targets := build.Targets(group)
		switch {
		case targets == nil:
			return fmt.Errorf("nothing is called %q here: build %s", group, strings.Join(slices.Concat(build.BoxGroups, build.ToolGroups), ", "))
		case slices.Contains(build.ToolGroups, group):
			tools = append(tools, targets...)
		default:
			binaries = append(binaries, targets...)
		}
	}
	if len(binaries) > 0 {
		if err := s.builder().Build(ctx, binaries); err != nil {
			return err
		}
	}
	if len(tools) > 0 {
		return build.New(s.settings.Root, filepath.Join(s.settings.Root, ".esb", "tools"), s.console, &apt.Installer{}).Build(ctx, tools)
	}
	return nil
}

// builder makes the box's programs.
func (s *Stack) builder() *build.Builder {
	return build.New(s.settings.Root, s.settings.BinDir, s.console, &apt.Installer{})
}

// make builds the programs and the images of the sample functions, in the order of need. Where the box has never been up, agent and gateway
// are started before the stores' programs are there: functions that need no store answer while those compile.
func (s *Stack) make(ctx context.Context, st *starts) (err error) {
	services, runtime := build.Targets(build.GroupServices), build.Targets(build.GroupRuntime)
	var stores []build.Target
	if len(s.settings.Stores()) > 0 {
		stores = build.Targets(build.GroupStores)
	}
	plan, err := s.builder().Open(ctx, slices.Concat(services, runtime, stores))
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, plan.Close()); err != nil {
			err = errors.Join(err, s.takeBack(ctx, st))
		}
	}()
	if err := plan.Build(ctx, services); err != nil {
		return err
	}
	// Images are fetched more than they are computed, so the rest is compiled meanwhile.
	imaging, stop := context.WithCancel(ctx)
	defer stop()
	imaged := make(chan error, 1)
	go func() {
		err := plan.Installed(imaging)
		if err == nil {
			err = s.images(imaging)
		}
		imaged <- err
	}()
	err = plan.Build(ctx, runtime)
	if err != nil {
		stop()
	}
	if imageErr := <-imaged; err == nil {
		err = imageErr
	}
	if err != nil {
		return err
	}
	if plan.Missing(stores) && s.idle() && !s.hasEvents() {
		if err := s.startEarly(ctx, st); ctx.Err() != nil {
			return err
		} else if err != nil {
			// It may need a store after all; with them it starts, or says what is wrong.
			s.console.Printf("==> warning: agent and gateway wait for the stores: %v", err)
		}
	}
	return plan.Build(ctx, stores)
}

// idle is true when no service of the box runs for certain.
func (s *Stack) idle() bool {
	return !slices.ContainsFunc(allServices, func(service string) bool {
		_, alive, err := s.running(service)
		return alive || err != nil
	})
}

// hasEvents is true when functions may have been asked for something already: their events would be tried in vain, and given up, while
// there are no stores.
func (s *Stack) hasEvents() bool {
	_, err := os.Stat(filepath.Join(s.settings.ServiceHome(native.Gateway), "async"))
	return !errors.Is(err, fs.ErrNotExist)
}

// startEarly starts agent and gateway while the stores' programs are still to be built.
func (s *Stack) startEarly(ctx context.Context, st *starts) error {
	s.early = true
	defer func() { s.early = false }()
	if err := s.begin(ctx, st, []string{native.Agent, native.Gateway}); err != nil {
		return err
	}
	s.console.Printf("==> the box serves already what needs no store, at %s; the stores follow (its secrets are in %s)", s.urls()[0], s.settings.SecretsFile())
	return nil
}

// images makes the archives of the sample functions; esb-image skips what is up to date.
func (s *Stack) images(ctx context.Context) error {
	return s.console.Step("making the images of the sample functions", func() error {
		if err := s.makeImages(ctx, s.settings.ImagesDir); err != nil {
			return err
		}
		return s.askRuntimes(ctx)
	})
}

// askRuntimes finds out which runtimes the box has base images of: the gateway refuses code for others.
func (s *Stack) askRuntimes(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.settings.BinDir, "esb-image"), "runtimes", s.settings.ImagesDir)
	cmd.Dir, cmd.Env = s.settings.Root, s.environ
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("ask esb-image which runtimes there are: %w", err)
	}
	s.runtimes = strings.TrimSpace(string(out))
	return nil
}

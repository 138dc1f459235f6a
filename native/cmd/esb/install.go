package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/console"
	"github.com/edge-serverless-box/esb/native/install"
	"github.com/edge-serverless-box/esb/native/release"
	"github.com/edge-serverless-box/esb/native/settings"
	"github.com/edge-serverless-box/esb/native/stack"
)

// installation runs the commands that make an installation, change it, and make what it is made of.
func installation(ctx context.Context, command string, args, environ []string, out io.Writer) (int, error) {
	flags := flag.NewFlagSet("esb "+command, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	prefix, version := new(string), new(string)
	show, unit, start, purge, back := new(bool), new(bool), new(bool), new(bool), new(bool)
	if command != "release" {
		flags.StringVar(prefix, "prefix", "", "folder that everything is below")
	}
	switch command {
	case "install":
		flags.BoolVar(show, "print", false, "say what would be done")
		flags.BoolVar(unit, "unit", false, "print the unit of systemd")
		flags.BoolVar(start, "start", true, "start the box where systemd runs")
	case "uninstall":
		flags.BoolVar(purge, "purge", false, "remove configuration and state, too")
	case "upgrade":
		flags.BoolVar(back, "back", false, "go back to the release of before")
	case "release":
		flags.StringVar(version, "version", "", "name of the version (default: a digest of what is in it)")
	}
	if err := flags.Parse(args); err != nil {
		return exitUsage, fmt.Errorf("%s: %w\n\n%s", command, err, usage)
	}
	path := flags.Arg(0)
	wanted := command == "release" || command == "upgrade" && !*back
	if flags.NArg() > 1 || wanted && path == "" || path != "" && !wanted && command != "install" {
		return exitUsage, fmt.Errorf("esb %s: it takes one path where the usage has one, and no other argument\n\n%s", command, usage)
	}
	if *unit {
		text, err := install.Unit()
		if err == nil {
			_, err = io.WriteString(out, text)
		}
		return code(err), err
	}
	if command == "release" {
		err := makeRelease(ctx, path, *version, environ, out)
		return code(err), err
	}
	if os.Geteuid() != 0 && !*show {
		return exitFailed, &native.Problem{What: "not running as root", Do: "Run it as root: the folders and the service are root's."}
	}
	m, err := machine(*prefix, environ, out)
	if err != nil {
		return exitFailed, err
	}
	if *show {
		err = installFrom(ctx, m, path, *show, *start, environ, out)
		return code(err), err
	}
	if command == "upgrade" || command == "rollback" {
		if current, currentErr := m.Layout.CurrentVersion(); currentErr != nil || current == "" {
			return exitFailed, errors.Join(currentErr, &native.Problem{What: "nothing is installed in " + m.Layout.Base(), Do: "Install it: esb install " + path})
		}
	}
	err = m.Alone(ctx, func() error {
		switch {
		case command == "install":
			return installFrom(ctx, m, path, *show, *start, environ, out)
		case command == "uninstall":
			return m.Uninstall(ctx, *purge)
		case command == "rollback" || *back:
			return m.Rollback(ctx)
		}
		return upgradeTo(ctx, m, path)
	})
	return code(err), err
}

// upgradeTo brings a release and puts it in the place of the present one.
func upgradeTo(ctx context.Context, m *install.Machine, path string) error {
	fetched, err := m.Bring(path)
	if err != nil {
		return err
	}
	return m.Upgrade(ctx, fetched.Version)
}

func code(err error) int {
	if err != nil {
		return exitFailed
	}
	return exitOK
}

// installedBox is the box of an installation for package install.
type installedBox struct{ *stack.Stack }

// Relieve implements install.Box.
func (b installedBox) Relieve(ctx context.Context) (install.Relief, error) {
	return b.Stack.Relieve(ctx)
}

// machine is this machine, or a folder of it. Without a prefix it is the installation that this program belongs to, else the machine's.
func machine(prefix string, environ []string, out io.Writer) (*install.Machine, error) {
	layout := release.Layout{}
	if prefix != "" {
		abs, err := filepath.Abs(prefix)
		if err != nil {
			return nil, fmt.Errorf("find the prefix: %w", err)
		}
		layout.Prefix = abs
	} else if program, err := os.Executable(); err == nil {
		if own, ok := release.Of(program); ok {
			layout = own
		}
	}
	if layout.Prefix == "/" {
		layout.Prefix = ""
	}
	m := &install.Machine{Layout: layout, Console: console.New(out)}
	m.Open = func() (install.Box, error) {
		_, box, err := openInstalled("down", layout, environ, out)
		return installedBox{box}, err
	}
	m.Fit = func(ctx context.Context, dir string) error {
		said, err := ask(ctx, append(environ, "ESB_BIN_DIR="+dir), filepath.Join(dir, "esb"), "fit")
		if err != nil {
			return fmt.Errorf("%w:\n%s", err, native.Indent(said, "      "))
		}
		return nil
	}
	m.UnitOf = func(ctx context.Context, dir string) (string, error) {
		return ask(ctx, environ, filepath.Join(dir, "esb"), "install", "-unit")
	}
	// As sd_booted(3) does.
	if _, err := os.Stat("/run/systemd/system"); err == nil && layout.Prefix == "" {
		m.Systemctl = func(ctx context.Context, args ...string) error {
			if said, err := ask(ctx, environ, "systemctl", args...); err != nil {
				return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(said))
			}
			return nil
		}
	}
	return m, nil
}

// ask runs a program and returns what it says.
func ask(ctx context.Context, environ []string, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env, cmd.Dir = environ, "/"
	said, err := cmd.CombinedOutput()
	return string(said), err
}

// installFrom installs a release: a given one, the one that this program is part of, or one that is made of this working copy.
func installFrom(ctx context.Context, m *install.Machine, source string, show, start bool, environ []string, out io.Writer) error {
	if source == "" {
		program, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find this program: %w", err)
		}
		if _, err := release.Open(filepath.Dir(program)); err == nil {
			source = filepath.Dir(program)
		}
	}
	if show {
		from, err := preview(source)
		if err != nil {
			return err
		}
		return m.Print(ctx, from)
	}
	if source == "" {
		tmp, err := os.MkdirTemp("", "esb-release-")
		if err != nil {
			return fmt.Errorf("make a folder for the release: %w", err)
		}
		defer func() { _ = os.RemoveAll(tmp) }()
		source = filepath.Join(tmp, "release")
		if err := makeRelease(ctx, source, "", environ, out); err != nil {
			return err
		}
	}
	return m.Install(ctx, source, start)
}

// preview is what is known of a release that is not to be touched.
func preview(source string) (release.Release, error) {
	if source == "" {
		return release.Release{Version: "VERSION"}, nil // one that this working copy would make
	}
	if release.IsArchive(source) {
		return release.Release{Version: "VERSION"}, nil
	}
	return release.Open(source)
}

// makeRelease makes a release of the working copy, in a folder or as an archive.
func makeRelease(ctx context.Context, path, version string, environ []string, out io.Writer) error {
	root, err := settings.FindRoot(".")
	if err != nil {
		return err
	}
	_, box, err := open("build", root, environ, out)
	if err != nil {
		return err
	}
	dir := path
	if release.IsArchive(path) {
		tmp, err := os.MkdirTemp(filepath.Dir(path), ".esb-release-")
		if err != nil {
			return fmt.Errorf("make a folder for the release: %w", err)
		}
		defer func() { _ = os.RemoveAll(tmp) }()
		dir = tmp
	}
	made, err := box.MakeRelease(ctx, dir, version)
	if err != nil {
		return err
	}
	if dir != path {
		if err := console.New(out).Step("packing "+path, func() error { return release.Pack(dir, path) }); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out, "the release %s is in %s\n", made.Version, path)
	return err
}

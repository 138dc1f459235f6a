// Package install makes an installation of esb on a machine, puts another release in the place of the present one, and goes back when
// that does not work.
package install

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/edge-serverless-box/esb/guard/wholefile"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/console"
	"github.com/edge-serverless-box/esb/native/lock"
	"github.com/edge-serverless-box/esb/native/release"
)

//go:embed esb.env
var envText string

// Machine is where esb is installed.
type Machine struct {
	Layout  release.Layout
	Console *console.Console
	// Systemctl runs systemctl; nil where there is no systemd that could run the box.
	Systemctl func(ctx context.Context, args ...string) error
	// Open returns the box of the installation. It is asked once there are programs and settings.
	Open func() (Box, error)
	// Fit asks the programs in a folder whether they could take the box over.
	Fit func(ctx context.Context, dir string) error
	// UnitOf asks the program of a release for its unit.
	UnitOf func(ctx context.Context, dir string) (string, error)
}

// step is one thing that an installation does.
type step struct {
	what string
	do   func() error
	// undo takes it back when a later step fails; nil when it does no harm.
	undo func() error
}

// Alone does something to the installation that nobody else does anything to meanwhile. What was brought for nothing goes again when that
// fails: releases that cannot take over would pile up.
func (m *Machine) Alone(ctx context.Context, do func() error) (err error) {
	defer syscall.Umask(syscall.Umask(0o022)) // the users of the services reach their programs and configuration
	if err := os.MkdirAll(m.Layout.Base(), 0o755); err != nil {
		return fmt.Errorf("make the folder of releases: %w", err)
	}
	held, err := lock.Take(ctx, filepath.Join(m.Layout.Base(), ".lock"), func() { m.Console.Printf("waiting for another change of the installation to end") })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	if err = do(); err == nil {
		return nil
	}
	if current, currentErr := m.Layout.CurrentVersion(); currentErr != nil || current == "" {
		return err
	}
	return errors.Join(err, m.Layout.Prune())
}

// Bring brings the release in source, a folder or an archive, beside those that are there.
func (m *Machine) Bring(source string) (fetched release.Release, err error) {
	err = m.Console.Step("bringing the release "+source, func() (err error) {
		fetched, err = m.Layout.Fetch(source)
		return err
	})
	if err == nil && fetched.Mended {
		m.Console.Printf("==> the release %s was damaged and is whole again; what runs goes on with the programs that it was started with", fetched.Version)
	}
	return fetched, err
}

// Install brings the release in source, a folder or an archive, to the machine. Configuration that is there stays as it is. With start the
// box is started where systemd runs; one that runs already goes on with the new programs, as by Upgrade. When a step fails, those
// before it are taken back.
func (m *Machine) Install(ctx context.Context, source string, start bool) error {
	fetched, err := m.Bring(source)
	if err != nil {
		return err
	}
	before, err := m.Layout.CurrentVersion()
	if err != nil {
		return err
	}
	steps, err := m.steps(ctx, fetched, before)
	if err != nil {
		return err
	}
	if before == "" {
		steps = append(steps, step{
			what: fmt.Sprintf("link %s to %s", m.Layout.Current(), fetched.Version),
			do:   func() error { return m.Layout.Switch(fetched.Version) },
			undo: func() error { return os.Remove(m.Layout.Current()) },
		})
	}
	var undo []func() error
	fail := func(err error) error {
		for i := len(undo) - 1; i >= 0; i-- {
			err = errors.Join(err, undo[i]())
		}
		return err
	}
	for _, s := range steps {
		m.Console.Printf("==> %s", s.what)
		if s.do == nil {
			continue
		}
		if err := s.do(); err != nil {
			return fail(fmt.Errorf("%s: %w", s.what, err))
		}
		if s.undo != nil {
			undo = append(undo, s.undo)
		}
	}
	if before != "" && before != fetched.Version {
		if err := m.Upgrade(ctx, fetched.Version); err != nil {
			return fail(err)
		}
	}
	return m.serve(ctx, start)
}

// serve has systemd run the box.
func (m *Machine) serve(ctx context.Context, start bool) error {
	if m.Systemctl == nil {
		if m.Layout.Prefix == "" {
			m.Console.Printf("\nThere is no systemd here that could run the box. `%s run` runs it in the foreground, for another supervisor; `%s up` in the background.", m.Layout.CommandFile(), m.Layout.CommandFile())
		} else {
			m.Console.Printf("\nNothing is started below a prefix. `%s/esb run` runs the box.", m.Layout.Current())
		}
		return nil
	}
	if err := m.Systemctl(ctx, "daemon-reload"); err != nil {
		return err
	}
	if !start {
		m.Console.Printf("\n`systemctl enable --now esb` runs the box from now on.")
		return nil
	}
	err := m.Console.Step("starting the box: systemctl enable --now esb", func() error { return m.Systemctl(ctx, "enable", "--now", release.Unit) })
	if err != nil {
		return &native.Problem{
			What: fmt.Sprintf("esb is installed, and its service does not start: %v", err),
			Do:   "See why (`journalctl -u esb`, `esb doctor`), correct it in " + m.Layout.EnvFile() + " or on the machine, and `systemctl start esb`.",
		}
	}
	m.Console.Printf("\nThe box runs as the service esb of systemd: esb status, esb logs, systemctl stop esb. Its configuration is in %s.", m.Layout.Config())
	return nil
}

// Print says what Install would do, and does nothing. Of a release without a folder it knows no more than that.
func (m *Machine) Print(ctx context.Context, source release.Release) error {
	before, err := m.Layout.CurrentVersion()
	if err != nil {
		return err
	}
	steps, err := m.steps(ctx, source, before)
	if err != nil {
		return err
	}
	m.Console.Printf("bring the release %s to %s", source.Version, m.Layout.Dir(source.Version))
	for _, s := range steps {
		m.Console.Printf("%s", s.what)
	}
	switch before {
	case "", source.Version:
		m.Console.Printf("link %s to %s", m.Layout.Current(), source.Version)
	default:
		m.Console.Printf("put it in the place of %s, as esb upgrade does", before)
	}
	if m.Systemctl != nil {
		m.Console.Printf("systemctl daemon-reload; systemctl enable --now esb")
	}
	text, err := Unit()
	if err != nil {
		return err
	}
	m.Console.Printf("\n%s:\n\n%s", m.Layout.UnitFile(), text)
	return nil
}

// steps are those besides the programs themselves.
func (m *Machine) steps(ctx context.Context, from release.Release, before string) ([]step, error) {
	l := m.Layout
	steps := []step{m.folder(l.Config(), 0o755), m.folder(l.State(), 0o710)}
	samples, err := m.samples(from)
	if err != nil {
		return nil, err
	}
	steps = append(steps, samples...)
	if exists(l.EnvFile()) {
		steps = append(steps, step{what: "keep " + l.EnvFile()})
	} else {
		steps = append(steps, file(l.EnvFile(), []byte(envText), 0o600))
	}
	unit, err := m.unit(ctx, before)
	return append(steps, unit, m.commandLink()), err
}

// unit writes the unit of systemd, unless somebody has changed the one that is there.
func (m *Machine) unit(ctx context.Context, before string) (step, error) {
	path := m.Layout.UnitFile()
	text, err := Unit()
	if err != nil {
		return step{}, err
	}
	if have, err := os.ReadFile(path); err == nil && string(have) != text && (before == "" || !m.unitIsOurs(ctx, before)) {
		return step{what: "keep " + path + ", which somebody has changed: `esb install -unit` prints what it would be"}, nil
	}
	return file(path, []byte(text), 0o644), nil
}

func (m *Machine) folder(path string, mode fs.FileMode) step {
	if exists(path) {
		return step{what: "keep " + path}
	}
	return step{
		what: "make " + path,
		do:   func() error { return errors.Join(os.MkdirAll(path, 0o755), os.Chmod(path, mode)) },
		undo: func() error { _ = os.Remove(path); return nil }, // what is in it by now stays
	}
}

// samples puts configuration where there is none: each of the three files by itself, and code only with the functions that name it.
func (m *Machine) samples(from release.Release) ([]step, error) {
	if from.Dir == "" {
		return []step{{what: "write functions.yml, routing.yml and resources.yml to " + m.Layout.Config() + ", samples, where they are not there yet"}}, nil
	}
	dir := filepath.Join(from.Dir, release.Samples)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the samples of the release: %w", err)
	}
	fresh := !exists(filepath.Join(m.Layout.Config(), "functions.yml"))
	var steps []step
	for _, e := range entries {
		target := filepath.Join(m.Layout.Config(), e.Name())
		switch {
		case exists(target):
			steps = append(steps, step{what: "keep " + target})
		case fresh || !e.IsDir():
			steps = append(steps, step{
				what: "write " + target + " (a sample)",
				do:   func() error { return release.CopyTree(filepath.Join(dir, e.Name()), target) },
				undo: func() error { return os.RemoveAll(target) },
			})
		}
	}
	return steps, nil
}

// file writes a file, or keeps it when it is the same.
func file(path string, data []byte, mode fs.FileMode) step {
	old, err := os.ReadFile(path)
	if err == nil && string(old) == string(data) {
		return step{what: "keep " + path}
	}
	there := err == nil
	return step{
		what: "write " + path,
		do: func() error {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			return wholefile.Write(path, data, mode)
		},
		undo: func() error {
			if there {
				return wholefile.Write(path, old, mode)
			}
			return os.Remove(path)
		},
	}
}

// commandLink puts esb into everybody's PATH. A command of somebody else is left alone.
func (m *Machine) commandLink() step {
	path := m.Layout.CommandFile()
	target := filepath.Join(m.Layout.Current(), "esb")
	if m.Layout.Prefix != "" { // good wherever the prefix is unpacked
		target = "../../../opt/esb/current/esb"
	}
	old, err := os.Readlink(path)
	switch {
	case err == nil && old == target:
		return step{what: "keep " + path}
	case exists(path) || err == nil:
		return step{what: "keep " + path + ", which is no link to " + target + ": call that one by its path"}
	}
	return step{
		what: fmt.Sprintf("link %s to %s", path, target),
		do: func() error {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			return release.Link(target, path)
		},
		undo: func() error { return os.Remove(path) },
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Uninstall stops the box and removes the installation. State and configuration stay, unless purge is true.
func (m *Machine) Uninstall(ctx context.Context, purge bool) error {
	l := m.Layout
	current, err := l.CurrentVersion()
	if err != nil {
		return err
	}
	if current == "" && !exists(l.UnitFile()) {
		m.Console.Printf("nothing is installed in %s", l.Base())
	}
	if m.Systemctl != nil && exists(l.UnitFile()) {
		if err := m.Console.Step("stopping the service: systemctl disable --now esb", func() error { return m.Systemctl(ctx, "disable", "--now", release.Unit) }); err != nil {
			return err
		}
	}
	if current != "" {
		box, err := m.Open()
		if err != nil {
			return err
		}
		if err := box.Down(ctx); err != nil {
			return err
		}
	}
	remove := []string{l.UnitFile()}
	if target, err := os.Readlink(l.CommandFile()); err == nil && strings.HasSuffix(target, "/opt/esb/current/esb") {
		remove = append(remove, l.CommandFile())
	}
	remove = append(remove, l.Base())
	stays := []string{l.Config(), l.State()}
	if purge {
		remove, stays = append(remove, stays...), nil
	}
	for _, path := range remove {
		if !exists(path) {
			continue
		}
		m.Console.Printf("==> remove %s", path)
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("uninstall: %w", err)
		}
	}
	if m.Systemctl != nil {
		if err := m.Systemctl(ctx, "daemon-reload"); err != nil {
			return err
		}
	}
	for _, path := range stays {
		if exists(path) {
			m.Console.Printf("==> %s stays: esb uninstall -purge removes it", path)
		}
	}
	return nil
}

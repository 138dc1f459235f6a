// Package release knows what an installation of esb is made of: its folders, the releases in it, each a folder with all programs and
// images of one version, and which of them is the present one.
package release

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/edge-serverless-box/esb/guard/statefile"
)

// Layout is where an installation has its things. The zero Layout is that of the machine.
type Layout struct {
	// Prefix is the folder that everything is below; "" or "/" for the machine's root.
	Prefix string
}

// Of returns the installation that a program is in, by the path of its file; false for one that lies elsewhere.
func Of(program string) (Layout, bool) {
	dir := filepath.Dir(program)
	base := filepath.Dir(dir)
	l := Layout{Prefix: filepath.Dir(filepath.Dir(base))}
	if _, err := os.Stat(filepath.Join(dir, manifest)); err != nil || base != l.Base() {
		return Layout{}, false
	}
	return l, true
}

func (l Layout) below(path string) string { return filepath.Join("/", l.Prefix, path) }

// Base is the folder of the releases.
func (l Layout) Base() string { return l.below("opt/esb") }

// Current is the link to the present release.
func (l Layout) Current() string { return filepath.Join(l.Base(), "current") }

// Config is the folder of functions.yml, routing.yml, resources.yml and EnvFile.
func (l Layout) Config() string { return l.below("etc/esb") }

// EnvFile has the settings.
func (l Layout) EnvFile() string { return filepath.Join(l.Config(), "esb.env") }

// State is ESB_HOME.
func (l Layout) State() string { return l.below("var/lib/esb") }

// UnitFile is the unit of systemd.
func (l Layout) UnitFile() string { return l.below("etc/systemd/system/" + Unit) }

// Unit is the name of the service of systemd.
const Unit = "esb.service"

// CommandFile is a link to the esb command, in everybody's PATH.
func (l Layout) CommandFile() string { return l.below("usr/local/bin/esb") }

// Dir is the folder of a release.
func (l Layout) Dir(version string) string { return filepath.Join(l.Base(), version) }

// versions are folder names.
var versions = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)

// reserved are names in Base that are no release.
var reserved = []string{"current", "previous", "trial.json"}

// CheckVersion says what is wrong with the name of a version.
func CheckVersion(version string) error {
	if !versions.MatchString(version) || slices.Contains(reserved, version) {
		return fmt.Errorf("%q is no name of a version: letters, digits and . _ + - are, and at most 64 of them", version)
	}
	return nil
}

// CurrentVersion is the version of the present release, "" when nothing is installed.
func (l Layout) CurrentVersion() (string, error) { return l.linked("current") }

// PreviousVersion is the version that was the present one before, "" when there is none.
func (l Layout) PreviousVersion() (string, error) { return l.linked("previous") }

func (l Layout) linked(name string) (string, error) {
	version, err := os.Readlink(filepath.Join(l.Base(), name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err == nil {
		err = CheckVersion(version)
	}
	if err != nil {
		return "", fmt.Errorf("find the %s release: %w", name, err)
	}
	return version, nil
}

// Switch makes a release the present one, in one step.
func (l Layout) Switch(version string) error { return l.link("current", version) }

// Keep notes the release to which one may go back.
func (l Layout) Keep(version string) error { return l.link("previous", version) }

func (l Layout) link(name, version string) error {
	if _, err := Open(l.Dir(version)); err != nil {
		return err
	}
	if err := Link(version, filepath.Join(l.Base(), name)); err != nil {
		return fmt.Errorf("make %s the %s release: %w", version, name, err)
	}
	return nil
}

// Link makes a symbolic link in one step, also in the place of another one, and has the disk know of it.
func Link(target, path string) error {
	tmp := path + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// syncDirs has the disk know of all files of a folder and of those below it; what is in them is there already.
func syncDirs(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncDir(path)
	})
}

// Trial is a release that has taken the place of another one and has not proved itself yet.
type Trial struct {
	From string `json:"from"`
	To   string `json:"to"`
}

func (l Layout) trialFile() string { return filepath.Join(l.Base(), "trial.json") }

// Try makes a release the present one until Accept or Undo. What is on trial when nobody is at it any more, after a power cut for
// example, is undone by the next who starts the box.
func (l Layout) Try(to string) error {
	from, err := l.CurrentVersion()
	if err != nil {
		return err
	}
	if err := statefile.Trial().Write(l.trialFile(), Trial{From: from, To: to}, 0o644); err != nil {
		return fmt.Errorf("note the trial of %s: %w", to, err)
	}
	if err := l.Switch(to); err != nil {
		return errors.Join(err, os.Remove(l.trialFile()))
	}
	return nil
}

// Trial returns what is on trial; false when nothing is. What a power cut has left of its file is nothing: the switch comes after it.
func (l Layout) Trial() (Trial, bool) {
	var t Trial
	if err := statefile.Trial().Read(l.trialFile(), &t); err != nil || CheckVersion(t.From) != nil {
		return Trial{}, false
	}
	return t, true
}

// Accept ends a trial: the release stays, and the one before is kept for who wants to go back.
func (l Layout) Accept() error {
	t, ok := l.Trial()
	if !ok {
		return nil
	}
	if t.From != t.To {
		if err := l.Keep(t.From); err != nil {
			return err
		}
	}
	return l.endTrial()
}

// Undo ends a trial: the release of before is the present one again.
func (l Layout) Undo() error {
	t, ok := l.Trial()
	if !ok {
		return nil
	}
	if err := l.Switch(t.From); err != nil {
		return err
	}
	return l.endTrial()
}

func (l Layout) endTrial() error {
	if err := os.Remove(l.trialFile()); err != nil {
		return fmt.Errorf("end the trial: %w", err)
	}
	if err := syncDir(l.Base()); err != nil { // else a power cut would undo what was accepted
		return fmt.Errorf("end the trial: %w", err)
	}
	return nil
}

// Versions are those of the releases that are there, sorted.
func (l Layout) Versions() ([]string, error) {
	entries, err := os.ReadDir(l.Base())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the releases: %w", err)
	}
	var found []string
	for _, e := range entries {
		if e.IsDir() && CheckVersion(e.Name()) == nil {
			found = append(found, e.Name())
		}
	}
	return found, nil
}

// Prune removes the releases that are neither the present nor the previous one, and what broken-off installations have left.
func (l Layout) Prune() error {
	current, err := l.CurrentVersion()
	if err != nil {
		return err
	}
	previous, err := l.PreviousVersion()
	if err != nil {
		return err
	}
	if _, on := l.Trial(); on {
		return nil
	}
	entries, err := os.ReadDir(l.Base())
	if err != nil {
		return fmt.Errorf("list the releases: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); e.IsDir() && name != current && name != previous {
			if err := os.RemoveAll(filepath.Join(l.Base(), name)); err != nil {
				return fmt.Errorf("remove the old release %s: %w", name, err)
			}
		}
	}
	return nil
}

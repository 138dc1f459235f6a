package install

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native/console"
	"github.com/edge-serverless-box/esb/native/release"
)

// played is a machine whose box is played.
type played struct {
	*Machine
	out *bytes.Buffer
	// runs: the box runs. bad are versions with which it does not serve, unfit those that say so themselves.
	runs       bool
	bad, unfit map[string]bool
	// taken are the versions that took over, done counts how often the box was given back, systemd what systemctl was asked.
	taken   []string
	done    int
	down    int
	systemd []string
	// mortal are versions whose supervisor ends at once.
	mortal map[string]bool
	// fails is what systemctl refuses.
	fails string
}

func mustOpen(t *testing.T) *played {
	t.Helper()
	p := &played{out: &bytes.Buffer{}, bad: map[string]bool{}, unfit: map[string]bool{}}
	p.Machine = &Machine{
		Layout: release.Layout{Prefix: t.TempDir()}, Console: console.New(p.out),
		Open: func() (Box, error) { return p, nil },
		Fit: func(_ context.Context, dir string) error {
			if p.unfit[filepath.Base(dir)] {
				return errors.New("its files are too new")
			}
			return nil
		},
		UnitOf: func(context.Context, string) (string, error) { return Unit() },
		Systemctl: func(_ context.Context, args ...string) error {
			p.systemd = append(p.systemd, strings.Join(args, " "))
			if p.fails != "" && args[0] == p.fails {
				return errors.New("refused")
			}
			return nil
		},
	}
	return p
}

func (p *played) Relieve(context.Context) (Relief, error) { return p, nil }
func (p *played) Runs() bool                              { return p.runs }
func (p *played) Done(context.Context) error {
	p.done++
	if p.Lost() {
		return errors.New("process 1 has ended")
	}
	return nil
}

func (p *played) Lost() bool {
	version, err := p.Layout.CurrentVersion()
	return err == nil && p.mortal[version]
}

func (p *played) Down(context.Context) error { p.down++; return nil }

func (p *played) Take(context.Context) error {
	version, err := p.Layout.CurrentVersion()
	if err != nil {
		return err
	}
	p.taken = append(p.taken, version)
	if p.bad[version] {
		return errors.New("the gateway ended")
	}
	return nil
}

func mustWrite(t *testing.T, file, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
}

// mustRelease makes a release without programs.
func mustRelease(t *testing.T, version string) string {
	t.Helper()
	samples := t.TempDir()
	for _, name := range []string{"functions.yml", "routing.yml", "resources.yml", "code/handler.py"} {
		mustWrite(t, filepath.Join(samples, name), version)
	}
	r, err := release.Make(filepath.Join(t.TempDir(), "release"), version, release.Contents{Samples: samples, Code: []string{"code"}})
	require.NoError(t, err)
	return r.Dir
}

func (p *played) requireCurrent(t *testing.T, want string) {
	t.Helper()
	is, err := p.Layout.CurrentVersion()
	require.NoError(t, err)
	assert.Equal(t, want, is)
	_, on := p.Layout.Trial()
	assert.False(t, on)
}

// files are all files of an installation but those of its releases.
func (p *played) files(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, dir := range []string{"etc", "usr"} {
		if !exists(filepath.Join(p.Layout.Prefix, dir)) {
			continue
		}
		require.NoError(t, filepath.WalkDir(filepath.Join(p.Layout.Prefix, dir), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name, err := filepath.Rel(p.Layout.Prefix, path)
			require.NoError(t, err)
			if d.Type()&os.ModeSymlink != 0 {
				found[name], err = os.Readlink(path)
				return err
			}
			data, err := os.ReadFile(path)
			found[name] = string(data)
			return err
		}))
	}
	return found
}

func TestInstall_Fresh_MakesAllAndStartsTheService(t *testing.T) {
	p := mustOpen(t)
	require.NoError(t, p.Install(t.Context(), mustRelease(t, "1"), true))
	p.requireCurrent(t, "1")
	files := p.files(t)
	for _, name := range []string{"etc/esb/functions.yml", "etc/esb/routing.yml", "etc/esb/resources.yml", "etc/esb/code/handler.py", "etc/esb/esb.env", "etc/systemd/system/esb.service"} {
		assert.Contains(t, files, name)
	}
	info, err := os.Stat(p.Layout.EnvFile())
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "it may have secrets")
	_, err = release.ReadEnv(p.Layout.EnvFile())
	require.NoError(t, err)
	_, err = os.Stat(filepath.Join(p.Layout.CommandFile(), ".."))
	require.NoError(t, err)
	assert.Equal(t, []string{"daemon-reload", "enable --now esb.service"}, p.systemd)
	assert.Empty(t, p.taken, "there was nothing to take over")

	require.NoError(t, p.Install(t.Context(), mustRelease(t, "1"), true), "a second time")
	assert.Equal(t, files, p.files(t))
	p.requireCurrent(t, "1")
}

func TestInstall_OwnConfiguration_StaysAsItIs(t *testing.T) {
	p := mustOpen(t)
	mustWrite(t, filepath.Join(p.Layout.Config(), "functions.yml"), "mine")
	mustWrite(t, p.Layout.EnvFile(), "A=mine\n")
	mustWrite(t, p.Layout.UnitFile(), "[Service]\n# mine\n")
	mustWrite(t, p.Layout.CommandFile(), "mine")
	require.NoError(t, p.Install(t.Context(), mustRelease(t, "1"), false))
	files := p.files(t)
	assert.Equal(t, "mine", files["etc/esb/functions.yml"])
	assert.Equal(t, "A=mine\n", files["etc/esb/esb.env"])
	assert.Equal(t, "[Service]\n# mine\n", files["etc/systemd/system/esb.service"])
	assert.Equal(t, "mine", files["usr/local/bin/esb"])
	assert.NotContains(t, files, "etc/esb/code/handler.py", "code of functions that are not there")
	assert.Contains(t, files, "etc/esb/routing.yml")
	assert.Equal(t, []string{"daemon-reload"}, p.systemd, "it is not to be started")
}

func TestInstall_StepFails_FormerStateStays(t *testing.T) {
	p := mustOpen(t)
	mustWrite(t, filepath.Join(p.Layout.Prefix, "usr", "local", "bin"), "a file where a folder has to be")
	before := p.files(t)
	require.Error(t, p.Install(t.Context(), mustRelease(t, "1"), true))
	assert.Equal(t, before, p.files(t))
	p.requireCurrent(t, "")
	assert.Empty(t, p.systemd)
}

func TestInstall_AnotherRelease_IsAnUpgrade(t *testing.T) {
	p := mustOpen(t)
	require.NoError(t, p.Install(t.Context(), mustRelease(t, "1"), true))
	p.runs, p.bad["3"] = true, true
	require.NoError(t, p.Install(t.Context(), mustRelease(t, "2"), true))
	p.requireCurrent(t, "2")
	assert.Equal(t, []string{"2"}, p.taken)
	assert.Equal(t, "1", p.files(t)["etc/esb/functions.yml"])
	require.Error(t, p.Install(t.Context(), mustRelease(t, "3"), true))
	p.requireCurrent(t, "2")
}

func TestInstall_ServiceDoesNotStart_SaysWhatToDo(t *testing.T) {
	p := mustOpen(t)
	p.fails = "enable"
	require.ErrorContains(t, p.Install(t.Context(), mustRelease(t, "1"), true), "journalctl -u esb")
	p.requireCurrent(t, "1")
}

func TestPrint_ChangesNothing(t *testing.T) {
	p := mustOpen(t)
	from, err := release.Open(mustRelease(t, "1"))
	require.NoError(t, err)
	require.NoError(t, p.Print(t.Context(), from))
	left, err := os.ReadDir(p.Layout.Prefix)
	require.NoError(t, err)
	assert.Empty(t, left)
	for _, text := range []string{"Type=notify", "write " + p.Layout.EnvFile(), "functions.yml (a sample)", "link " + p.Layout.Current()} {
		assert.Contains(t, p.out.String(), text)
	}
	require.NoError(t, p.Print(t.Context(), release.Release{Version: "VERSION"}), "one that is not there yet")
}

func TestUpgrade_BoxServes_KeepsTheOneBeforeAlone(t *testing.T) {
	p := mustOpen(t)
	p.runs = true
	for _, version := range []string{"1", "2", "3"} {
		require.NoError(t, p.Install(t.Context(), mustRelease(t, version), true))
	}
	p.requireCurrent(t, "3")
	assert.Equal(t, 2, p.done)
	versions, err := p.Layout.Versions()
	require.NoError(t, err)
	assert.Equal(t, []string{"2", "3"}, versions)
	require.NoError(t, p.Rollback(t.Context()))
	p.requireCurrent(t, "2")
	require.NoError(t, p.Rollback(t.Context()), "and forth")
	p.requireCurrent(t, "3")
}

func TestUpgrade_BoxDoesNotServe_GoesBack(t *testing.T) {
	p := mustOpen(t)
	p.runs, p.bad["2"] = true, true
	require.NoError(t, p.Install(t.Context(), mustRelease(t, "1"), true))
	fetched, err := p.Layout.Fetch(mustRelease(t, "2"))
	require.NoError(t, err)
	err = p.Upgrade(t.Context(), fetched.Version)
	require.ErrorContains(t, err, "the gateway ended")
	require.ErrorContains(t, err, "went back to 1 by itself")
	p.requireCurrent(t, "1")
	assert.Equal(t, []string{"2", "1"}, p.taken)
	assert.Equal(t, 1, p.done)

	p.bad["1"] = true
	err = p.Upgrade(t.Context(), fetched.Version)
	require.ErrorContains(t, err, "nor does it with 1 again")
	p.requireCurrent(t, "1")
	assert.Equal(t, 2, p.done, "whoever watches gets the box back all the same")
}

func TestUpgrade_SupervisorEndsAtOnce_TheNextOneIsThatOfTheReleaseBefore(t *testing.T) {
	p := mustOpen(t)
	p.runs, p.mortal = true, map[string]bool{"2": true}
	require.NoError(t, p.Install(t.Context(), mustRelease(t, "1"), true))
	p.UnitOf = func(_ context.Context, dir string) (string, error) {
		text, err := Unit()
		if filepath.Base(dir) == "2" {
			text += "# of 2\n"
		}
		return text, err
	}
	fetched, err := p.Layout.Fetch(mustRelease(t, "2"))
	require.NoError(t, err)
	err = p.Upgrade(t.Context(), fetched.Version)
	require.ErrorContains(t, err, "process 1 has ended")
	require.ErrorContains(t, err, "1 is the present release again")
	p.requireCurrent(t, "1")
	text, err := Unit()
	require.NoError(t, err)
	assert.Equal(t, text, p.files(t)["etc/systemd/system/esb.service"])
}

func TestInstall_PresentReleaseIsDamaged_IsMended(t *testing.T) {
	p := mustOpen(t)
	p.runs = true
	source := mustRelease(t, "1")
	require.NoError(t, p.Install(t.Context(), source, true))
	lost := filepath.Join(p.Layout.Dir("1"), release.Samples, "routing.yml")
	require.NoError(t, os.Remove(lost))
	require.NoError(t, p.Alone(t.Context(), func() error { return p.Install(t.Context(), source, true) }))
	assert.FileExists(t, lost)
	assert.Contains(t, p.out.String(), "the release 1 was damaged and is whole again")
	assert.Empty(t, p.taken)
	p.requireCurrent(t, "1")
}

func TestAlone_Fails_LeavesNothingThatWasBroughtForIt(t *testing.T) {
	p := mustOpen(t)
	p.runs, p.bad["2"], p.unfit["3"] = true, true, true
	require.NoError(t, p.Install(t.Context(), mustRelease(t, "1"), true))
	for _, version := range []string{"2", "3"} {
		require.Error(t, p.Alone(t.Context(), func() error {
			fetched, err := p.Layout.Fetch(mustRelease(t, version))
			require.NoError(t, err)
			return p.Upgrade(t.Context(), fetched.Version)
		}))
		versions, err := p.Layout.Versions()
		require.NoError(t, err)
		assert.Equal(t, []string{"1"}, versions)
	}
}

func TestAlone_SomebodyElseIsAtIt_Waits(t *testing.T) {
	p := mustOpen(t)
	busy, cancel := context.WithCancel(t.Context())
	require.NoError(t, p.Alone(t.Context(), func() error {
		cancel()
		require.ErrorIs(t, p.Alone(busy, func() error { t.Error("two at once"); return nil }), context.Canceled)
		return nil
	}))
	assert.Contains(t, p.out.String(), "waiting for another")
}

func TestAlone_NarrowUmask_ServicesReachTheirFiles(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	p := mustOpen(t)
	require.NoError(t, p.Alone(t.Context(), func() error { return p.Install(t.Context(), mustRelease(t, "1"), true) }))
	for _, path := range []string{p.Layout.Base(), p.Layout.Dir("1"), filepath.Join(p.Layout.Dir("1"), release.Samples), filepath.Join(p.Layout.Config(), "code")} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o755), info.Mode().Perm(), path)
	}
	info, err := os.Stat(p.Layout.EnvFile())
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestUpgrade_ReleaseSaysThatItDoesNotFit_NothingIsTouched(t *testing.T) {
	p := mustOpen(t)
	p.runs, p.unfit["2"] = true, true
	require.NoError(t, p.Install(t.Context(), mustRelease(t, "1"), true))
	fetched, err := p.Layout.Fetch(mustRelease(t, "2"))
	require.NoError(t, err)
	require.ErrorContains(t, p.Upgrade(t.Context(), fetched.Version), "too new")
	p.requireCurrent(t, "1")
	assert.Empty(t, p.taken)
	assert.Zero(t, p.done)
}

func TestUpgrade_OneWasBrokenOffBefore_BeginsAtTheReleaseBeforeThat(t *testing.T) {
	p := mustOpen(t)
	require.NoError(t, p.Install(t.Context(), mustRelease(t, "1"), true))
	for _, version := range []string{"2", "3"} {
		_, err := p.Layout.Fetch(mustRelease(t, version))
		require.NoError(t, err)
	}
	require.NoError(t, p.Layout.Try("2"))
	require.NoError(t, p.Upgrade(t.Context(), "3"))
	p.requireCurrent(t, "3")
	previous, err := p.Layout.PreviousVersion()
	require.NoError(t, err)
	assert.Equal(t, "1", previous)
}

func TestUpgrade_UnitOfTheRelease_IsRenewedUnlessSomebodyHasChangedIt(t *testing.T) {
	p := mustOpen(t)
	require.NoError(t, p.Install(t.Context(), mustRelease(t, "1"), true))
	_, err := p.Layout.Fetch(mustRelease(t, "2"))
	require.NoError(t, err)
	p.UnitOf = func(_ context.Context, dir string) (string, error) {
		if filepath.Base(dir) == "1" {
			return Unit()
		}
		return "unit of " + filepath.Base(dir), nil
	}
	p.systemd = nil
	require.NoError(t, p.Upgrade(t.Context(), "2"))
	assert.Equal(t, "unit of 2", p.files(t)["etc/systemd/system/esb.service"])
	assert.Equal(t, []string{"daemon-reload"}, p.systemd)
	mustWrite(t, p.Layout.UnitFile(), "mine")
	_, err = p.Layout.Fetch(mustRelease(t, "3"))
	require.NoError(t, err)
	require.NoError(t, p.Upgrade(t.Context(), "3"))
	assert.Equal(t, "mine", p.files(t)["etc/systemd/system/esb.service"])
}

func TestUninstall_KeepsStateAndConfiguration(t *testing.T) {
	p := mustOpen(t)
	require.NoError(t, p.Install(t.Context(), mustRelease(t, "1"), true))
	mustWrite(t, filepath.Join(p.Layout.State(), "data"), "x")
	require.NoError(t, p.Uninstall(t.Context(), false))
	assert.Equal(t, 1, p.down)
	assert.NoDirExists(t, p.Layout.Base())
	assert.NoFileExists(t, p.Layout.UnitFile())
	_, err := os.Lstat(p.Layout.CommandFile())
	require.Error(t, err)
	assert.FileExists(t, p.Layout.EnvFile())
	assert.FileExists(t, filepath.Join(p.Layout.State(), "data"))
	assert.Contains(t, p.out.String(), p.Layout.State()+" stays")
	require.NoError(t, p.Uninstall(t.Context(), true), "a second time, with all")
	assert.NoDirExists(t, p.Layout.State())
	assert.NoDirExists(t, p.Layout.Config())
}

func TestUnit_SystemdTakesIt(t *testing.T) {
	text, err := Unit()
	require.NoError(t, err)
	assert.Contains(t, text, "ExecStart=/opt/esb/current/esb run\n")
	assert.Contains(t, text, "KillMode=process\n")
	assert.NotContains(t, text, "CAP_SYS_MODULE", "overlayfs may be a module, which the box loads after a boot")
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return // the rest is systemd's to say
	}
	// The program has to be there.
	unit := filepath.Join(t.TempDir(), release.Unit)
	require.NoError(t, os.WriteFile(unit, []byte(strings.Replace(text, "/opt/esb/current/esb", "/bin/true", 1)), 0o644))
	out, err := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput()
	require.NoError(t, err, "%s", out)
	for line := range strings.Lines(string(out)) {
		assert.NotContains(t, line, release.Unit, "it says nothing of this one")
	}
}

package stack

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/statefile"
	"github.com/edge-serverless-box/esb/native/lock"
	"github.com/edge-serverless-box/esb/native/process"
	"github.com/edge-serverless-box/esb/native/release"
	"github.com/edge-serverless-box/esb/native/sdnotify"
)

// mustInstall makes the played box one of an installation with releases that have no programs, so that a supervisor cannot become one.
func mustInstall(t *testing.T, b *box) release.Layout {
	t.Helper()
	l := release.Layout{Prefix: t.TempDir()}
	for _, version := range []string{"1", "2"} {
		require.NoError(t, os.MkdirAll(filepath.Join(l.Dir(version), release.Images), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(l.Dir(version), "release.json"), []byte(`{"version":"`+version+`"}`), 0o644))
	}
	require.NoError(t, l.Switch("1"))
	b.Installed(l)
	return l
}

// mustForeground keeps the played services as an `esb run` of an installation in the foreground does, until stop.
func mustForeground(t *testing.T, b *box) (k *keeper, relieve chan os.Signal, stop func()) {
	t.Helper()
	require.NoError(t, b.start(t.Context()), b.out)
	k, err := b.keep(b.services(), false, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	k.settle(t.Context())
	require.NoError(t, k.write())
	relieve = make(chan os.Signal, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for k.watch(ctx, sdnotify.Notifier{}, relieve) {
			next, err := k.giveWay(ctx, sdnotify.Notifier{}, nil)
			if next == nil {
				assert.NoError(t, err)
				return
			}
			k = next
		}
		for _, w := range k.watchers {
			w.Release()
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return k, relieve, stop
}

func (b *box) awaitState(t *testing.T, wanted func(supervisorState) bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		state, alive := b.supervisor()
		return alive && wanted(state)
	}, waitLimit, 10*time.Millisecond)
}

func TestGiveWay_UpgradeEndsWithoutAProgramToBecome_TakesTheServicesBack(t *testing.T) {
	b := mustOpen(t)
	l := mustInstall(t, b)
	held, err := lock.Take(t.Context(), b.upgradeLock(), nil)
	require.NoError(t, err)
	_, relieve, _ := mustForeground(t, b)
	require.Error(t, b.unattended())
	first := b.pids(t)

	relieve <- letGo
	b.awaitState(t, func(s supervisorState) bool { return s.Released })
	require.NoError(t, b.unattended(), "an upgrade may start services now")
	watched, err := b.release(t.Context())
	require.NoError(t, err)
	assert.False(t, watched, "it is not ended")
	require.NoError(t, b.superviseRunning(), "nor is another one started beside it")
	require.NoError(t, l.Try("2")) // and whoever did that dies
	require.NoError(t, held.Close())

	b.awaitState(t, func(s supervisorState) bool { return !s.Released && s.Settled })
	assert.Equal(t, first, b.pids(t), "the services have gone on")
	version, err := l.CurrentVersion()
	require.NoError(t, err)
	assert.Equal(t, "1", version, "the upgrade that was broken off is undone")
}

func TestGiveWay_IsStoppedMeanwhile_StopsTheServices(t *testing.T) {
	b := mustOpen(t)
	mustInstall(t, b)
	held, err := lock.Take(t.Context(), b.upgradeLock(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, held.Close()) })
	_, relieve, stop := mustForeground(t, b)
	relieve <- letGo
	b.awaitState(t, func(s supervisorState) bool { return s.Released })
	stop()
	assert.Equal(t, [2]int{}, b.pids(t))
	_, alive := b.supervisor()
	assert.False(t, alive)
}

func TestEndTrial_SomebodyIsAtTheUpgrade_LeavesItAlone(t *testing.T) {
	b := mustOpen(t)
	l := mustInstall(t, b)
	require.NoError(t, b.endTrial(), "nothing is on trial")
	require.NoError(t, l.Try("2"))
	held, err := lock.Take(t.Context(), b.upgradeLock(), nil)
	require.NoError(t, err)
	require.NoError(t, b.endTrial())
	version, err := l.CurrentVersion()
	require.NoError(t, err)
	assert.Equal(t, "2", version)

	require.NoError(t, held.Close())
	require.ErrorContains(t, b.endTrial(), "become", "the release has no program")
	version, err = l.CurrentVersion()
	require.NoError(t, err)
	assert.Equal(t, "1", version)
	assert.Contains(t, b.out.String(), "going back to 1")
}

func TestBringImages_OfTheRelease_ButNotOverThoseOfSomebodyElse(t *testing.T) {
	b := mustOpen(t)
	l := mustInstall(t, b)
	require.NoError(t, os.WriteFile(filepath.Join(b.settings.BinDir, "esb-image"), []byte("#!/bin/sh\necho python3.11\n"), 0o755))
	require.NoError(t, os.MkdirAll(b.settings.RunDir(), 0o755))
	put := func(version string, images map[string]string) {
		t.Helper()
		sums := ""
		for name, text := range images {
			file := filepath.Join(l.Dir(version), release.Images, name)
			require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
			digest, err := release.Digest(file)
			require.NoError(t, err)
			sums += digest + "  " + release.Images + "/" + name + "\n"
		}
		require.NoError(t, os.WriteFile(filepath.Join(l.Dir(version), "SHA256SUMS"), []byte(sums), 0o644))
	}
	has := func(name string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(b.settings.ImagesDir, name))
		require.NoError(t, err)
		return strings.TrimSpace(string(data))
	}
	put("1", map[string]string{"a.tar": "a1", "b.tar": "b1"})
	put("2", map[string]string{"a.tar": "a2", "b.tar": "b2"})
	require.NoError(t, b.bringImages(t.Context()))
	assert.Equal(t, "a1", has("a.tar"))
	assert.Equal(t, "python3.11", b.runtimes)
	before, err := os.Stat(filepath.Join(b.settings.ImagesDir, "a.tar"))
	require.NoError(t, err)

	require.NoError(t, os.WriteFile(filepath.Join(b.settings.ImagesDir, "b.tar"), []byte("mine, and longer"), 0o644))
	require.NoError(t, b.bringImages(t.Context()))
	same, err := os.Stat(filepath.Join(b.settings.ImagesDir, "a.tar"))
	require.NoError(t, err)
	assert.True(t, os.SameFile(before, same), "what is there is not written again")
	require.NoError(t, l.Switch("2"))
	require.NoError(t, b.bringImages(t.Context()))
	assert.Equal(t, "a2", has("a.tar"))
	assert.Equal(t, "mine, and longer", has("b.tar"))
	require.NoError(t, os.Remove(filepath.Join(b.settings.ImagesDir, "b.tar")))
	later := time.Now().Add(time.Hour)
	require.NoError(t, os.WriteFile(filepath.Join(b.settings.ImagesDir, "a.tar"), []byte("a1"), 0o644))
	require.NoError(t, os.Chtimes(filepath.Join(b.settings.ImagesDir, "a.tar"), later, later))
	require.NoError(t, l.Switch("1"))
	require.NoError(t, b.bringImages(t.Context()), "a start was broken off when it had brought it, and not noted it yet")
	require.NoError(t, l.Switch("2"))
	require.NoError(t, b.bringImages(t.Context()))
	assert.Equal(t, "a2", has("a.tar"), "it is the release's all the same")
	require.NoError(t, b.bringImages(t.Context()))
	assert.Equal(t, "b2", has("b.tar"), "one that is gone comes back")
}

func TestBuild_InAnInstallation_IsRefused(t *testing.T) {
	b := mustOpen(t)
	mustInstall(t, b)
	require.ErrorContains(t, b.Build(t.Context(), "services"), "builds nothing")
}

func TestSampleCode(t *testing.T) {
	assert.Equal(t, []string{"hello", "layers/watcher", "layers/b"}, sampleCode("functions:\n  a:\n    code: ./hello\n    layers: [./layers/watcher, ./layers/b]\n  b:\n    image: x\n    code: s3://bucket/x.zip\n"))
}

func TestStatus_DuringAnUpgrade_NoServiceIsCalledDown(t *testing.T) {
	b := mustOpen(t)
	mustInstall(t, b)
	held, err := lock.Take(t.Context(), b.upgradeLock(), nil)
	require.NoError(t, err)
	_, relieve, stop := mustForeground(t, b)
	relieve <- letGo
	b.awaitState(t, func(s supervisorState) bool { return s.Released })
	status, err := b.Status(t.Context())
	require.NoError(t, err)
	for _, service := range status.Services {
		assert.Zero(t, service.DownSince, service.Name)
	}
	stop()
	require.NoError(t, held.Close())
}

func TestDone_SupervisorEndsAsTheOtherProgram_IsLost(t *testing.T) {
	b := mustOpen(t)
	mustInstall(t, b)
	held, err := lock.Take(t.Context(), b.upgradeLock(), nil)
	require.NoError(t, err)
	cmd := exec.Command("/bin/sleep", "300")
	require.NoError(t, cmd.Start())
	foreground, err := process.Identify(cmd.Process.Pid)
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { // as one that becomes a program which ends at once
		free, err := lock.Take(t.Context(), b.upgradeLock(), nil)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if err == nil {
			err = free.Close()
		}
		ended <- err
	}()
	r := &Relief{stack: b.Stack, held: held, foreground: &foreground}
	assert.False(t, r.Lost())
	require.ErrorContains(t, r.Done(t.Context()), "has not come back")
	assert.True(t, r.Lost())
	require.NoError(t, <-ended)
}

func TestClosedTo_SettingsBesideFunctions_GiveTheGatewayNoFurtherRight(t *testing.T) {
	b := mustOpen(t)
	l := mustInstall(t, b)
	require.NoError(t, os.Chmod(filepath.Dir(l.Prefix), 0o755))
	require.NoError(t, os.MkdirAll(l.Config(), 0o755))
	b.settings.FunctionsConfig = filepath.Join(l.Config(), "functions.yml")
	require.NoError(t, os.WriteFile(b.settings.FunctionsConfig, nil, 0o644))
	require.NoError(t, os.WriteFile(l.EnvFile(), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(l.Config(), ".esb.env.swp"), nil, 0o600))
	b.settings.RoutingConfig, b.settings.ResourcesConfig = b.settings.FunctionsConfig, b.settings.FunctionsConfig
	u := &process.User{UID: b.settings.ServiceUID("gateway"), GID: b.settings.ServiceGID()}
	assert.Empty(t, b.closedTo(u))
	b.layout = nil
	assert.Contains(t, b.closedTo(u), "esb.env", "in a working copy such a file may be code")
}

// TestTake_LivesWhereTheBoxLives: the session or unit in which somebody calls an upgrade may be ended, with all that is in its control group.
func TestTake_LivesWhereTheBoxLives(t *testing.T) {
	b := mustOpen(t)
	l := mustInstall(t, b)
	require.NoError(t, os.MkdirAll(b.settings.RunDir(), 0o755))
	box := exec.Command("/bin/sleep", "300")
	require.NoError(t, box.Start())
	group := fmt.Sprintf("esb-test-%d", box.Process.Pid)
	dir := ""
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/freezer"} { // v2, or v1
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err == nil {
			dir = filepath.Join(root, group)
			break
		}
	}
	require.NotEmpty(t, dir)
	require.NoError(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() {
		_ = box.Process.Kill()
		_ = box.Wait()
		assert.NoError(t, os.Remove(dir))
	})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, box.Process.Pid), 0))
	record, err := process.Identify(box.Process.Pid)
	require.NoError(t, err)
	require.NoError(t, statefile.Supervisor().Write(b.supervisorFile(), supervisorState{Process: record, Background: true, Settled: true}, 0o600))
	said := filepath.Join(t.TempDir(), "said")
	require.NoError(t, os.WriteFile(filepath.Join(l.Dir("1"), "esb"), []byte("#!/bin/sh\ncat /proc/self/cgroup >"+said+"\nexit 1\n"), 0o755))

	r, err := b.Relieve(t.Context())
	require.NoError(t, err)
	require.ErrorContains(t, r.Take(t.Context()), "exit status 1")
	require.NoError(t, r.Done(t.Context()))
	groups, err := os.ReadFile(said)
	require.NoError(t, err, b.out)
	assert.Contains(t, string(groups), "/"+group+"\n")
}

package process

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// limit bounds every wait of these tests.
const limit = 60 * time.Second

func mustStart(t *testing.T, script string) *Child {
	t.Helper()
	dir := t.TempDir()
	c, err := Start(Spec{
		Path: "/bin/sh", Args: []string{"-c", script}, Env: os.Environ(), Dir: dir,
		Log: filepath.Join(dir, "log"), PIDFile: filepath.Join(dir, "pid"), Fingerprint: "f",
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = c.Signal(syscall.SIGKILL)
		_ = c.cmd.Wait()
	})
	return c
}

func mustLog(t *testing.T, c *Child, want string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(c.LogTail(1<<10), want) }, limit, 10*time.Millisecond)
}

func TestStart_WritesAPidFileThatNamesTheProcess(t *testing.T) {
	c := mustStart(t, "exec sleep 300")
	r, err := Read(filepath.Join(filepath.Dir(c.log), "pid"))
	require.NoError(t, err)
	assert.Equal(t, c.Record, r)
	assert.True(t, r.Alive())
	assert.NoError(t, c.Exited())
	sid, err := syscall.Getpgid(r.PID)
	require.NoError(t, err)
	assert.Equal(t, r.PID, sid, "a signal to this terminal's group must not reach it")
}

func TestStart_AsAnotherUser_HasNoMoreRightsThanThat(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("becoming another user needs root")
	}
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	c, err := Start(Spec{
		Path: "/bin/sh", Args: []string{"-c", "id -u; id -G; grep -e CapEff -e NoNewPrivs /proc/self/status"}, Env: os.Environ(), Dir: "/",
		Log: log, PIDFile: filepath.Join(dir, "pid"), User: &User{UID: 1879113729, GID: 1879113728, Capabilities: []uintptr{unix.CAP_NET_BIND_SERVICE}},
	})
	require.NoError(t, err)
	mustLog(t, c, "NoNewPrivs:\t1\n")
	_ = c.cmd.Wait()
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	assert.Equal(t, "1879113729\n1879113728\nCapEff:\t0000000000000400\nNoNewPrivs:\t1\n", string(text))
	for range 20 { // the bit was one thread's, whose children no other process is
		mustLog(t, mustStart(t, "grep NoNewPrivs /proc/self/status"), "NoNewPrivs:\t0")
	}
}

func TestStart_Protected_IsNotTheFirstToEndWhenMemoryRunsOut(t *testing.T) {
	score := func(c *Child) string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", c.PID))
		require.NoError(t, err)
		return strings.TrimSpace(string(b))
	}
	plain := mustStart(t, "exec sleep 300")
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", plain.PID), []byte("-499"), 0); err != nil {
		t.Skipf("this user may not protect processes: %v", err)
	}
	dir := t.TempDir()
	c, err := Start(Spec{
		Path: "/bin/sleep", Args: []string{"300"}, Dir: dir, Log: filepath.Join(dir, "log"), PIDFile: filepath.Join(dir, "pid"), Protected: true,
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = c.Signal(syscall.SIGKILL)
		_ = c.cmd.Wait()
	})
	assert.Equal(t, "-500", score(c))
	assert.Equal(t, "-499", score(plain))
}

func TestStart_LogIsALink_IsRefused(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "log")))
	_, err := Start(Spec{Path: "/bin/true", Log: filepath.Join(dir, "log"), PIDFile: filepath.Join(dir, "pid")})
	require.Error(t, err)
	assert.NoFileExists(t, filepath.Join(dir, "elsewhere"))
}

func TestStart_PidFileCannotBeWritten_LeavesNoProcess(t *testing.T) {
	dir := t.TempDir()
	_, err := Start(Spec{Path: "/bin/sh", Args: []string{"-c", "exec sleep 301.5"}, Log: filepath.Join(dir, "log"), PIDFile: filepath.Join(dir, "missing", "pid")})
	require.Error(t, err)
	all, err := All()
	require.NoError(t, err)
	for _, p := range all {
		assert.NotContains(t, p.Args, "301.5")
	}
}

func TestRecord_RecycledPid_IsNotAliveAndNotSignalled(t *testing.T) {
	c := mustStart(t, "exec sleep 300")
	for name, r := range map[string]Record{
		"another start time": {PID: c.PID, StartTicks: c.StartTicks + 1, BootID: c.BootID},
		"another boot":       {PID: c.PID, StartTicks: c.StartTicks, BootID: "an earlier one"},
		"no such process":    {PID: 1 << 30, StartTicks: c.StartTicks, BootID: c.BootID},
	} {
		t.Run(name, func(t *testing.T) {
			assert.False(t, r.Alive())
			assert.ErrorIs(t, r.Signal(syscall.SIGKILL), ErrGone)
			killed, err := r.Stop(t.Context(), limit)
			assert.NoError(t, err)
			assert.False(t, killed)
			assert.True(t, c.Alive(), "the process that has the pid now must live")
		})
	}
}

func TestExited_SaysHowTheProcessEnded(t *testing.T) {
	c := mustStart(t, "echo the reason; exit 7")
	require.Eventually(t, func() bool { return c.Exited() != nil }, limit, 10*time.Millisecond)
	assert.ErrorContains(t, c.Exited(), "exit status 7")
	assert.Equal(t, "the reason\n", c.LogTail(1<<10))
}

func TestStop_ProcessObeys_IsNotKilled(t *testing.T) {
	c := mustStart(t, "exec sleep 300")
	killed, err := c.Stop(t.Context(), limit)
	require.NoError(t, err)
	assert.False(t, killed)
	assert.False(t, c.Alive(), "a zombie has ended")
}

func TestStop_ProcessIgnoresSIGTERM_IsKilled(t *testing.T) {
	c := mustStart(t, "trap '' TERM; echo ready; while :; do sleep 0.1; done")
	mustLog(t, c, "ready")
	killed, err := c.Stop(t.Context(), 50*time.Millisecond)
	require.NoError(t, err)
	assert.True(t, killed)
	assert.False(t, c.Alive())
}

func TestRead_MissingAndDamagedFiles_AreToldApart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	_, err := Read(file)
	assert.ErrorIs(t, err, fs.ErrNotExist)
	for _, text := range []string{"", "{}", "12", `{"pid":1}`} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		_, err = Read(file)
		assert.ErrorContains(t, err, file)
		assert.False(t, errors.Is(err, fs.ErrNotExist))
	}
}

func TestParseStat_CommandWithBracketsAndBlanks(t *testing.T) {
	s, err := parseStat("42 (a) Z (b) S 1 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 987654 0 0")
	require.NoError(t, err)
	assert.Equal(t, stat{state: 'S', startTicks: 987654}, s)
	for _, line := range []string{"", "42 (x", "42 (x) S 1", "42 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x"} {
		_, err := parseStat(line)
		assert.Error(t, err, line)
	}
}

func TestAll_ListsThisProcess(t *testing.T) {
	exe, err := os.Executable()
	require.NoError(t, err)
	all, err := All()
	require.NoError(t, err)
	for _, p := range all {
		if p.PID == os.Getpid() {
			assert.Equal(t, exe, p.Exe)
			assert.Equal(t, os.Args, p.Args)
			return
		}
	}
	t.Fatal("this process is not listed")
}

func TestStart_ProgramIsMissing_SaysSo(t *testing.T) {
	dir := t.TempDir()
	_, err := Start(Spec{Path: filepath.Join(dir, "none"), Log: filepath.Join(dir, "log"), PIDFile: filepath.Join(dir, "pid")})
	assert.ErrorIs(t, err, fs.ErrNotExist)
	assert.NoFileExists(t, filepath.Join(dir, "pid"))
}

func TestInherit_ChildOfATimeBefore_LeavesNoZombie(t *testing.T) {
	// Another program image of this process would have started it: nobody here waits for it.
	dir := t.TempDir()
	c, err := Start(Spec{Path: "/bin/sh", Args: []string{"-c", "exec sleep 300"}, Env: os.Environ(), Dir: dir, Log: filepath.Join(dir, "log"), PIDFile: filepath.Join(dir, "pid")})
	require.NoError(t, err)
	r, err := Read(filepath.Join(dir, "pid"))
	require.NoError(t, err)
	r.Inherit()
	self, err := Identify(os.Getpid())
	require.NoError(t, err)
	self.Inherit() // nobody's child here: nothing happens
	require.NoError(t, c.Signal(syscall.SIGKILL))
	require.Eventually(t, func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", r.PID))
		return errors.Is(err, fs.ErrNotExist)
	}, limit, 10*time.Millisecond, "it stays as a zombie")
}

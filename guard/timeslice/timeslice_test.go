package timeslice_test

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/timeslice"
)

const asked = 300 * time.Microsecond

// slices are what the kernel says of the threads of a process.
func slices(t *testing.T, pid int) (all []time.Duration) {
	t.Helper()
	tasks, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	require.NoError(t, err)
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		require.NoError(t, err)
		attr, err := unix.SchedGetAttr(id, 0)
		if err != nil {
			continue // it has ended
		}
		all = append(all, time.Duration(attr.Runtime))
	}
	return all
}

// known says whether the kernel has turns of a length of one's own (Linux 6.12).
func known(t *testing.T) bool {
	t.Helper()
	var name unix.Utsname
	require.NoError(t, unix.Uname(&name))
	major, rest, _ := strings.Cut(unix.ByteSliceToString(name.Release[:]), ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, _ := strconv.Atoi(major)
	b, _ := strconv.Atoi(minor)
	return a > 6 || a == 6 && b >= 12
}

func TestShorten_AllThreadsAndTheirChildren(t *testing.T) {
	release := make(chan struct{})
	var threads sync.WaitGroup
	thread := func() {
		runtime.LockOSThread()
		<-release
	}
	for range 4 {
		threads.Go(thread)
	}
	defer threads.Wait()
	defer close(release)
	require.NoError(t, timeslice.Shorten(asked))
	for range 4 {
		threads.Go(thread)
	}
	child := exec.Command("sleep", "60")
	require.NoError(t, child.Start())
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	if !known(t) {
		return
	}
	for _, pid := range []int{os.Getpid(), child.Process.Pid} {
		for _, slice := range slices(t, pid) {
			assert.Equal(t, asked, slice, "process %d", pid)
		}
	}
	nice, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Setpriority(unix.PRIO_PROCESS, 0, 20-nice), "what it was")
}

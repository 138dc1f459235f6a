package process

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/supervise"
)

func mustEnd(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	select {
	case <-ended:
	case <-time.After(limit):
		t.Fatal("the end is not seen")
	}
}

func TestWatch_OwnChild_EndIsSeenWithItsLog(t *testing.T) {
	c := mustStart(t, "echo the reason; exit 7")
	w := c.Watch()
	mustEnd(t, w.Ended())
	assert.Contains(t, w.How(), "exit status 7")
	assert.Contains(t, w.How(), "the reason")
	require.NoError(t, w.Terminate())
	require.NoError(t, w.Kill())
}

func TestWatch_ProcessOfAnother_EndIsSeen(t *testing.T) {
	for name, end := range map[string]func(supervise.Process) error{"asked": supervise.Process.Terminate, "killed": supervise.Process.Kill} {
		t.Run(name, func(t *testing.T) {
			c := mustStart(t, "exec sleep 300")
			w, err := c.Record.Watch()
			require.NoError(t, err)
			select {
			case <-w.Ended():
				t.Fatal("it runs")
			default:
			}
			assert.Equal(t, c.PID, w.PID())
			require.NoError(t, end(w))
			mustEnd(t, w.Ended())
			_, err = c.Record.Watch()
			require.ErrorIs(t, err, ErrGone)
		})
	}
}

func TestWatch_RecycledPid_IsGone(t *testing.T) {
	c := mustStart(t, "exec sleep 300")
	_, err := Record{PID: c.PID, StartTicks: c.StartTicks + 1, BootID: c.BootID}.Watch()
	require.ErrorIs(t, err, ErrGone)
	require.NoError(t, syscall.Kill(c.PID, 0))
}

func TestWatch_KernelWithoutPidfds_EndIsSeen(t *testing.T) {
	for _, missing := range []error{unix.EINVAL, unix.ENOSYS} {
		old := func(int, int) (int, error) { return -1, missing }
		c := mustStart(t, "exec sleep 300")
		w, err := c.watch(old)
		require.NoError(t, err)
		select {
		case <-w.Ended():
			t.Fatal("it runs")
		default:
		}
		require.NoError(t, w.Kill())
		mustEnd(t, w.Ended())
		_, err = c.watch(old)
		require.ErrorIs(t, err, ErrGone)
	}
}

package lambdainit_test

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/ownthread"
)

// mustHold has pid stay, as one in an uninterruptible wait does, whatever kills it: a process that another than its parent traces is
// not gone for its parent until the tracer has seen its end (ptrace(2)). The end of the test lets it go.
func mustHold(t *testing.T, pid int) {
	t.Helper()
	held, letGo, gone := make(chan error, 1), make(chan struct{}), make(chan error, 1)
	go func() {
		gone <- ownthread.Do(func() error { // the tracer is a thread
			if _, _, errno := syscall.RawSyscall6(syscall.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(pid), 0, 0, 0, 0); errno != 0 {
				held <- errno
				return errno
			}
			held <- nil
			<-letGo
			for {
				if _, err := syscall.Wait4(pid, nil, unix.WALL, nil); !errors.Is(err, syscall.EINTR) {
					return err
				}
			}
		})
	}()
	require.NoError(t, <-held, "trace the function's process")
	t.Cleanup(func() {
		close(letGo)
		require.NoError(t, <-gone)
	})
}

// mustChild has the function start a process that outlives the invocation, and returns its id.
func mustChild(t *testing.T, b *box) int {
	t.Helper()
	notes := b.invoke("req-1", order{Do: "family"}).reply(t).Notes
	require.Len(t, notes, 1)
	pid, err := strconv.Atoi(strings.Fields(notes[0])[0])
	require.NoError(t, err)
	return pid
}

// TestReset_AProcessStays_TheContainerServesNoMore: beside what is left of an earlier life nothing is started, and the gateway is
// told, in the answer and to every later request.
func TestReset_AProcessStays_TheContainerServesNoMore(t *testing.T) {
	for name, o := range map[string]struct {
		order    order
		deadline time.Duration
		reset    string
	}{
		"timeout": {order{Do: "hang"}, soon, "timeout"},
		"exit":    {order{Do: "exit", N: 1}, patience, "exit"},
	} {
		t.Run(name, func(t *testing.T) {
			b := mustOpenBox(t)
			mustHold(t, mustChild(t, b))
			r := b.invoke("req-2", o.order, deadlineIn(o.deadline))
			assert.Equal(t, http.StatusOK, r.Status)
			assert.Equal(t, o.reset, r.Header.Get("X-Esb-Sandbox-Reset"))
			assert.Equal(t, "a process of the function cannot be killed", r.Header.Get("X-Esb-Sandbox-Spoilt"))
			b.waitLine("platform.fault", "A process of the function cannot be killed")

			next := b.invoke("req-3", order{Do: "echo"})
			assert.Equal(t, http.StatusServiceUnavailable, next.Status, "not looked at: another container may have it")
			assert.Equal(t, http.StatusServiceUnavailable, b.send(http.MethodGet, "/health", nil).Status)
		})
	}
	t.Run("stream", func(t *testing.T) {
		b := mustOpenBox(t)
		mustHold(t, mustChild(t, b))
		resp := b.openStream(t.Context(), "req-2", order{Do: "pieces", Text: "/no/such/file"}, deadlineIn(5*time.Second))
		_, err := io.Copy(io.Discard, resp.Body)
		require.NoError(t, err)
		errorType, _ := trailerError(t, resp)
		assert.Equal(t, "Sandbox.Timedout", errorType)
		assert.Equal(t, "a process of the function cannot be killed", resp.Trailer.Get("X-Esb-Sandbox-Spoilt"))
	})
}

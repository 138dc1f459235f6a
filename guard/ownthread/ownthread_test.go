package ownthread_test

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/ownthread"
)

// TestMain keeps the first thread from the tests' runner, so that goroutines come to run on it as they do in a program whose
// main goroutine waits.
func TestMain(m *testing.M) {
	done := make(chan int)
	go func() { done <- m.Run() }()
	os.Exit(<-done)
}

func TestDo_NeverTakesTheFirstThread(t *testing.T) {
	before, err := os.ReadFile("/proc/self/comm")
	require.NoError(t, err)
	name, err := unix.BytePtrFromString("changed")
	require.NoError(t, err)

	const callers, calls = 8, 200
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range calls {
				assert.NoError(t, ownthread.Do(func() error {
					defer runtime.KeepAlive(name)
					return unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0, 0, 0)
				}))
			}
		})
	}
	all.Wait()

	after, err := os.ReadFile("/proc/self/comm")
	require.NoError(t, err)
	assert.Equal(t, strings.TrimSpace(string(before)), strings.TrimSpace(string(after)), "the first thread stays as it was")
}

func TestDo_ReturnsTheError(t *testing.T) {
	broken := errors.New("broken")
	assert.ErrorIs(t, ownthread.Do(func() error { return broken }), broken)
}

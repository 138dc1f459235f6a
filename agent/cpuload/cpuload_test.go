package cpuload

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func mustLoadavg(t *testing.T, runnable string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "loadavg")
	require.NoError(t, os.WriteFile(file, []byte("0.50 0.40 0.30 "+runnable+"/1700 31531\n"), 0o644))
	return file
}

func TestWatch_TellsWhileFunctionsAreBusy(t *testing.T) {
	file := mustLoadavg(t, "13")
	synctest.Test(t, func(t *testing.T) {
		var share atomic.Int64 // of one CPU, in percent
		began := time.Now()
		var used time.Duration
		m := Meter{cpus: 2, loadavg: file, Logger: slog.New(slog.DiscardHandler), Used: func() (time.Duration, error) {
			used += time.Duration(share.Load()) * time.Since(began) / 100
			began = time.Now()
			return used, nil
		}}
		c := m.Watch(t.Context())
		time.Sleep(10 * time.Second)
		synctest.Wait()
		assert.Empty(t, c, "nothing is told while functions are quiet")
		share.Store(120)
		time.Sleep(time.Second)
		<-c // begun while they were still quiet
		time.Sleep(time.Second)
		load := <-c
		assert.Equal(t, 2, load.CPUs)
		assert.InDelta(t, 0.6, load.Functions, 0.01)
		assert.InDelta(t, 6, load.Runnable, 0.01, "this thread is left out")
		share.Store(0)
		time.Sleep(5 * time.Second)
		<-c
		time.Sleep(time.Second)
		load = <-c
		assert.Zero(t, load.Functions, "that it is over is told, too")
		time.Sleep(time.Minute)
		select {
		case <-c: // the last one
		default:
		}
		time.Sleep(time.Minute)
		assert.Empty(t, c)
	})
}

func TestWatch_NothingToRead_Ends(t *testing.T) {
	for _, m := range []Meter{
		{Used: func() (time.Duration, error) { return 0, errors.New("no such file") }},
		{Used: func() (time.Duration, error) { return 0, nil }, loadavg: "/nowhere"},
		{Used: func() (time.Duration, error) { return 0, nil }, loadavg: os.DevNull},
	} {
		m.Logger = slog.New(slog.DiscardHandler)
		_, open := <-m.Watch(t.Context())
		assert.False(t, open)
	}
}

// The files of this machine can be read.
func TestCount_ThisMachine(t *testing.T) {
	n, err := Meter{loadavg: "/proc/loadavg"}.count()
	require.NoError(t, err)
	assert.GreaterOrEqual(t, n, 0)
}

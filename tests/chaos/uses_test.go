package chaos

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native/process"
)

// use is what a process of the box has for itself, which grows when it forgets something.
type use struct {
	who                  process.Record
	descriptors, threads int
	residentMB           int
}

const (
	// moreDescriptors is how many a process may have more than before: connections that are kept for a while.
	moreDescriptors = 12
	// moreThreads and moreMB are what the runtime of Go may keep of a busy time.
	moreThreads, moreMB = 24, 64
	// usesLimit bounds the wait for what is closed behind a request.
	usesLimit = 2 * time.Minute
)

// watchedPrograms are those of the box that live as long as it does.
var watchedPrograms = []string{"gateway", "agent", "containerd", "stores", "esb"}

// readUse returns what a process has; an error that is fs.ErrNotExist says that it is gone.
func readUse(pid int) (use, error) {
	who, err := process.Identify(pid)
	if err != nil {
		return use{}, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	u := use{who: who, residentMB: residentMB(pid)}
	for name, to := range map[string]*int{"fd": &u.descriptors, "task": &u.threads} {
		list, err := os.ReadDir(filepath.Join("/proc", fmt.Sprint(pid), name))
		if err != nil {
			return use{}, err
		}
		*to = len(list)
	}
	return u, nil
}

// uses are those of the programs of which there is one process.
func (b *box) uses(t *testing.T) map[string]use {
	t.Helper()
	found := map[string]use{}
	for _, program := range watchedPrograms {
		pids := b.pids(t, program)
		if len(pids) != 1 {
			continue
		}
		u, err := readUse(pids[0])
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		require.NoError(t, err)
		found[program] = u
	}
	require.Contains(t, found, "gateway")
	require.Contains(t, found, "agent")
	return found
}

// checkUses waits until the processes of before have hardly more descriptors than they had, and looks at what else has grown.
func (b *box) checkUses(t *testing.T, p *part, before map[string]use) {
	t.Helper()
	var now map[string]use
	var text string
	same := assert.Eventually(quietly{}, func() bool {
		now = b.uses(t)
		var more []string
		for program, was := range before {
			if is, ok := now[program]; ok && is.who.StartTicks == was.who.StartTicks && is.descriptors > was.descriptors+moreDescriptors {
				more = append(more, fmt.Sprintf("%s %d instead of %d", program, is.descriptors, was.descriptors))
			}
		}
		text = strings.Join(more, ", ")
		return len(more) == 0
	}, usesLimit, time.Second)
	p.hold(t, same, "descriptors: %s", text)
	for _, program := range watchedPrograms {
		was, is := before[program], now[program]
		if was.who.PID == 0 || is.who.StartTicks != was.who.StartTicks {
			continue // it is another process
		}
		p.measure("%s: descriptors %d to %d, threads %d to %d, %d to %d MiB", program, was.descriptors, is.descriptors, was.threads, is.threads, was.residentMB, is.residentMB)
		p.target(t, is.threads <= was.threads+moreThreads, "%s has %d threads instead of %d", program, is.threads, was.threads)
		p.target(t, is.residentMB <= was.residentMB+moreMB, "%s has %d MiB instead of %d", program, is.residentMB, was.residentMB)
	}
}

// TestReadUse_CountsWhatAProcessHas, or the check above would see nothing.
func TestReadUse_CountsWhatAProcessHas(t *testing.T) {
	before, err := readUse(os.Getpid())
	require.NoError(t, err)
	for range moreDescriptors + 10 {
		f, err := os.Open("/dev/null")
		require.NoError(t, err)
		t.Cleanup(func() { _ = f.Close() })
	}
	now, err := readUse(os.Getpid())
	require.NoError(t, err)
	assert.Greater(t, now.descriptors, before.descriptors+moreDescriptors)
	assert.Positive(t, now.threads)
	assert.Positive(t, now.residentMB)
	assert.Equal(t, before.who.StartTicks, now.who.StartTicks)
	_, err = readUse(1 << 30)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

package machine

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestDescribe_SaysWhatThereIs(t *testing.T) {
	m := Describe()
	assert.Positive(t, m.Cores)
	assert.Positive(t, m.MemoryMB)
	assert.NotEmpty(t, m.Kernel)
	assert.Contains(t, m.Line(), m.Kernel)
}

func TestCPUTime_GrowsWithWork(t *testing.T) {
	before, err := CPUTime(os.Getpid())
	require.NoError(t, err)
	for n := 0; ; n++ {
		if n%1000 == 0 {
			now, err := CPUTime(os.Getpid())
			require.NoError(t, err)
			if now-before > time.Millisecond {
				break
			}
		}
	}
	gone := exec.Command("true")
	require.NoError(t, gone.Run())
	_, err = CPUTime(gone.Process.Pid)
	assert.Error(t, err, "it has ended")
}

func TestMemory_OfThisProcess(t *testing.T) {
	proportional, err := Proportional(os.Getpid())
	require.NoError(t, err)
	resident, err := Resident(os.Getpid())
	require.NoError(t, err)
	available, err := Available()
	require.NoError(t, err)
	assert.Greater(t, proportional, int64(1<<20))
	assert.GreaterOrEqual(t, resident+(16<<20), proportional)
	assert.Greater(t, available, int64(1<<20))
}

func TestChildren_KnowTheirParent(t *testing.T) {
	child := exec.Command("sleep", "60")
	require.NoError(t, child.Start())
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	children, err := Children(os.Getpid())
	require.NoError(t, err)
	assert.Contains(t, children, child.Process.Pid)
	parent, err := Parent(child.Process.Pid)
	require.NoError(t, err)
	assert.Equal(t, os.Getpid(), parent)
}

func TestTimes_Shares(t *testing.T) {
	before, err := parseTimes("cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 2 3\n")
	require.NoError(t, err)
	after, err := parseTimes("cpu  110 0 110 860 10 0 0 10 5 0\n")
	require.NoError(t, err)
	idle, stolen := after.Shares(before)
	assert.InDelta(t, 0.7, idle, 0.001)
	assert.InDelta(t, 0.1, stolen, 0.001)
	idle, stolen = before.Shares(before)
	assert.Equal(t, 1.0, idle)
	assert.Zero(t, stolen)
	_, err = parseTimes("intr 1 2\n")
	assert.Error(t, err)
}

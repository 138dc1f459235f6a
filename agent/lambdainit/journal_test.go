package lambdainit

import (
	"bytes"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestJournal_LinesThatMayWait_AreWrittenByFlushAndByClose(t *testing.T) {
	var out strings.Builder
	j := openJournal(&out, "f", "", 0, nil)
	j.platform(typeStart, "INFO", "first", nil)
	j.flush(time.Minute)
	assert.Contains(t, out.String(), `"message":"first"`)
	j.platform(typeEnd, "INFO", "second", nil)
	j.close(time.Minute)
	assert.Contains(t, out.String(), `"message":"second"`)
}

// disk is a file on a disk with room for some bytes.
type disk struct {
	mu   sync.Mutex
	data bytes.Buffer
	room int
}

func (d *disk) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := min(len(p), d.room)
	d.room -= n
	d.data.Write(p[:n])
	if n < len(p) {
		return n, syscall.ENOSPC
	}
	return n, nil
}

func (d *disk) free(room int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.room = room
}

func TestJournal_FullDisk_LosesLinesAndGoesOnWhenThereIsRoom(t *testing.T) {
	out := &disk{room: 200}
	told := make(chan int, 10)
	j := openJournal(out, "f", "", 0, func(lines int) { told <- lines })
	for range 500 {
		j.function("stdout", "", "", "while it is full", nil)
		j.flush(time.Minute)
	}
	assert.Empty(t, told)
	out.free(1 << 20)
	j.function("stdout", "", "", "there is room again", nil)
	lost := <-told
	assert.InDelta(t, 499, lost, 1)
	j.close(time.Minute)
	text := out.data.String()
	assert.Contains(t, text, `"message":"there is room again"`)
	assert.Contains(t, text, "log lines lost: "+itoa(lost))
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		assert.True(t, strings.HasPrefix(line, "{"), "line %d: %s", i, line)
	}
}

// hung is an output that takes nothing until it is let go.
type hung struct {
	disk
	let chan struct{}
}

func (h *hung) Write(p []byte) (int, error) {
	<-h.let
	return h.disk.Write(p)
}

func TestJournal_HungOutput_HoldsTheFunctionUpForAMomentOnly(t *testing.T) {
	out := &hung{disk: disk{room: 64 << 20}, let: make(chan struct{})}
	told := make(chan int, 10)
	j := openJournal(out, "f", "", 0, func(lines int) { told <- lines })
	line := strings.Repeat("x", 1000)
	began := time.Now()
	for range 20_000 {
		j.function("stdout", "", "", line, nil)
	}
	assert.Less(t, time.Since(began), 10*stuckLimit)
	close(out.let)
	assert.Greater(t, <-told, 19_000)
	j.close(time.Minute)
}

func TestPace_BoundsWhatIsWrittenASecond(t *testing.T) {
	p := newPace(1000)
	assert.Zero(t, p.take(2000))
	began := time.Now()
	p.since = began
	wait := p.take(3000)
	assert.LessOrEqual(t, wait, 3*time.Second)
	assert.GreaterOrEqual(t, wait+time.Since(began), 3*time.Second-time.Millisecond, "whatever time this takes on a busy machine")
	p.since = time.Now().Add(-time.Hour)
	assert.Zero(t, p.take(2000))
	p.end()
	p.wait(time.Hour)
	assert.Zero(t, newPace(0).take(1<<30))
}

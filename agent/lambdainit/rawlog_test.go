package lambdainit

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// failingLog is a log that takes room bytes, and the rest when it has been given more.
type failingLog struct {
	bytes.Buffer
	room int
}

func (f *failingLog) Write(p []byte) (int, error) {
	n := min(len(p), f.room)
	f.room -= n
	f.Buffer.Write(p[:n])
	if n < len(p) {
		return n, errors.New("no space left on device")
	}
	return n, nil
}

func TestRawLog_LogIsFull_SaysWhatWasLostAndGoesOn(t *testing.T) {
	out := &failingLog{room: 10}
	l := openRawLog(out, 0)
	settled := func(lost int) {
		t.Helper()
		require.Eventually(t, func() bool { return len(l.queue) == 0 && l.lostLines() == lost }, time.Minute, time.Millisecond)
	}
	l.add([]byte("one\ntwo\nthree\nfour\n"))
	settled(2)
	l.add([]byte("five\nsix\n"))
	settled(4)
	out.room = 1 << 20
	l.add([]byte("seven\n"))
	l.close(time.Minute)
	assert.Equal(t, "one\ntwo\nth\nlog output was stuck: log lines lost: 4\nseven\n", out.String())
}

// hangingLog takes nothing until it is closed.
type hangingLog chan struct{}

func (h hangingLog) Write(p []byte) (int, error) {
	<-h
	return len(p), nil
}

func TestRawLog_LogHangs_HoldsTheWriterUpOnce(t *testing.T) {
	hang := make(hangingLog)
	l := openRawLog(hang, 0)
	line := []byte("line\n")
	const lines = 3 * journalRoom / rawPiece
	begin := time.Now()
	for range lines {
		l.add(line)
	}
	took := time.Since(begin)
	assert.GreaterOrEqual(t, took, stuckLimit)
	assert.Equal(t, lines-journalRoom/rawPiece-1, l.lostLines())
	close(hang)
	l.close(time.Minute)
}

func TestRawLog_Pace_LosesNothing(t *testing.T) {
	out := &failingLog{room: 1 << 30}
	l := openRawLog(out, 32<<10)
	piece := bytes.Repeat([]byte("0123456789abcde\n"), rawPiece/16)
	const pieces = 8 // twice what may come at once
	for range pieces {
		l.add(piece)
	}
	assert.Zero(t, l.lostLines())
	l.close(time.Minute)
	assert.Equal(t, pieces*rawPiece, out.Len())
}

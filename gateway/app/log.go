package app

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/gateway/settings"
	"github.com/edge-serverless-box/esb/guard/logfile"
)

const (
	// flushInterval is how old a line of the access log may become before it is written.
	flushInterval = 100 * time.Millisecond
	// flushBytes is how much is gathered at most.
	flushBytes = 64 << 10
)

// openLog opens the log in ESB_LOG_DIR. Lines go to stdout too when that is something else: `esb up` has it lead to the
// same file.
func openLog(s settings.Settings, stdout io.Writer) (io.Writer, func() error, error) {
	file, err := logfile.OpenRotating(filepath.Join(s.LogDir, "gateway.log"), int64(s.ServiceLogMaxMB)<<20, 0o644, os.Stdout, os.Stderr)
	if err != nil {
		return nil, nil, fmt.Errorf("ESB_LOG_DIR: %w", err)
	}
	if f, ok := stdout.(*os.File); ok && file.Is(f) {
		return file, file.Close, nil
	}
	return io.MultiWriter(stdout, file), file.Close, nil
}

// lockedWriter lets two loggers write lines to one output.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

// Write implements io.Writer.
func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

// lineBuffer gathers whole lines and writes many at once, so that a request does not pay for a system call. A
// crash may lose the last flushInterval of them: it is for the access log alone.
type lineBuffer struct {
	out io.Writer

	// mu guards buf, err and closed. buf is swapped for spare by flush, which alone uses spare.
	mu     sync.Mutex
	buf    []byte
	err    error
	closed bool

	spare []byte
	full  chan struct{} // buf has passed flushBytes
	stop  chan struct{}
	done  chan struct{}
}

func newLineBuffer(out io.Writer) *lineBuffer {
	b := &lineBuffer{out: out, full: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go b.run()
	return b
}

// Write implements io.Writer; p is one line. It never blocks on the output: while that is stuck and the buffer is
// far over its size, lines are dropped.
func (b *lineBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || len(b.buf) > 16*flushBytes {
		return len(p), nil
	}
	b.buf = append(b.buf, p...)
	if len(b.buf) >= flushBytes {
		select {
		case b.full <- struct{}{}:
		default:
		}
	}
	return len(p), nil
}

func (b *lineBuffer) run() {
	defer close(b.done)
	tick := time.NewTicker(flushInterval)
	defer tick.Stop()
	for {
		select {
		case <-b.full:
		case <-tick.C:
		case <-b.stop:
			b.flush()
			return
		}
		b.flush()
	}
}

func (b *lineBuffer) flush() {
	b.mu.Lock()
	b.buf, b.spare = b.spare[:0], b.buf
	b.mu.Unlock()
	if len(b.spare) == 0 {
		return
	}
	if _, err := b.out.Write(b.spare); err != nil {
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
	}
}

// Close writes what is left. It returns the last error of the output.
func (b *lineBuffer) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	b.mu.Unlock()
	close(b.stop)
	<-b.done
	return b.err
}

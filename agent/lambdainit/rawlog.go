package lambdainit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// rawPiece is how much of the output of a program is read at once. A rawLog keeps journalRoom of it for a log that is slow.
const rawPiece = 16 << 10

// rawLog writes what a program writes to a log that may be slow, hang or fail, and holds nobody up for longer than stuckLimit: what does
// not fit is lost, and counted. add belongs to one goroutine.
type rawLog struct {
	out    io.Writer
	pace   *pace
	queue  chan []byte
	done   chan struct{}
	pacing atomic.Bool
	// stuck: the log has taken nothing for stuckLimit.
	stuck bool

	// mu guards lost, the ends of lines that were lost since it was last said.
	mu   sync.Mutex
	lost int
}

func openRawLog(out io.Writer, rate int) *rawLog {
	l := &rawLog{out: out, pace: newPace(rate), queue: make(chan []byte, journalRoom/rawPiece), done: make(chan struct{})}
	go l.write()
	return l
}

// add takes a piece of output.
func (l *rawLog) add(piece []byte) {
	select {
	case l.queue <- piece:
		l.stuck = false
		return
	default:
	}
	for !l.stuck {
		limit := time.NewTimer(stuckLimit)
		select {
		case l.queue <- piece:
			limit.Stop()
			return
		case <-limit.C:
			l.stuck = !l.pacing.Load()
		}
	}
	l.lose(piece)
}

func (l *rawLog) lose(piece []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost += max(bytes.Count(piece, []byte{'\n'}), 1)
}

func (l *rawLog) write() {
	defer close(l.done)
	torn := false // what was written last may end within a line
	for piece := range l.queue {
		if lost := l.lostLines(); lost > 0 {
			head := fmt.Appendf(nil, "log output was stuck: log lines lost: %d\n", lost)
			if torn {
				head = append([]byte{'\n'}, head...)
			}
			if n, err := l.out.Write(head); err != nil {
				torn = torn || n > 0
				l.lose(piece)
				continue
			}
			l.mu.Lock()
			l.lost -= lost
			l.mu.Unlock()
		}
		n, err := l.out.Write(piece)
		if torn = false; err != nil {
			// The disk is full, as a rule. The next piece is tried again.
			torn = n > 0 && piece[n-1] != '\n'
			l.lose(piece[n:])
		}
		if d := l.pace.take(n); d > 0 {
			l.pacing.Store(true)
			l.pace.wait(d)
			l.pacing.Store(false)
		}
	}
}

func (l *rawLog) lostLines() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// close writes what is queued. When the log takes nothing for limit, the rest is lost.
func (l *rawLog) close(limit time.Duration) {
	close(l.queue)
	l.pace.end()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-l.done:
	case <-t.C:
	}
}

// outputPipe brings what is written to a pipe to a rawLog.
type outputPipe struct {
	file *os.File
	done chan struct{}
}

// openOutputPipe makes a pipe and returns its write end, which the caller closes when a process has inherited it.
func openOutputPipe(log *rawLog) (*outputPipe, *os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make a pipe for the function's output: %w", err)
	}
	// Programs open their standard output once more, as /dev/stdout: the user that the function is may, too.
	if err := w.Chmod(0o622); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make a pipe for the function's output: %w", err), r.Close(), w.Close())
	}
	// The program expects a standard output that blocks.
	if err := syscall.SetNonblock(int(w.Fd()), false); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make a pipe for the function's output: %w", err), r.Close(), w.Close())
	}
	p := &outputPipe{file: r, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		buf := make([]byte, rawPiece)
		for {
			n, err := r.Read(buf)
			if n > 0 {
				log.add(bytes.Clone(buf[:n]))
			}
			if err != nil {
				return
			}
		}
	}()
	return p, w, nil
}

// close waits for the end of the pipe, at most for limit, and gives up what is still in it then.
func (p *outputPipe) close(limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
		_ = p.file.SetReadDeadline(time.Now())
		<-p.done
	}
	_ = p.file.Close()
}

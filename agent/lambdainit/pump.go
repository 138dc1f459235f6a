package lambdainit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/agent/loglevel"
)

const (
	// maxLine is the longest log line; a longer one is cut into pieces.
	maxLine = 256 << 10
	// minRead is the least room that a read is given.
	minRead = 4 << 10
	// maxRead is the room at which a buffer stops growing unless one line needs it (a pipe holds 64 KiB).
	maxRead = 64 << 10
)

// pump turns what the function writes to one pipe into log lines. Nothing is read ahead of what the journal
// takes: a function that writes too fast waits in its write call.
type pump struct {
	stream string
	// extension is the name of the extension that writes, empty for the function.
	extension string
	journal   *journal
	file      *os.File
	raw       syscall.RawConn
	stop      chan struct{}
	done      chan struct{}

	// lock guards buf and the reading of the pipe. It is a channel because drain stops waiting for it when the
	// log output is stuck.
	lock chan struct{}
	buf  []byte
	// frames says that the function may write frames, too. left is how much of the frame that has begun is still to come, what
	// is in buf included; level is that of the long event of which a piece is logged.
	frames  bool
	left    int
	level   string
	pending bool
	// logged counts events and pieces that the journal has taken.
	logged atomic.Uint64
}

// outputStreams are what a process writes, in the order of its descriptors.
var outputStreams = [...]string{"stdout", "stderr"}

// openPipe makes the pipe of a stream of the function's.
func openPipe(stream string) (r, w *os.File, err error) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make a pipe for the function's %s: %w", stream, err)
	}
	// Only the read end: the function expects a blocking standard output.
	if err := syscall.SetNonblock(fds[0], true); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make a pipe for the function's %s: %w", stream, err),
			syscall.Close(fds[0]), syscall.Close(fds[1]))
	}
	r, w = os.NewFile(uintptr(fds[0]), stream), os.NewFile(uintptr(fds[1]), stream)
	// Programs open their standard output once more, as /dev/stdout: the user that the function is may, too.
	if err := w.Chmod(0o622); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make a pipe for the function's %s: %w", stream, err), r.Close(), w.Close())
	}
	return r, w, nil
}

// openPump makes a pipe and returns its write end, which the caller closes when the process has inherited it. extension
// is empty for the function's own process.
func openPump(stream, extension string, j *journal) (*pump, *os.File, error) {
	r, w, err := openPipe(stream)
	if err != nil {
		return nil, nil, err
	}
	p, err := startPump(stream, extension, r, j)
	if err != nil {
		return nil, nil, errors.Join(err, w.Close())
	}
	return p, w, nil
}

// startPump takes over the read end of a pipe.
func startPump(stream, extension string, r *os.File, j *journal) (*pump, error) {
	p := &pump{
		stream: stream, extension: extension,
		journal: j,
		file:    r,
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
		lock:    make(chan struct{}, 1),
	}
	var err error
	if p.raw, err = p.file.SyscallConn(); err != nil {
		return nil, errors.Join(fmt.Errorf("read the function's %s: %w", stream, err), p.file.Close())
	}
	go p.run()
	return p, nil
}

// close waits for the end of the pipe, at most for limit, and gives up what is still in it then.
func (p *pump) close(limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
	}
	close(p.stop)
	_ = p.file.Close()
	<-p.done
}

func (p *pump) run() {
	defer close(p.done)
	for {
		var err error
		// The callback reads under lock, so that drain never finds a line between the pipe and the journal.
		waitErr := p.raw.Read(func(fd uintptr) bool {
			p.lock <- struct{}{}
			defer func() { <-p.lock }()
			_, err = p.read(int(fd), maxRead)
			if errors.Is(err, io.EOF) {
				p.flush(true)
			}
			return !errors.Is(err, syscall.EAGAIN)
		})
		if waitErr != nil || err != nil {
			return
		}
	}
}

// drain logs everything that the function had written when drain was called, a last line without its newline
// included. It gives up when the log output is stuck: when it has taken nothing for limit.
func (p *pump) drain(limit time.Duration) {
	if !p.await(limit) {
		return
	}
	defer func() { <-p.lock }()
	_ = p.raw.Control(func(fd uintptr) {
		// Counted first: a function that never stops writing must not keep the invocation from ending.
		left, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		for err == nil && left > 0 {
			var n int
			n, err = p.read(int(fd), left)
			left -= n
		}
	})
	p.flush(false)
}

// await takes lock, unless nothing is logged for limit. Who holds lock holds it for what one read has brought, however slow the
// machine is.
func (p *pump) await(limit time.Duration) bool {
	for {
		before := p.logged.Load()
		t := time.NewTimer(limit)
		select {
		case p.lock <- struct{}{}:
			t.Stop()
			return true
		case <-t.C:
		}
		if p.logged.Load() == before {
			return false
		}
	}
}

// read reads once, at most most bytes, and logs the lines that are complete. The caller holds lock.
func (p *pump) read(fd, most int) (int, error) {
	if cap(p.buf)-len(p.buf) < minRead {
		p.buf = append(make([]byte, 0, max(4*minRead, 2*cap(p.buf))), p.buf...)
	}
	room := p.buf[len(p.buf):cap(p.buf)]
	room = room[:min(len(room), most)]
	var n int
	for {
		var err error
		n, err = syscall.Read(fd, room)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return 0, err
		}
		break
	}
	if n == 0 {
		return 0, io.EOF
	}
	fresh := len(p.buf)
	p.buf = p.buf[:fresh+n]
	rest := copy(p.buf, p.buf[p.take(fresh):])
	p.buf = p.buf[:rest]
	if rest == 0 && cap(p.buf) > maxRead {
		p.buf = nil
	}
	return n, nil
}

// take logs what is complete in buf, of which the first seen bytes were looked at before, and returns how much that is.
func (p *pump) take(seen int) int {
	start := 0
	for {
		if p.left > 0 {
			n := min(len(p.buf)-start, p.left)
			switch {
			case n == p.left && n <= maxLine:
				p.emit(bytes.TrimSuffix(p.buf[start:start+n], []byte{'\n'}), true)
			case n > maxLine:
				n = cut(p.buf[start:])
				p.emit(p.buf[start:start+n], false)
			default:
				return start
			}
			start, p.left = start+n, p.left-n
			continue
		}
		text := p.buf[start:]
		from := min(max(seen-start, 0), len(text))
		end, next := bytes.IndexByte(text[from:], '\n'), -1
		if end >= 0 {
			end += from
		}
		if p.frames {
			// Its head may have come in two pieces.
			next = frameIn(text, max(from-frameHead, 0), end)
		}
		switch {
		case next >= 0:
			size, level, length, ok := readFrame(text[next:])
			if !ok {
				return start // until its head is complete
			}
			if next > 0 {
				p.emit(text[:next], true) // a line without its end
			}
			start, p.left, p.level, p.pending = start+next+size, length, level, level != ""
			if length == 0 {
				p.pending = false
			}
		case end >= 0:
			p.emitLine(text[:end])
			start += end + 1
		case len(text) > maxLine:
			n := cut(text)
			p.emit(text[:n], false)
			start += n
		default:
			return start
		}
	}
}

// flush logs a line that has no newline yet; whole says that nothing comes any more, so that a frame must do as it is.
func (p *pump) flush(whole bool) {
	if len(p.buf) > 0 && (whole || p.left == 0) {
		p.emitLine(p.buf)
		p.buf, p.left = p.buf[:0], 0
	}
}

// emitLine logs a line, in pieces when it is too long.
func (p *pump) emitLine(line []byte) {
	line = bytes.TrimSuffix(line, []byte{'\r'})
	for len(line) > maxLine {
		n := cut(line)
		p.emit(line[:n], false)
		line = line[n:]
	}
	p.emit(line, true)
}

// emit logs an event, or a piece of one; last says that it ends with it. All pieces have the level of the first.
func (p *pump) emit(piece []byte, last bool) {
	text := string(piece)
	if !p.pending {
		p.level = loglevel.Of(text)
	}
	p.pending = !last
	p.journal.function(p.stream, p.extension, p.level, text, p.stop)
	p.logged.Add(1)
}

// cut returns how much of a line longer than maxLine makes the next piece: not in the middle of a character.
func cut(line []byte) int {
	for n := maxLine; n > maxLine-utf8.UTFMax; n-- {
		if utf8.RuneStart(line[n]) {
			return n
		}
	}
	return maxLine
}

package invoke

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/guard/rawconn"
)

const (
	// smallRequest is the size in bytes up to which a request goes out in one piece, copied, in one write.
	smallRequest = 16 << 10
	readBuffer   = 16 << 10
	// movePatience is how long an invocation may still be sent, or its answer still be read, when the caller has left.
	movePatience = time.Second
)

var (
	// errGuard: the worker did not answer within the guard, function timeout and margin together.
	errGuard = errors.New("no answer in time")
	// errLeft: the caller has left while the function works.
	errLeft = errors.New("the caller has left")
	// errLinkClosed: the pool has given the worker up.
	errLinkClosed = errors.New("the worker was given up")

	longAgo = time.Unix(1, 0)
)

// unreachedError says that not one byte of the invocation has reached the worker, so that another one may have it.
type unreachedError struct{ err error }

func (e *unreachedError) Error() string { return "not reached: " + e.err.Error() }
func (e *unreachedError) Unwrap() error { return e.err }

// link is the one connection to a worker. It is attached to the worker, so that only the holder of the lease uses
// it, within the holder's own goroutine: net/http's client hands each request through two more, which costs about
// as much as all the rest of a warm invocation (BenchmarkInvoke_Warm against BenchmarkNetHTTP_Warm).
type link struct {
	addr string
	// container is whose the address is, as far as the pool knows: every request names it.
	container string
	dial      func(ctx context.Context, network, addr string) (net.Conn, error)

	in  *bufio.Reader
	out []byte
	// connected, when it is not nil, is called when the connection for the invocation that is to come stands.
	connected func()
	// memory is for the result of the invocation that runs.
	memory room

	// mu guards the following against Close and callerLeft, which come from other goroutines; the rest is the holder's.
	mu     sync.Mutex
	conn   net.Conn
	closed bool
	// turn counts exchanges; phase, left, tied and guard are the current one's.
	turn  uint64
	phase phase
	left  bool
	tied  bool
	guard time.Time
}

// Close implements io.Closer: it ends the connection, and an exchange that runs on it, for good.
func (l *link) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.conn == nil {
		return nil
	}
	return l.conn.Close()
}

// phase is what an exchange waits for, as far as its caller's leaving is concerned.
type phase uint8

const (
	phaseNone phase = iota
	// phaseMoving: the invocation is being sent, or its answer being read. Both take a moment.
	phaseMoving
	// phaseWaiting: the function has the invocation, and nothing of its answer is there.
	phaseWaiting
)

// roundTrip sends inv and reads the reply: the whole of it, but for the body of one that streams when stream is set
// (reply.streamed). deadline is when the function must have answered, as it is told. It ends at guard, then with errGuard.
// When ctx ends while the function works, it returns errLeft and leaves the exchange as it is, for rest; with tied it breaks
// the exchange off. After an error other than errLeft and *unreachedError, the worker may or may not have run the invocation.
func (l *link) roundTrip(ctx context.Context, guard time.Time, inv *gateway.Invocation, deadline time.Time, stream, tied bool) (reply, error) {
	conn, err := l.connect(ctx, guard)
	if err != nil {
		return reply{}, &unreachedError{err}
	}
	if l.connected != nil {
		l.connected()
	}
	l.mu.Lock()
	l.turn++
	turn := l.turn
	l.phase, l.left, l.tied, l.guard = phaseMoving, false, tied, guard
	l.mu.Unlock()
	// After the guard was set, never before: this one must win.
	stop := context.AfterFunc(ctx, func() { l.callerLeft(turn) })
	rep, keep, err := l.exchange(ctx, conn, inv, deadline, stream)
	stop()
	l.enter(phaseNone)
	if errors.Is(err, errLeft) && !tied {
		return rep, err
	}
	return rep, l.ended(conn, keep || rep.streamed, err)
}

// enter begins another phase and says whether the caller has left.
func (l *link) enter(next phase) (left bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phase = next
	return l.left
}

// callerLeft is called when the context of an exchange has ended.
func (l *link) callerLeft(turn uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.turn != turn || l.conn == nil || l.phase == phaseNone {
		return // of an exchange that is over
	}
	l.left = true
	switch soon := time.Now().Add(movePatience); {
	case l.tied:
		_ = l.conn.SetDeadline(longAgo)
	case l.phase == phaseWaiting:
		_ = l.conn.SetReadDeadline(longAgo)
	case soon.Before(l.guard):
		_ = l.conn.SetDeadline(soon)
	}
}

// ended looks after the connection when an exchange has ended, and names the guard's error.
func (l *link) ended(conn net.Conn, keep bool, err error) error {
	if err != nil || !keep {
		l.drop(conn)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errGuard
	case err != nil && l.isClosed() && !errors.Is(err, errLinkClosed):
		return fmt.Errorf("%w: %w", errLinkClosed, err)
	}
	return err
}

func (l *link) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// resume returns the connection of an exchange that goes on without its caller, with guard as its deadline.
func (l *link) resume(guard time.Time) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.conn == nil {
		return nil, errLinkClosed
	}
	// A connection that its other end has closed refuses a deadline, and may still hold what came before.
	_ = l.conn.SetDeadline(guard)
	return l.conn, nil
}

// breakOff ends what is going on at the connection.
func (l *link) breakOff() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		_ = l.conn.SetDeadline(longAgo)
	}
}

// streamed looks after the connection when a stream has ended with err.
func (l *link) streamed(keep bool, err error) error {
	l.mu.Lock()
	conn := l.conn
	l.mu.Unlock()
	if conn == nil {
		return errors.Join(err, errLinkClosed)
	}
	return l.ended(conn, keep && l.in.Buffered() == 0, err)
}

// rest reads the reply of an exchange that roundTrip has ended with errLeft, and throws away what is not small of it.
func (l *link) rest(guard time.Time) (reply, error) {
	conn, err := l.resume(guard)
	if err != nil {
		return reply{}, err
	}
	rep, keep, err := readReply(l.in, false, &room{full: true})
	if err != nil {
		err = fmt.Errorf("reading the answer: %w", err)
	}
	return rep, l.ended(conn, keep && l.in.Buffered() == 0, err)
}

// settle waits, at most until limit, until the worker has ended its last invocation: it serves one request after the other
// on its connection.
func (l *link) settle(limit time.Time) error {
	conn, err := l.connect(context.Background(), limit)
	if err != nil {
		return err
	}
	if _, err = conn.Write([]byte("GET /health HTTP/1.1\r\nHost: " + l.addr + "\r\n" + headerContainer + ": " + l.container + "\r\n\r\n")); err == nil {
		var rep reply
		var keep bool
		rep, keep, err = readReply(l.in, false, nil)
		switch {
		case err == nil && rep.status != http.StatusOK:
			err = fmt.Errorf("status %d", rep.status)
		case err == nil && keep:
			return nil
		}
	}
	l.drop(conn)
	return err
}

// connect returns the connection to use, with guard as its deadline: the last one when it is still good, else a
// new one.
func (l *link) connect(ctx context.Context, guard time.Time) (net.Conn, error) {
	l.mu.Lock()
	conn, closed := l.conn, l.closed
	l.mu.Unlock()
	if closed {
		return nil, errLinkClosed
	}
	if conn != nil {
		if conn.SetDeadline(guard) == nil && quiet(conn) {
			return conn, nil
		}
		// The worker has closed it since, which is its right: nothing was sent, nothing is lost.
		l.drop(conn)
	}
	dialCtx, cancel := context.WithDeadline(ctx, guard)
	defer cancel()
	conn, err := l.dial(dialCtx, "tcp", l.addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = conn.Close()
		return nil, errLinkClosed
	}
	if err := conn.SetDeadline(guard); err != nil {
		_ = conn.Close()
		return nil, err
	}
	l.conn = conn
	if l.in == nil {
		l.in = bufio.NewReaderSize(conn, readBuffer)
	} else {
		l.in.Reset(conn)
	}
	return conn, nil
}

func (l *link) drop(conn net.Conn) {
	_ = conn.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == conn {
		l.conn = nil
	}
}

// quiet is true when conn is open and has nothing to read: one system call, no waiting.
func quiet(conn net.Conn) bool {
	c, ok := conn.(*rawconn.Conn)
	return !ok || c.Quiet()
}

// exchange writes the request and reads the reply; keep is true when conn can be used again.
func (l *link) exchange(ctx context.Context, conn net.Conn, inv *gateway.Invocation, deadline time.Time, stream bool) (rep reply, keep bool, err error) {
	b := l.out[:0]
	b = append(b, "POST /2015-03-31/functions/function/invocations HTTP/1.1\r\nHost: "...)
	b = append(b, l.addr...)
	b = append(b, "\r\nContent-Type: application/json\r\nLambda-Runtime-Deadline-Ms: "...)
	b = strconv.AppendInt(b, deadline.UnixMilli(), 10)
	b = appendHeader(b, headerContainer, l.container)
	b = appendHeader(b, "X-Amzn-RequestId", inv.RequestID)
	b = appendHeader(b, "X-Amzn-Trace-Id", inv.TraceID)
	b = appendHeader(b, "X-Amz-Client-Context", inv.ClientContext)
	b = appendHeader(b, headerQualifier, inv.Qualifier)
	if inv.LogTail {
		b = appendHeader(b, "X-Amz-Log-Type", "Tail")
	}
	if stream {
		b = appendHeader(b, headerInvokeMode, modeStream)
	}
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(inv.Payload)), 10)
	b = append(b, "\r\n\r\n"...)

	var written int64
	if len(b)+len(inv.Payload) <= smallRequest {
		b = append(b, inv.Payload...)
		var n int
		n, err = conn.Write(b)
		written = int64(n)
	} else {
		pieces := net.Buffers{b, inv.Payload}
		written, err = pieces.WriteTo(conn)
	}
	l.out = b[:0]
	if err != nil {
		// Another's container says so without reading what comes: the rest of a large event finds no taker then.
		if written > 0 {
			if rep, _, readErr := readReply(l.in, false, nil); readErr == nil && rep.status == http.StatusMisdirectedRequest {
				return rep, false, nil
			}
		}
		err = fmt.Errorf("sending the invocation: %w", err)
		if written == 0 {
			err = &unreachedError{err}
		}
		return rep, false, err
	}
	if err := l.await(); err != nil {
		return rep, false, err
	}
	l.memory = room{ctx: ctx, claim: inv.Memory}
	rep, keep, err = readReply(l.in, stream, &l.memory)
	l.memory = room{}
	if err != nil {
		return rep, false, fmt.Errorf("reading the answer: %w", err)
	}
	if rep.streamed {
		return rep, keep, nil
	}
	// Bytes after the answer would be taken for the next one.
	return rep, keep && l.in.Buffered() == 0, nil
}

// await waits for the first byte of the answer: the one point at which the caller can leave an exchange that goes on.
func (l *link) await() error {
	left := l.enter(phaseWaiting)
	var err error
	if !left {
		_, err = l.in.Peek(1)
		left = l.enter(phaseMoving)
	}
	switch {
	case left && (err == nil || errors.Is(err, os.ErrDeadlineExceeded)):
		return errLeft
	case err != nil:
		return fmt.Errorf("reading the answer: %w", cutOff(err))
	}
	return nil
}

func appendHeader(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, "\r\n"...)
	b = append(b, name...)
	b = append(b, ": "...)
	return append(b, value...)
}

// Package upload bounds how long the body of a request may take to arrive, and ends requests that are answered before
// it has: such an answer must not wait for a body that may never come.
//
// net/http reads up to 256 KB of an unread body before it sends the answer, without any deadline of its own; a client
// that announces a body and sends none so keeps a connection, and gets no answer, for as long as it likes.
package upload

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// What becomes of an unread body when the request is answered.
const (
	// small is how much of a body is read to keep the connection, for clients that send a whole request and then look at
	// the answer. It is as much as they send at once.
	small = 64 << 10
	// grace is how long the rest of a small body may take.
	grace = 25 * time.Millisecond
	// linger is how long a client gets to take the answer, and to stop sending, before the connection is closed.
	linger = 500 * time.Millisecond
	// step is after how many bytes the deadline of a long upload is put off.
	step = 64 << 10
)

// Limits of a body.
type Limits struct {
	// Within is how long a body may take.
	Within time.Duration
	// BytesPerSecond, when not 0, gives more time for more bytes: a body must not be slower than that after Within. It is
	// for listeners that take bodies of any size.
	BytesPerSecond int64
}

// Handler returns next with bodies that keep to l. The deadline stands from the request's headers until the body has been
// read; one that passed ends the body with os.ErrDeadlineExceeded. An answer that comes first, whatever it is, ends the
// request: what is there of a small body is read, else the connection is closed with the answer.
//
// A connection of HTTP/1 is closed after a chunked body, too. When a length came with it, that is what must be done
// (RFC 9112, 6.3): a proxy may have counted by the length, and net/http does not tell whether one came.
//
// A request without a body costs nothing.
func Handler(l Limits, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body == nil || r.Body == http.NoBody {
			next.ServeHTTP(w, r)
			return
		}
		u := &upload{
			ResponseWriter: w, control: http.NewResponseController(w), limits: l, body: r.Body,
			announced: r.ContentLength, http1: r.ProtoMajor == 1, chunked: len(r.TransferEncoding) > 0, expect: r.Header.Get("Expect") != "", start: time.Now(),
		}
		_ = u.control.SetReadDeadline(u.start.Add(l.Within)) // not every ResponseWriter of a test can
		r.Body = (*body)(u)
		next.ServeHTTP(u, r)
		u.settle()
		// By its own body the server sees that bytes are left unread. It then ends its side of the connection first and waits a
		// moment before it closes: a connection that is closed at once is reset, and the answer is lost to a client that still sends.
		r.Body = u.body
	})
}

// upload is the answer of one request, and its body.
type upload struct {
	http.ResponseWriter
	control   *http.ResponseController
	limits    Limits
	announced int64
	http1     bool
	chunked   bool
	expect    bool
	start     time.Time
	// settled says that it has been decided what becomes of the body.
	settled atomic.Bool
	// done says that the body has been read to its end.
	done atomic.Bool

	// mu guards what follows: proxies read in a goroutine of their own.
	mu   sync.Mutex
	body io.ReadCloser
	read int64
	next int64
}

// body is the request's side of an upload.
type body upload

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	u := (*upload)(b)
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.readLocked(p)
}

// Close implements io.Closer. The server closes the body itself; until then it must stay readable.
func (b *body) Close() error { return nil }

func (u *upload) readLocked(p []byte) (int, error) {
	n, err := u.body.Read(p)
	u.read += int64(n)
	switch {
	case errors.Is(err, io.EOF):
		if !u.done.Swap(true) {
			// From here on the connection is read to notice that the client leaves, for as long as a function may run.
			_ = u.control.SetReadDeadline(time.Time{})
		}
	case err == nil && u.limits.BytesPerSecond > 0 && u.read >= u.next && !u.settled.Load():
		u.next = u.read + step
		more := time.Duration(float64(u.read) / float64(u.limits.BytesPerSecond) * float64(time.Second))
		_ = u.control.SetReadDeadline(u.start.Add(u.limits.Within + more))
	}
	return n, err
}

// settle decides, once and before anything is answered, whether the connection can be kept.
func (u *upload) settle() {
	if u.settled.Swap(true) || !u.http1 {
		// A stream of HTTP/2 is reset by the server, and its connection goes on.
		return
	}
	if u.chunked {
		u.Header()["Connection"] = []string{"close"}
	}
	if u.done.Load() {
		return
	}
	// Before mu is taken, so that a proxy's reader lets go of it.
	_ = u.control.SetReadDeadline(time.Now().Add(grace))
	if u.finish() {
		_ = u.control.SetReadDeadline(time.Time{})
		return
	}
	u.Header()["Connection"] = []string{"close"}
	// For the server's own reading, once the answer is out.
	_ = u.control.SetReadDeadline(time.Now().Add(linger))
}

// finish reads the rest of a small body, and says whether that was all.
func (u *upload) finish() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.done.Load():
		return true
	case u.expect && u.read == 0:
		// The client waits for leave to send, which reading would give.
		return false
	case u.announced-u.read > small:
		return false
	}
	rest := make([]byte, 4<<10)
	for left := small; left > 0 && !u.done.Load(); {
		n, err := u.readLocked(rest[:min(len(rest), left)])
		if left -= n; err != nil {
			break
		}
	}
	return u.done.Load()
}

// WriteHeader implements http.ResponseWriter.
func (u *upload) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		u.settle()
	}
	u.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (u *upload) Write(p []byte) (int, error) {
	u.settle()
	return u.ResponseWriter.Write(p)
}

// FlushError is for http.ResponseController: what is flushed is an answer.
func (u *upload) FlushError() error {
	u.settle()
	return u.control.Flush()
}

// Unwrap is for http.ResponseController.
func (u *upload) Unwrap() http.ResponseWriter { return u.ResponseWriter }

package http1

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxChunkLine bounds the line before a chunk, and maxExtensions what all of a body have beyond their sizes, in bytes.
	maxChunkLine, maxExtensions = 512, 16 << 10
	// maxTrailer bounds the trailers of a body, in bytes.
	maxTrailer = 4 << 10
	// onePiece is how long head and body of an answer may be to go out as a copy, in one write.
	onePiece = 16 << 10
)

// Methods. net/http has them too, and costs a process that needs no more of it 3 MB.
const (
	MethodGet  = "GET"
	MethodHead = "HEAD"
	MethodPost = "POST"
	MethodPut  = "PUT"
)

// Field is a field of a head or of a trailer.
type Field struct{ Name, Value string }

// Exchange is one request and its answer. It belongs to the handler's goroutine, or to whom the handler gives it and waits for.
type Exchange struct {
	// c never changes: Deliver reads it from other goroutines.
	c *conn
	state
}

// state is what an Exchange has of one request.
type state struct {
	// Method is as it was sent; Path is decoded, Query is not.
	Method, Path, Query string
	// ContentLength is the length of the body in bytes, -1 when it comes in chunks.
	ContentLength int64

	fields  []Field
	trailer []Field
	http10  bool
	// last says that the connection ends after the answer.
	last bool
	// chunked bodies have left bytes of a chunk to come, others left of all; done says that all has come. inChunk says that the end of
	// a chunk is to come; extensions counts what chunks had beyond their sizes.
	chunked, inChunk, done bool
	left                   int64
	extensions             int
	bodyErr                error
	// expects says that the client waits to be told to send the body.
	expects bool
	// answered says that the answer has begun, streaming that it is sent in chunks, broken that it cannot be ended.
	answered, streaming, broken bool
	// watched is closed when the watcher of the connection has ended.
	watched chan struct{}
	lost    error
}

func (x *Exchange) reset() {
	clear(x.fields)
	x.state = state{fields: x.fields[:0]}
}

// Header returns the value of the first field of that name, "" for none.
func (x *Exchange) Header(name string) string { return first(x.fields, name) }

// Only returns the value of the one field of that name; false for none, and for more than one.
func (x *Exchange) Only(name string) (value string, ok bool) {
	for n := range x.fields {
		if f := &x.fields[n]; len(f.Name) == len(name) && strings.EqualFold(f.Name, name) {
			if ok {
				return "", false
			}
			value, ok = f.Value, true
		}
	}
	return value, ok
}

// Trailer is Header for the trailers of a body in chunks, when all of it is read.
func (x *Exchange) Trailer(name string) string { return first(x.trailer, name) }

func first(list []Field, name string) string {
	for n := range list {
		if f := &list[n]; len(f.Name) == len(name) && strings.EqualFold(f.Name, name) {
			return f.Value
		}
	}
	return ""
}

// SetReadDeadline bounds the reading of the body; the zero time does not. Who sets one takes it back.
func (x *Exchange) SetReadDeadline(t time.Time) { _ = x.c.nc.SetReadDeadline(t) }

// SetWriteDeadline bounds the writing of pieces of an answer; any goroutine may call it. End takes it back.
func (x *Exchange) SetWriteDeadline(t time.Time) { _ = x.c.nc.SetWriteDeadline(t) }

// Buffered says that the whole body has come already, so that reading it waits for nobody.
func (x *Exchange) Buffered() bool {
	return x.done || !x.chunked && int64(x.c.w-x.c.r) >= x.left
}

// Read implements io.Reader: the body.
func (x *Exchange) Read(p []byte) (int, error) {
	if x.bodyErr != nil {
		return 0, x.bodyErr
	}
	n, err := x.read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		x.bodyErr = err
	}
	return n, err
}

func (x *Exchange) read(p []byte) (int, error) {
	if x.expects && !x.done {
		x.expects = false
		if _, err := x.c.nc.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
			return 0, err
		}
	}
	if x.chunked && x.left == 0 && !x.done {
		if err := x.nextChunk(); err != nil {
			return 0, err
		}
	}
	if x.done {
		return 0, io.EOF
	}
	n, err := x.c.read(p[:min(int64(len(p)), x.left)])
	x.left -= int64(n)
	x.done = !x.chunked && x.left == 0
	if n > 0 {
		err = nil
	}
	return n, cutOff(err)
}

// nextChunk reads the line before a chunk, and what ends the one before; behind the last chunk, the trailers.
func (x *Exchange) nextChunk() error {
	if x.inChunk {
		if line, err := x.c.line(2); err != nil {
			return err
		} else if len(line) > 0 {
			return errors.New("a chunk is longer than its size")
		}
		x.inChunk = false
	}
	line, err := x.c.line(maxChunkLine)
	if err != nil {
		return err
	}
	digits := 0
	for digits < len(line) && digits <= 15 {
		b := line[digits]
		switch {
		case b >= '0' && b <= '9':
			b -= '0'
		case b|0x20 >= 'a' && b|0x20 <= 'f':
			b = b | 0x20 - 'a' + 10
		default:
			b = 0xff
		}
		if b == 0xff {
			break
		}
		x.left = x.left<<4 | int64(b)
		digits++
	}
	rest := line[digits:]
	if len(bytes.Trim(rest, " \t")) == 0 {
		rest = nil
	}
	x.extensions += len(line) - digits
	if digits == 0 || digits > 15 || len(rest) > 0 && rest[0] != ';' || x.extensions > maxExtensions {
		x.left = 0
		return errors.New("malformed chunk size")
	}
	x.inChunk = x.left > 0
	if x.left == 0 {
		return x.readTrailer()
	}
	return nil
}

func (x *Exchange) readTrailer() error {
	for size := 0; ; {
		line, err := x.c.line(maxTrailer)
		if err == nil && size+len(line) > maxTrailer {
			err = fmt.Errorf("trailers of more than %d bytes", maxTrailer)
		}
		if err != nil {
			return err
		}
		if len(line) == 0 {
			x.done = true
			return nil
		}
		size += len(line) + 2
		if x.trailer, err = parseFields(x.trailer, string(line)+"\r\n\r\n"); err != nil {
			return err
		}
	}
}

// Status begins the answer, whose fields Set adds.
func (x *Exchange) Status(code int) { x.c.out = x.appendStatus(x.c.out[:0], code) }

// AppendStatus appends what an answer begins with, for Deliver; AppendField appends what follows, and an empty line must end it.
func (x *Exchange) AppendStatus(b []byte, code int) []byte {
	b = x.appendStatus(b, code)
	if x.last {
		b = append(b, "Connection: close\r\n"...)
	}
	return b
}

func (x *Exchange) appendStatus(b []byte, code int) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(code), 10)
	b = append(append(b, ' '), reasons[code]...)
	b = append(b, "\r\n"...)
	if x.c.server.Date {
		b = append(x.c.server.date.append(append(b, "Date: "...)), "\r\n"...)
	}
	return b
}

// reasons are the phrases of the answers that there are.
var reasons = map[int]string{
	200: "OK", 202: "Accepted", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 409: "Conflict",
	413: "Request Entity Too Large", 417: "Expectation Failed", 421: "Misdirected Request", 431: "Request Header Fields Too Large",
	501: "Not Implemented", 503: "Service Unavailable", 505: "HTTP Version Not Supported",
}

// Set adds a field. What would end it becomes a space.
func (x *Exchange) Set(name, value string) { x.c.out = AppendField(x.c.out, name, value) }

// AppendField appends a field and the end of its line. What would end its value becomes a space.
func AppendField(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	start := len(b)
	b = append(b, value...)
	for n, v := range b[start:] {
		if v < ' ' && v != '\t' || v == 0x7f {
			b[start+n] = ' '
		}
	}
	return append(b, "\r\n"...)
}

// CloseAfter has the connection end with the answer.
func (x *Exchange) CloseAfter() { x.last = true }

// Send ends the answer with a body.
func (x *Exchange) Send(body []byte) {
	b := x.c.out
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\n"...)
	b = x.endHead(b)
	if x.Method == MethodHead {
		body = nil
	}
	if len(b)+len(body) <= onePiece {
		b, body = append(b, body...), nil
	}
	err := x.c.send(b, body)
	x.c.out, x.answered, x.broken = b[:0], true, err != nil
}

func (x *Exchange) endHead(b []byte) []byte {
	// A body of which too much is left will not be read: the client must not send another request behind it.
	if x.last || x.expects || x.bodyErr != nil || !x.done && (x.chunked || x.left > discardLimit) {
		x.last = true
		b = append(b, "Connection: close\r\n"...)
	}
	return append(b, "\r\n"...)
}

// CanStream says whether the client knows chunks.
func (x *Exchange) CanStream() bool { return !x.http10 && x.Method != MethodHead }

// Stream sends the head of an answer whose body follows by Chunk and End.
func (x *Exchange) Stream() error {
	b := x.endHead(append(x.c.out, "Transfer-Encoding: chunked\r\n"...))
	_, err := x.c.nc.Write(b)
	x.c.out, x.answered, x.streaming, x.broken = b[:0], true, true, err != nil
	return err
}

// Chunk sends a piece of the body, which must not be empty.
func (x *Exchange) Chunk(p []byte) error {
	if x.broken {
		return net.ErrClosed
	}
	b := append(strconv.AppendInt(x.c.out[:0], int64(len(p)), 16), "\r\n"...)
	pieces := net.Buffers{b, p, []byte("\r\n")}
	x.c.out = b[:0]
	_, err := pieces.WriteTo(x.c.nc)
	x.broken = err != nil
	return err
}

// End ends an answer in chunks.
func (x *Exchange) End(trailer []Field) {
	if x.broken {
		return
	}
	b := x.c.out[:0]
	b = append(b, "0\r\n"...)
	for _, f := range trailer {
		b = AppendField(b, f.Name, f.Value)
	}
	b = append(b, "\r\n"...)
	x.SetWriteDeadline(time.Time{}) // of whoever broke the stream off
	err := x.c.send(b, nil)
	x.c.out, x.broken = b[:0], err != nil
}

// Plain answers with a line of text.
func (x *Exchange) Plain(status int, text string) {
	x.Status(status)
	x.plain(text)
}

func (x *Exchange) plain(text string) {
	x.Set("Content-Type", "text/plain; charset=utf-8")
	x.Set("X-Content-Type-Options", "nosniff")
	x.Send([]byte(text + "\n"))
}

// NotAllowed refuses the method, where only method is.
func (x *Exchange) NotAllowed(method string) {
	x.Status(405)
	x.Set("Allow", method)
	x.plain("Method Not Allowed")
}

func (x *Exchange) refuse(r *refusal) {
	x.last = true
	x.Plain(r.status, strconv.Itoa(r.status)+" "+reasons[r.status]+": "+r.reason)
}

// Await waits until the client sends something behind the request, or leaves, which is the error. Meanwhile another goroutine may
// Claim the exchange, and then Deliver the answer.
func (x *Exchange) Await() error {
	if !x.done && !x.c.discard(x) {
		return errors.New("the body of the request was not read")
	}
	if x.c.r < x.c.w {
		return nil
	}
	return x.c.fill()
}

// Claim says that the caller, another goroutine than the exchange's own, will Deliver its answer: from now on the exchange stays as it
// is until that is sent. Whoever waits in Await has to learn of it before it calls Answered.
func (x *Exchange) Claim() { x.c.sending.Add(1) }

// Answered waits until the answer is sent that another goroutine has claimed to deliver: a client may send its next request before it
// has the answer to this one, and its answers must not mix.
func (x *Exchange) Answered() {
	x.c.sending.Wait()
	x.answered = true
}

// Deliver sends an answer, head and body, for an exchange that the caller has claimed. It waits for nobody: what the client does not
// take at once is sent by a goroutine of its own. sent is called when nothing of it is needed any more.
func (x *Exchange) Deliver(head, body []byte, sent func()) {
	c, last := x.c, x.last
	n := c.take(head, body)
	if n == len(head)+len(body) {
		if last {
			c.endWriting()
		}
		sent()
		c.sending.Done()
		return
	}
	// head is its owner's when this returns, body when sent is called.
	rest := slices.Clone(head[min(n, len(head)):])
	body = body[max(n-len(head), 0):]
	go func() {
		defer c.sending.Done()
		defer sent()
		pieces := net.Buffers{rest, body}
		if _, err := pieces.WriteTo(c.nc); err != nil {
			_ = c.nc.Close()
		} else if last {
			c.endWriting()
		}
	}()
}

// Watch returns a channel that is closed when the client leaves before the answer has ended. The request must be read, and the answer
// be neither awaited nor delivered.
func (x *Exchange) Watch() <-chan struct{} {
	gone := make(chan struct{})
	if x.c.r < x.c.w {
		return gone // it has sent more, and is taken to wait
	}
	x.watched = make(chan struct{})
	go func() {
		defer close(x.watched)
		if x.lost = x.c.fill(); x.lost != nil && !timedOut(x.lost) {
			close(gone)
		}
	}()
	return gone
}

// unwatch ends the watcher and says whether the client is still there.
func (x *Exchange) unwatch() bool {
	if x.watched == nil {
		return true
	}
	_ = x.c.nc.SetReadDeadline(longAgo)
	<-x.watched
	x.watched = nil
	return (x.lost == nil || timedOut(x.lost)) && x.c.nc.SetReadDeadline(time.Time{}) == nil
}

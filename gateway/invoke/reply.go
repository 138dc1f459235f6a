package invoke

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

const (
	// maxHeader bounds the head of an answer, in bytes; a line may have readBuffer bytes.
	maxHeader = 64 << 10
	// maxInterim bounds the interim (1xx) answers before the real one.
	maxInterim = 8
)

// errTooLarge: the body is over MaxResult.
var errTooLarge = errors.New("answer over the limit")

// reply is an HTTP answer of a worker.
type reply struct {
	status int
	header fields
	body   []byte
	// streamed says that the body is passed on while it arrives; trailer is what came after it.
	streamed bool
	trailer  fields
	// keep says of one that streams that its connection stays open.
	keep bool
	// noRoom says that the body was read and thrown away: the gateway has no memory for it.
	noRoom bool
}

const (
	// smallResult is up to where a result is not counted: what holds it is bounded by the bounds of connections.
	smallResult = 64 << 10
	// roomWait is how long a result waits for memory. Its function has run: better late than lost.
	roomWait = 5 * time.Second
)

// room is the memory for results of one invocation.
type room struct {
	ctx   context.Context //nolint:containedctx // of the one invocation that the link carries at a time
	claim gateway.Memory
	// full says that there is none: nobody waits for the result.
	full bool
}

// take says whether there is memory for a result of n bytes, and for what is made of it.
func (r *room) take(n int64) bool {
	switch {
	case n <= smallResult:
		return true
	case r != nil && r.full:
		return false
	case r == nil || r.claim == nil:
		return true
	}
	ctx, cancel := context.WithTimeout(r.ctx, roomWait)
	defer cancel()
	return r.claim.GrowWait(ctx, 2*n) == nil
}

// readReply reads one HTTP/1.x answer to a POST (RFC 9112), strictly: what could be read in two ways is an error. keep
// is true when the connection stays open after it. With stream, the body of an answer that streams is left unread
// (reply.streamed). memory, when not nil, is asked for what is not small.
func readReply(r *bufio.Reader, stream bool, memory *room) (rep reply, keep bool, err error) {
	var http10 bool
	for range maxInterim {
		if rep.status, http10, err = readStatus(r); err != nil {
			return rep, false, err
		}
		if err := rep.header.read(r); err != nil {
			return rep, false, err
		}
		if rep.status >= 200 {
			break
		}
	}
	if rep.status < 200 {
		return rep, false, errors.New("nothing but interim answers")
	}
	h := &rep.header
	keep = !http10 && !strings.EqualFold(h.connection, "close")
	switch {
	case h.codings > 0:
		if h.codings > 1 || !strings.EqualFold(h.coding, "chunked") || h.lengths > 0 || http10 {
			return rep, false, fmt.Errorf("%d transfer encodings, %q, with %d content lengths are not understood", h.codings, h.coding, h.lengths)
		}
		if stream && rep.status == http.StatusOK && h.responseMode == modeStreaming {
			rep.streamed, rep.keep = true, keep
			return rep, keep, nil
		}
		if rep.body, rep.noRoom, err = readLimited(httputil.NewChunkedReader(r), memory); err == nil {
			err = rep.trailer.read(r)
		}
	case rep.status == http.StatusNoContent || rep.status == http.StatusNotModified:
	case h.lengths > 0:
		rep.body, rep.noRoom, err = readLength(r, h, memory)
	default:
		keep = false
		rep.body, rep.noRoom, err = readLimited(r, memory)
	}
	return rep, keep, err
}

func readLength(r io.Reader, h *fields, memory *room) (body []byte, noRoom bool, err error) {
	n, err := strconv.ParseUint(h.length, 10, 63)
	if err != nil || h.lengths > 1 {
		return nil, false, fmt.Errorf("content length %q, of %d, is not one number", h.length, h.lengths)
	}
	if n > MaxResult {
		return nil, false, errTooLarge
	}
	if !memory.take(int64(n)) { //nolint:gosec // at most MaxResult
		_, err = io.CopyN(io.Discard, r, int64(n)) //nolint:gosec // the same
		noRoom = true
	} else {
		body = make([]byte, n)
		_, err = io.ReadFull(r, body)
	}
	if err != nil {
		return nil, noRoom, fmt.Errorf("body of %d bytes: %w", n, cutOff(err))
	}
	return body, noRoom, nil
}

func readLimited(r io.Reader, memory *room) (body []byte, noRoom bool, err error) {
	body, err = io.ReadAll(io.LimitReader(r, smallResult+1))
	if err == nil && len(body) > smallResult {
		// How much comes is not known: there must be memory for the most.
		if !memory.take(MaxResult) {
			body, noRoom = nil, true
			_, err = io.CopyN(io.Discard, r, MaxResult)
			if errors.Is(err, io.EOF) {
				err = nil
			}
		} else {
			var rest []byte
			rest, err = io.ReadAll(io.LimitReader(r, MaxResult+1-int64(len(body))))
			body = append(body, rest...)
		}
	}
	if err != nil {
		return nil, noRoom, fmt.Errorf("body: %w", err)
	}
	if len(body) > MaxResult {
		return nil, noRoom, errTooLarge
	}
	return body, noRoom, nil
}

// readStatus reads a status line; http10 is true when it is one of HTTP/1.0.
func readStatus(r *bufio.Reader) (status int, http10 bool, err error) {
	line, err := readLine(r)
	if err != nil {
		return 0, false, err
	}
	rest, ok := bytes.CutPrefix(line, []byte("HTTP/1."))
	if !ok || len(rest) < 5 || rest[0] != '0' && rest[0] != '1' || rest[1] != ' ' || len(rest) > 5 && rest[5] != ' ' {
		return 0, false, fmt.Errorf("status line %.40q is not HTTP/1", line)
	}
	for _, c := range rest[2:5] {
		if c < '0' || c > '9' {
			return 0, false, fmt.Errorf("status line %.40q has no status", line)
		}
		status = 10*status + int(c-'0')
	}
	if status < 100 || status == http.StatusSwitchingProtocols {
		return 0, false, fmt.Errorf("status %d is no answer to an invocation", status)
	}
	return status, rest[0] == '0', nil
}

// readLine reads a line without its end; the slice is valid until the next read.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("header line over %d bytes", r.Size())
	case err != nil:
		return nil, cutOff(err)
	}
	line = line[:len(line)-1]
	return bytes.TrimSuffix(line, []byte("\r")), nil
}

// cutOff names an end that came too early.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

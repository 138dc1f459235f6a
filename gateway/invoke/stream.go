package invoke

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http/httputil"
	"strconv"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// DefaultStreamLimit is the most bytes of one streamed result (AWS: 200 MB, Lambda developer guide, response streaming).
const DefaultStreamLimit = 200 << 20

// The worker contract of answers that stream (docs/lambda-init.md).
const (
	headerInvokeMode   = "X-Esb-Invoke-Mode"
	modeStream         = "stream"
	headerResponseMode = "Lambda-Runtime-Function-Response-Mode"
	modeStreaming      = "streaming"
	trailerErrorType   = "Lambda-Runtime-Function-Error-Type"
	trailerErrorBody   = "Lambda-Runtime-Function-Error-Body"

	// streamPiece is the most of a stream that is read before it is passed on, in bytes.
	streamPiece = 64 << 10
)

// errStreamTooLong: a streamed result is over Options.StreamLimit.
var errStreamTooLong = errors.New("stream over the limit")

// pieces are the buffers of streams that run.
var pieces = sync.Pool{New: func() any { return new([streamPiece]byte) }}

// sink passes a result on to the caller while it arrives. The caller's goroutine uses it.
type sink struct {
	w     gateway.StreamWriter
	limit int64
	// begun says that w knows of the result.
	begun bool
	bytes int64
	// err is why w did not take it.
	err error
}

// relay carries a stream from the goroutine that reads it to that of its caller, which may leave it.
type relay struct {
	// pieces are lent until taken says that their bytes are not needed any more.
	pieces chan []byte
	taken  chan struct{}
	// gone is closed when the caller has left.
	gone chan struct{}
	// end takes how the stream ended, when its caller is there.
	end chan streamResult

	// mu guards the following: whether the stream has ended before its caller has left.
	mu          sync.Mutex
	ended, left bool
}

type streamResult struct {
	rep reply
	err error
}

// InvokeStream runs fn once with inv as Invoke does, and passes its result to w while it arrives: piece by piece when
// the function streams, else as one Begin and one Write. A Write that blocks makes the function wait; it must return
// when ctx ends. Its error means that the caller wants no more: the function runs on to its end, for at most its own timeout,
// and what it still writes is dropped, as when ctx ends (AWS: streams are not stopped when the client's connection breaks).
//
// Result.Payload is empty unless FunctionError is set; then it describes the error, which may have come before Begin or
// in the middle of the stream. An error of a stream that has begun means that what w got is not whole. Errors are those
// of Invoke, and the writer's own: a *gateway.Error as it is, any other as CodeCanceled. A result over
// Options.StreamLimit is a function error (AWS: Function.ResponseSizeTooLarge). Workers with the interface RIE never
// stream: RIE collects the answer itself.
func (i *Invoker) InvokeStream(ctx context.Context, fn *gateway.Function, inv gateway.Invocation, w gateway.StreamWriter) (gateway.Result, error) {
	began := time.Now()
	to := &sink{w: w, limit: i.opts.StreamLimit}
	res, err := i.guarded(ctx, fn, inv, to)
	if err == nil && res.FunctionError == "" && !to.begun {
		// The worker serves the next one already.
		if err = to.whole(res.ContentType, res.Payload); err != nil {
			err = to.refused(ctx, fn.Name)
		}
	}
	if res.FunctionError == "" {
		res.Payload = nil
	}
	streamedBytes.WithLabelValues(fn.Name).Add(float64(to.bytes))
	i.count(fn.Name, outcome(res, err), time.Since(began))
	return res, err
}

// stream passes the body of rep on to its end, and returns rep with its trailers. When the caller leaves before, the stream goes
// on without it, or with tied is broken off.
func (r *run) stream(ctx context.Context, rep reply, to *sink, tied bool) (_ reply, goesOn bool, _ error) {
	// The caller's leaving is seen here from now on: the connection has the guard's deadline alone.
	if _, err := r.link.resume(r.guard); err != nil {
		return rep, false, err
	}
	s := &relay{pieces: make(chan []byte), taken: make(chan struct{}), gone: make(chan struct{}), end: make(chan streamResult, 1)}
	refused := to.begin(rep.header.contentType)
	k, limit := r.kept(), to.limit
	r.invoker.late.Go(func() { k.pump(s, rep, limit) })
	passing := true
	defer func() {
		if passing {
			s.leave() // the caller's code has panicked
		}
	}()
	for refused == nil {
		select {
		case p := <-s.pieces:
			refused = to.write(p)
			s.taken <- struct{}{}
			continue
		case end := <-s.end:
			passing = false
			return end.rep, false, end.err
		case <-ctx.Done():
		}
		break
	}
	passing = false
	if tied {
		r.link.breakOff()
		close(s.gone)
		end := <-s.end
		if refused == nil && end.err == nil {
			return end.rep, false, nil // it has ended in this moment
		}
		return end.rep, false, errLeft
	}
	if end, ended := s.leave(); ended && refused == nil {
		return end.rep, false, end.err
	} else if ended {
		r.finish(end)
	}
	return rep, true, to.refused(ctx, r.fn.Name)
}

// finish ends, in the caller's goroutine, a stream that has ended when its caller wanted no more.
func (r *run) finish(end streamResult) { r.kept().endLate(end.rep, end.err) }

// leave says that the caller takes no more; ended is true when the stream has come to its end before.
func (s *relay) leave() (end streamResult, ended bool) {
	s.mu.Lock()
	s.left = true
	ended = s.ended
	s.mu.Unlock()
	close(s.gone)
	if ended {
		end = <-s.end
	}
	return end, ended
}

// pump reads a stream to its end.
func (r *run) pump(s *relay, rep reply, limit int64) {
	err := s.copy(httputil.NewChunkedReader(r.link.in), limit)
	if err == nil {
		if err = rep.trailer.read(r.link.in); err != nil {
			err = fmt.Errorf("trailers of a stream: %w", err)
		}
	}
	err = r.link.streamed(rep.keep, err)
	s.mu.Lock()
	s.ended = true
	left := s.left
	s.mu.Unlock()
	if left {
		r.endLate(rep, err)
		return
	}
	s.end <- streamResult{rep, err}
}

// copy passes body on to its end, or throws away what the caller does not take.
func (s *relay) copy(body io.Reader, limit int64) error {
	piece := pieces.Get().(*[streamPiece]byte)
	defer pieces.Put(piece)
	for bytes := int64(0); ; {
		n, err := body.Read(piece[:])
		if bytes += int64(n); bytes > limit {
			return errStreamTooLong
		}
		if n > 0 {
			select {
			case s.pieces <- piece[:n]:
				select {
				case <-s.taken:
				case <-s.gone:
				}
			case <-s.gone:
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("stream, after %d bytes: %w", bytes, cutOff(err))
		}
	}
}

// whole passes on a result that did not stream.
func (s *sink) whole(contentType string, payload []byte) error {
	if err := s.begin(contentType); err != nil {
		return err
	}
	return s.write(payload)
}

func (s *sink) begin(contentType string) error {
	s.begun = true
	s.err = s.w.Begin(contentType)
	return s.err
}

func (s *sink) write(p []byte) error {
	n, err := s.w.Write(p)
	s.bytes += int64(n)
	s.err = err
	return err
}

// refused is what came of an invocation whose result its caller did not take.
func (s *sink) refused(ctx context.Context, function string) error {
	if ctx.Err() != nil {
		return contextError(ctx, function)
	}
	var known *gateway.Error
	if errors.As(s.err, &known) {
		return known
	}
	return gateway.Errorf(gateway.CodeCanceled, "function %s: its caller did not take the result: %w", function, s.err)
}

// streamFailed is what came of a stream that did not get to its end. An empty fault says nothing special came of it.
func (r *run) streamFailed(ctx context.Context, to *sink, err error, elapsed time.Duration) (res gateway.Result, fault string, out error) {
	switch {
	case errors.Is(err, errStreamTooLong):
		return functionError("Function.ResponseSizeTooLarge",
			"Response payload size exceeded maximum allowed payload size ("+strconv.FormatInt(r.invoker.opts.StreamLimit, 10)+" bytes)."), "stream over the limit", nil
	case to == nil || !to.begun:
		return res, "", nil
	case errors.Is(err, errLeft):
		out = to.refused(ctx, r.fn.Name)
		return res, "caller did not take the stream: " + string(gateway.ErrorCode(out)), out
	case !r.late && ctx.Err() == nil && elapsed >= r.fn.Timeout:
		// lambda-init ended the function, but its caller took the stream too slowly to read the trailers.
		return timedOut(r.fn, r.requestID), "function timeout in the middle of a stream", nil
	}
	return res, "", nil
}

// interpretTrailer completes the result of a stream by its trailers.
func interpretTrailer(res *gateway.Result, trailer *fields) {
	res.LogTail = trailer.logResult
	res.TimedOut = trailer.reset == "timeout"
	errorType := trailer.trailerErrorType
	if errorType == "" {
		return
	}
	failed := functionError(errorType, "")
	res.FunctionError, res.Payload = failed.FunctionError, failed.Payload
	if body, err := base64.StdEncoding.DecodeString(trailer.trailerErrorBody); err == nil && len(body) > 0 {
		res.Payload = body
	}
}

package invoke

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
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

// sink passes a result on to the caller while it arrives. One goroutine uses it.
type sink struct {
	w     gateway.StreamWriter
	limit int64
	// begun says that w knows of the result.
	begun bool
	bytes int64
	// err is why w did not take it.
	err error
}

// InvokeStream runs fn once with inv as Invoke does, and passes its result to w while it arrives: piece by piece when
// the function streams, else as one Begin and one Write. A Write that blocks makes the function wait; it must return
// when ctx ends, and its error ends the invocation: the worker is destroyed with the function's process in it.
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
		if err = to.whole(res.Header.Get("Content-Type"), res.Payload); err != nil {
			err = to.refused(ctx, fn.Name)
		}
	}
	if res.FunctionError == "" {
		res.Payload = nil
	}
	streamedBytes.WithLabelValues(fn.Name).Add(float64(to.bytes))
	invocations.WithLabelValues(fn.Name, outcome(res, err)).Inc()
	invocationDuration.WithLabelValues(fn.Name).Observe(time.Since(began).Seconds())
	return res, err
}

// wanted says whether the body of rep is to be passed on while it arrives.
func (s *sink) wanted(rep *reply) bool {
	return s != nil && rep.status == http.StatusOK && rep.header.Get(headerResponseMode) == modeStreaming
}

// copy passes body on to its end.
func (s *sink) copy(contentType string, body io.Reader) error {
	if err := s.begin(contentType); err != nil {
		return err
	}
	piece := pieces.Get().(*[streamPiece]byte)
	defer pieces.Put(piece)
	for {
		n, err := body.Read(piece[:])
		if n > 0 {
			if s.bytes+int64(n) > s.limit {
				return errStreamTooLong
			}
			if err := s.write(piece[:n]); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("stream, after %d bytes: %w", s.bytes, cutOff(err))
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
func (i *Invoker) streamFailed(ctx context.Context, fn *gateway.Function, inv gateway.Invocation, to *sink, err error, elapsed time.Duration) (res gateway.Result, fault string, out error) {
	switch {
	case to == nil || !to.begun:
		return res, "", nil
	case to.err != nil:
		out = to.refused(ctx, fn.Name)
		return res, "caller did not take the stream: " + string(gateway.ErrorCode(out)), out
	case errors.Is(err, errStreamTooLong):
		return functionError("Function.ResponseSizeTooLarge",
			"Response payload size exceeded maximum allowed payload size ("+strconv.FormatInt(to.limit, 10)+" bytes)."), "stream over the limit", nil
	case ctx.Err() == nil && elapsed >= fn.Timeout:
		// lambda-init ended the function, but its caller took the stream too slowly to read the trailers.
		return timedOut(fn, inv), "function timeout in the middle of a stream", nil
	}
	return res, "", nil
}

// interpretTrailer completes the result of a stream by its trailers.
func interpretTrailer(res *gateway.Result, trailer http.Header) {
	res.LogTail = trailer.Get(headerLogResult)
	res.TimedOut = trailer.Get(headerReset) == "timeout"
	errorType := trailer.Get(trailerErrorType)
	if errorType == "" {
		return
	}
	failed := functionError(errorType, "")
	res.FunctionError, res.Payload = failed.FunctionError, failed.Payload
	if body, err := base64.StdEncoding.DecodeString(trailer.Get(trailerErrorBody)); err == nil && len(body) > 0 {
		res.Payload = body
	}
}

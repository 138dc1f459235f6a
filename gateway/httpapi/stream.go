package httpapi

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"os"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/event"
)

const (
	// streamIdle ends a stream in which nothing moves, by the function's or by the client's doing (AWS: 5 minutes for
	// regional endpoints, API Gateway developer guide, response streaming).
	streamIdle = 5 * time.Minute
	// streamGrace is what a client gets after its route's timeout to take the error.
	streamGrace = 10 * time.Second
)

var errStreamIdle = errors.New("nothing moved in the stream")

// stream invokes the route's function and passes its answer on while it arrives. An error before the first byte has an
// answer of its own; after it, the connection is broken, so that no client takes the answer for whole.
func (f *front) stream(x *exchange, inv gateway.Invocation) error {
	ctx, cancel := context.WithTimeout(x.r.Context(), x.budget())
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	s := &answerStream{x: x, control: http.NewResponseController(x.w), last: time.Now().Add(x.budget() + streamGrace)}
	// The server's own deadline for writing does not know of streams.
	_ = s.control.SetWriteDeadline(s.last)
	s.idle = time.AfterFunc(f.streamIdle, func() { end(errStreamIdle) })
	s.idleAfter = f.streamIdle
	defer s.idle.Stop()

	result, err := f.invoker.InvokeStream(ctx, x.route.Function, inv, s)
	x.initDuration = result.InitDuration
	switch {
	case err != nil && (s.stuck || errors.Is(context.Cause(ctx), errStreamIdle)):
		err = gateway.Errorf(gateway.CodeIntegrationTimeout, "for %v: %w", f.streamIdle, errStreamIdle)
	case err != nil:
		err = f.failure(ctx, x, err)
	case result.FunctionError != "":
		err = gateway.Errorf(gateway.CodeFunction, "function failed after %d bytes of its stream: %s", x.bytesOut, gateway.Excerpt(result.Payload))
	default:
		err = s.finish()
	}
	x.broken = err != nil && s.started
	return err
}

// answerStream is the gateway.StreamWriter of a client.
type answerStream struct {
	x       *exchange
	control *http.ResponseController
	// prelude is not nil when the result begins with one; contentType is of one that has none.
	prelude     *event.Prelude
	contentType string
	// started says that status and headers are on their way, bodyless that the answer has no body whatever comes.
	started, bodyless bool
	// stuck says that the client has taken nothing for too long.
	stuck bool
	// last is when the client must have taken everything.
	last time.Time
	// idle is put off for idleAfter by every piece.
	idle      *time.Timer
	idleAfter time.Duration
}

// Begin implements gateway.StreamWriter. Nothing is sent before the first byte: until then the function can fail with an
// answer that says so.
func (s *answerStream) Begin(contentType string) error {
	s.contentType = contentType
	if kind, _, err := mime.ParseMediaType(contentType); err == nil && kind == event.IntegrationResponse {
		s.prelude = &event.Prelude{}
	}
	return nil
}

// Write implements gateway.StreamWriter.
func (s *answerStream) Write(p []byte) (int, error) {
	s.idle.Reset(s.idleAfter)
	body := p
	if s.prelude != nil && !s.prelude.Done() {
		var err error
		if body, err = s.prelude.Add(p); err != nil {
			return 0, err
		}
		if !s.prelude.Done() {
			return len(p), nil
		}
	}
	if !s.started {
		if err := s.start(); err != nil {
			return 0, err
		}
	}
	deadline := time.Now().Add(s.idleAfter)
	if deadline.After(s.last) {
		deadline = s.last
	}
	_ = s.control.SetWriteDeadline(deadline) // not every ResponseWriter of a test can
	if len(body) > 0 && !s.bodyless {
		n, err := s.x.w.Write(body)
		s.x.bytesOut += n
		if err != nil {
			return 0, s.untaken(err)
		}
	}
	if err := s.control.Flush(); err != nil {
		return 0, s.untaken(err)
	}
	return len(p), nil
}

// untaken notes whether the client took too long; net/http makes it look like one that has left.
func (s *answerStream) untaken(err error) error {
	s.stuck = s.stuck || errors.Is(err, os.ErrDeadlineExceeded)
	return err
}

// start sends status and headers.
func (s *answerStream) start() error {
	var a event.Answer
	var err error
	if s.prelude != nil {
		a, err = s.prelude.Answer()
	} else {
		a, err = event.Streamed(s.contentType)
	}
	if err != nil {
		return err
	}
	s.x.writeHead(a)
	s.started = true
	s.bodyless = s.x.r.Method == http.MethodHead || a.Status == http.StatusNoContent || a.Status == http.StatusNotModified
	return nil
}

// finish ends a stream that came to its end; one without a byte has not begun yet.
func (s *answerStream) finish() error {
	if s.started {
		return nil
	}
	return s.start()
}

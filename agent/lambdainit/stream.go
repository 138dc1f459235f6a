package lambdainit

import (
	"encoding/base64"
	"errors"
	"io"
	"runtime"
	"strconv"
	"time"

	"github.com/edge-serverless-box/esb/agent/lambdainit/http1"
)

// Streaming of answers (AWS: Lambda developer guide, "Response streaming for Lambda functions").
const (
	// headerInvokeMode of a request says that the gateway takes the answer piece by piece.
	headerInvokeMode = "X-Esb-Invoke-Mode"
	modeStream       = "stream"
	// headerResponseMode is the runtime's word that its answer streams, and lambda-init's that this one does.
	headerResponseMode = "Lambda-Runtime-Function-Response-Mode"
	modeStreaming      = "streaming"
	// An error in the middle of a stream has its type and its document, in base64, in these trailers.
	trailerErrorType = "Lambda-Runtime-Function-Error-Type"
	trailerErrorBody = "Lambda-Runtime-Function-Error-Body"

	// streamPiece is the most that is read before it is passed on, in bytes.
	streamPiece = 64 << 10
	// maxTrailerError bounds the error document of a trailer, in bytes: a longer one is left out.
	maxTrailerError = 8 << 10
	// cutLimit is what the gateway gets to take the last piece of a stream whose function was ended.
	cutLimit = 500 * time.Millisecond
	// brokenLimit is how long a runtime that broke a stream off is given to end or to ask for the next invocation: the kernel closes
	// a process's connections some time before it tells of the process's end.
	brokenLimit = 2 * time.Second
)

// stream is an answer that is passed on while it arrives: read from the runtime by the goroutine that serves its
// request, and written to the gateway by the same one, so that the one waits for the other and nothing piles up. The
// goroutine of the invocation watches over it.
type stream struct {
	contentType string
	// to is told where the pieces go, once; the head of the answer is written then.
	to chan *http1.Exchange
	// ended is closed when nothing more is written to it.
	ended chan struct{}
}

// streams says whether the answer x of the runtime is to be passed on piece by piece. A runtime that knows no
// response mode streams by sending chunks (aws-lambda-go does, whatever it was asked).
func (inv *invocation) streams(x *http1.Exchange) bool {
	return inv.wantStream && (x.Header(headerResponseMode) == modeStreaming || x.ContentLength < 0)
}

// relay passes an answer of the runtime on, and gives inv its outcome at the end.
func (i *instance) relay(x *http1.Exchange, inv *invocation) {
	st := &stream{
		contentType: x.Header("Content-Type"),
		to:          make(chan *http1.Exchange, 1),
		ended:       make(chan struct{}),
	}
	defer close(st.ended)
	inv.stream <- st
	var a answer
	select {
	case to := <-st.to:
		a = copyStream(to, x)
	case <-i.gone:
		refuseTransition(x, stateGone, "InvocationResponse")
		return
	}
	if !i.finish(inv, a) {
		refuseTransition(x, stateGone, "InvocationResponse")
		return
	}
	if a.broken {
		writeError(x, 400, "InvalidRequestFormat", "The request body ended early")
		return
	}
	runtime.Gosched() // as for a whole answer
	accept(x)
}

// copyStream copies the body of x to the gateway. The answer has no body but that of an error.
func copyStream(to, x *http1.Exchange) answer {
	piece := make([]byte, streamPiece)
	for {
		n, err := x.Read(piece)
		if n > 0 && to.Chunk(piece[:n]) != nil {
			return answer{left: true}
		}
		switch {
		case errors.Is(err, io.EOF):
			var a answer
			if t := x.Trailer(trailerErrorType); t != "" {
				if body, err := base64.StdEncoding.DecodeString(x.Trailer(trailerErrorBody)); err == nil {
					a.body = body
				}
				a.setError(t)
			}
			return a
		case err != nil:
			a := answer{broken: true, body: errorJSON(errTruncated, "The response stream of the function broke off: "+err.Error())}
			a.setError(errTruncated)
			return a
		}
	}
}

// passOn watches over a stream until it has ended; late fires when the function's time is up.
func (s *Supervisor) passOn(i *instance, inv *invocation, st *stream, out outcome, late <-chan time.Time) outcome {
	out.streamed = true
	x := inv.to
	x.Status(200)
	if st.contentType != "" {
		x.Set("Content-Type", st.contentType)
	} else {
		x.Set("Content-Type", "application/octet-stream")
	}
	x.Set(headerResponseMode, modeStreaming)
	x.Set("Trailer", trailerNames)
	writeFacts(x, inv, &out)
	_ = x.Stream() // copyStream meets the error
	left := x.Watch()
	st.to <- x

	exited := i.exited
	for {
		select {
		case a := <-inv.done:
			<-st.ended
			switch {
			case a.left:
				return s.callerLeft(i, inv, out)
			case a.broken && diedOf(i, inv):
				return s.crashed(i, inv, out)
			}
			out.answer, out.ended = a, time.Now()
			return out
		case <-exited:
			exited = nil // what it has written before is still on its way
		case <-i.broken:
			out = s.brokenDown(i, inv, out)
			breakOff(x, st)
			return out
		case <-left:
			out = s.callerLeft(i, inv, out)
			breakOff(x, st)
			return out
		case <-late:
			out = s.expire(i, inv, out)
			breakOff(x, st)
			return out
		}
	}
}

// diedOf says whether the runtime broke the stream of inv off because its process has ended.
func diedOf(i *instance, inv *invocation) bool {
	limit := time.NewTimer(brokenLimit)
	defer limit.Stop()
	select {
	case <-i.exited:
		return true
	case <-inv.overtaken:
	case <-limit.C:
	}
	return false
}

// breakOff ends a stream whose function is gone: a gateway that takes nothing does not hold it up.
func breakOff(x *http1.Exchange, st *stream) {
	x.SetWriteDeadline(time.Now().Add(cutLimit))
	<-st.ended
}

// callerLeft ends the function's process: nobody wants the rest of its stream.
func (s *Supervisor) callerLeft(i *instance, inv *invocation, so outcome) outcome {
	out := failure(inv, errCallerLeft, "The caller left in the middle of the response stream")
	out.take(so)
	out.reset = resetCaller
	s.discard(i, reasonFailure)
	return out
}

// take keeps what is known of an invocation whose outcome turned out to be o.
func (o *outcome) take(so outcome) {
	o.started, o.init, o.waited, o.streamed = so.started, so.init, so.waited, so.streamed
}

// trailerNames are those that trailers can give.
const trailerNames = trailerErrorType + ", " + trailerErrorBody + ", " + headerReset + ", " + headerSpoilt + ", " + headerLogResult

// trailers are what stands behind a stream.
func trailers(inv *invocation, out *outcome, tail []byte) []http1.Field {
	var list []http1.Field
	if out.failed {
		body := out.body
		if len(body) > maxTrailerError {
			body = errorJSON(out.errorType, "The error document of "+strconv.Itoa(len(body))+" bytes is too long for a trailer")
		}
		list = append(list, http1.Field{Name: trailerErrorType, Value: trailerValue(out.errorType)},
			http1.Field{Name: trailerErrorBody, Value: base64.StdEncoding.EncodeToString(body)})
	}
	list = resets(list, out)
	if inv.wantTail {
		list = append(list, http1.Field{Name: headerLogResult, Value: base64.StdEncoding.EncodeToString(tail)})
	}
	return list
}

// trailerValue makes an error type that a runtime chose fit for a header.
func trailerValue(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b[:min(len(b), 256)])
}

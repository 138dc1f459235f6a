package lambdaapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws/protocol/eventstream"

	"github.com/edge-serverless-box/esb/gateway"
)

// maxChunk bounds the payload of one PayloadChunk in bytes, which bounds what is held of a result.
const maxChunk = 64 << 10

// eventWriter writes a function's result as an event stream (API reference, InvokeWithResponseStream; the encoding is
// that of application/vnd.amazon.eventstream).
type eventWriter struct {
	session *session
	encoder *eventstream.Encoder
	control *http.ResponseController
	buffer  bytes.Buffer
}

// stream runs the function and passes on its result as it arrives.
func (s *session) stream() error {
	if s.api.opts.Streamer == nil {
		return gateway.Errorf(gateway.CodeInternal, "streaming is not wired")
	}
	s.unbound()
	w := &eventWriter{session: s, encoder: eventstream.NewEncoder(), control: http.NewResponseController(s.W)}
	res, err := s.api.opts.Streamer.InvokeStream(s.R.Context(), s.fn, s.inv, w)
	if err != nil {
		err = s.failure(err)
		if !s.begun {
			return err
		}
		// The status is sent: what the client gets is a stream that ends with the error.
		s.out.Err = err
		r := refusalOf(err)
		w.complete(completion{ErrorCode: &r.kind, ErrorDetails: &r.message})
		return nil
	}
	s.finished(res)
	end := completion{}
	if res.FunctionError != "" {
		details := string(res.Payload)
		end.ErrorCode, end.ErrorDetails = &res.FunctionError, &details
	}
	if s.inv.LogTail {
		end.LogResult = &res.LogTail
	}
	w.complete(end)
	return nil
}

// Begin implements gateway.StreamWriter. The Content-Type of the whole is the event stream's.
func (w *eventWriter) Begin(string) error {
	h := w.session.W.Header()
	h["Content-Type"] = []string{"application/vnd.amazon.eventstream"}
	h["X-Amz-Executed-Version"] = []string{version}
	w.session.head(http.StatusOK)
	return w.flush()
}

// Write implements gateway.StreamWriter.
func (w *eventWriter) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		n := min(len(p), maxChunk)
		if err := w.event("PayloadChunk", "application/octet-stream", p[:n]); err != nil {
			return written, err
		}
		written, p = written+n, p[n:]
	}
	return written, w.flush()
}

// completion is the last event.
type completion struct {
	ErrorCode    *string `json:"ErrorCode,omitempty"`
	ErrorDetails *string `json:"ErrorDetails,omitempty"`
	LogResult    *string `json:"LogResult,omitempty"`
}

// complete ends the stream. A client that has gone needs no end.
func (w *eventWriter) complete(c completion) {
	if !w.session.begun {
		if err := w.Begin(""); err != nil {
			return
		}
	}
	payload, _ := json.Marshal(c) // texts only: it cannot fail
	if err := w.event("InvokeComplete", "application/json", payload); err == nil {
		_ = w.flush()
	}
}

func (w *eventWriter) event(kind, contentType string, payload []byte) error {
	w.buffer.Reset()
	err := w.encoder.Encode(&w.buffer, eventstream.Message{
		Headers: eventstream.Headers{
			{Name: ":event-type", Value: eventstream.StringValue(kind)},
			{Name: ":content-type", Value: eventstream.StringValue(contentType)},
			{Name: ":message-type", Value: eventstream.StringValue("event")},
		},
		Payload: payload,
	})
	if err != nil {
		return fmt.Errorf("encode an event of a stream: %w", err)
	}
	w.session.bound()
	n, err := w.session.W.Write(w.buffer.Bytes())
	w.session.out.BytesOut += n
	return err
}

func (w *eventWriter) flush() error {
	err := w.control.Flush()
	w.session.unbound()
	return err
}

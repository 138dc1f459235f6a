package functionfront

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"net/http"
	"sync"

	"github.com/edge-serverless-box/esb/sigv4"
)

// s3Error is an answer in S3's words.
type s3Error struct {
	status        int
	code, message string
}

// Error implements error.
func (e *s3Error) Error() string { return e.code + ": " + e.message }

// refuse answers for the store, in the form of its API.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if h.opts.Service == DynamoDB {
		h.refuseDynamoDB(w, r, err)
		return
	}
	answer := answerOf(err)
	h.opts.Logger.Warn("a request to S3 was refused", "code", answer.code, "access_key", accessKeyID(r), "remote", r.RemoteAddr, "error", err.Error())
	// The body may be half read: the connection cannot be used again.
	w.Header().Set("Connection", "close")
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(answer.status)
	if r.Method == http.MethodHead {
		return
	}
	data, _ := xml.Marshal(struct {
		XMLName  xml.Name `xml:"Error"`
		Code     string
		Message  string
		Resource string
	}{Code: answer.code, Message: answer.message, Resource: r.URL.Path})
	_, _ = w.Write(append([]byte(xml.Header), data...)) // a client that has gone needs no answer
}

// answerOf finds S3's answer for an error (S3 API reference, "Error responses").
func answerOf(err error) *s3Error {
	var refused *sigv4.Error
	var answer *s3Error
	switch {
	case errors.As(err, &answer):
		return answer
	case errors.As(err, &refused):
		status := http.StatusForbidden
		if refused.Reason == sigv4.Incomplete {
			status = http.StatusBadRequest
		}
		return &s3Error{status, refused.S3Code(), refused.Message}
	case errors.Is(err, sigv4.ErrPayload):
		return &s3Error{http.StatusBadRequest, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed."}
	case errors.Is(err, sigv4.ErrChunks):
		return &s3Error{http.StatusBadRequest, "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header."}
	case errors.Is(err, errUnsupported):
		return &s3Error{http.StatusNotImplemented, "NotImplemented", "A header you provided implies functionality that is not implemented."}
	}
	// SDKs try again after this one.
	return &s3Error{http.StatusServiceUnavailable, "ServiceUnavailable", "Please reduce your request rate."}
}

func (h *handler) refuseDynamoDB(w http.ResponseWriter, r *http.Request, err error) {
	status, kind, message := http.StatusInternalServerError, "com.amazonaws.dynamodb.v20120810#InternalServerError",
		"The request processing has failed because of an unknown error, exception or failure." // SDKs try again after it
	var refused *sigv4.Error
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &refused):
		status, kind, message = http.StatusBadRequest, "com.amazon.coral.service#"+refused.Code, refused.Message
	case errors.As(err, &large):
		status, kind, message = http.StatusRequestEntityTooLarge, "com.amazon.coral.validate#ValidationException", "Request size exceeded 16777216 bytes"
	}
	h.opts.Logger.Warn("a request to the DynamoDB API was refused", "type", kind, "access_key", accessKeyID(r), "remote", r.RemoteAddr, "error", err.Error())
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.WriteHeader(status)
	data, _ := json.Marshal(map[string]string{"__type": kind, "message": message})
	_, _ = w.Write(data)
}

// buffers are what bodies are copied through.
type buffers struct{ pool sync.Pool }

func newBuffers() *buffers {
	return &buffers{pool: sync.Pool{New: func() any { return new([copyBuffer]byte) }}}
}

// copyBuffer is the size of one buffer.
const copyBuffer = 64 << 10

// Get implements httputil.BufferPool.
func (b *buffers) Get() []byte { return b.pool.Get().(*[copyBuffer]byte)[:] }

// Put implements httputil.BufferPool.
func (b *buffers) Put(buffer []byte) { b.pool.Put((*[copyBuffer]byte)(buffer)) }

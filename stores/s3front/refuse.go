package s3front

import (
	"encoding/xml"
	"errors"
	"net/http"
	"os"

	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/stores/front"
)

// s3Error is an answer in S3's words.
type s3Error struct {
	status        int
	code, message string
}

// Error implements error.
func (e *s3Error) Error() string { return e.code + ": " + e.message }

// refuse answers for the store, as S3 does.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	answer := answerOf(err)
	h.opts.Logger.Warn("a request to S3 was refused", "code", answer.code, "access_key", front.AccessKeyID(r), "remote", r.RemoteAddr, "error", err.Error())
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
	case errors.Is(err, budget.ErrTooLong):
		return errDeletes
	case errors.Is(err, budget.ErrUsedUp):
		// SDKs try again after this one.
		return &s3Error{http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate."}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &s3Error{http.StatusBadRequest, "RequestTimeout", "Your socket connection to the server was not read from or written to within the timeout period. Idle connections will be closed."}
	case errors.Is(err, errUnsupported):
		return &s3Error{http.StatusNotImplemented, "NotImplemented", "A header you provided implies functionality that is not implemented."}
	}
	// SDKs try again after this one.
	return &s3Error{http.StatusServiceUnavailable, "ServiceUnavailable", "Please reduce your request rate."}
}

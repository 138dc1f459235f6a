package lambdaapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/sigv4"
)

// statusClientLeft stands in logs and metrics for a client that did not wait for its answer.
const statusClientLeft = 499

// refusal is an exception of the API with what its client reads.
type refusal struct {
	status int
	// kind is the exception's name.
	kind    string
	message string
	// reason is TooManyRequestsException's.
	reason string
	// user: the body says "Type":"User". service: it says "Type":"Service".
	user, service bool
	// capital: AWS spells the message's key with a capital letter in this exception (recorded).
	capital    bool
	retryAfter time.Duration
}

// Error implements error.
func (r *refusal) Error() string { return r.kind + ": " + r.message }

// body is the exception as JSON.
func (r *refusal) body() []byte {
	var v struct {
		Reason  string  `json:"Reason,omitempty"`
		Type    string  `json:"Type,omitempty"`
		Capital *string `json:"Message,omitempty"`
		Small   *string `json:"message,omitempty"`
	}
	v.Reason = r.reason
	switch {
	case r.user:
		v.Type = "User"
	case r.service:
		v.Type = "Service"
	}
	if r.capital {
		v.Capital = &r.message
	} else {
		v.Small = &r.message
	}
	body, _ := json.Marshal(v) // texts only: it cannot fail
	return body
}

// refusalOf is the one place that makes an exception of an error.
func refusalOf(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	var e *gateway.Error
	if !errors.As(err, &e) {
		e = gateway.Errorf(gateway.CodeInternal, "%w", err)
	}
	throttled := e.Code == gateway.CodeThrottled || e.Code == gateway.CodeRouteThrottled || e.Code == gateway.CodeUnavailable && e.Busy
	switch {
	case throttled:
		return &refusal{status: http.StatusTooManyRequests, kind: "TooManyRequestsException", user: true, message: "Rate Exceeded.",
			reason: "ReservedFunctionConcurrentInvocationLimitExceeded", retryAfter: max(e.RetryAfter, time.Second)}
	case e.Code == gateway.CodeTooLarge:
		return &refusal{status: http.StatusRequestEntityTooLarge, kind: "RequestTooLargeException", user: true,
			message: "The request payload exceeded the Invoke request body JSON input quota."}
	case e.Code == gateway.CodeInvalid:
		return errContent("The request could not be handed to the function.")
	case e.Code == gateway.CodeCanceled:
		return &refusal{status: statusClientLeft}
	}
	if e.Permanent {
		return unusable(e.Reason)
	}
	return &refusal{status: http.StatusInternalServerError, kind: "ServiceException", service: true, capital: true,
		message: sentences("An error occurred and the request cannot be processed.", e.Reason), retryAfter: e.RetryAfter}
}

// unusable is what is told of a function that cannot be started before somebody changes something: one of Invoke's exceptions for
// that (Lambda API reference, Invoke, "Errors"), with the kind of the reason behind AWS's words.
func unusable(why reason.Reason) *refusal {
	r := &refusal{status: http.StatusConflict, kind: "ResourceConflictException", user: true, capital: true,
		message: "The operation cannot be performed at this time. The function is currently in the following state: Failed"}
	switch why {
	case reason.ImageMissing, reason.ImageInvalid:
		// Recorded for images that AWS could no longer have (CloudSnorkel/cdk-github-runners issue 768,
		// terraform-aws-modules/terraform-aws-lambda issue 377).
		r.kind, r.message, r.capital = "CodeArtifactUserFailedException", "ERROR: Lambda cannot initialize the provided container image. Verify the image.", false
	case reason.CodeInvalid:
		r.status, r.kind, r.message = http.StatusBadGateway, "InvalidZipFileException", "Lambda could not unzip the deployment package."
	case reason.RuntimeInvalid:
		r.status, r.kind, r.message = http.StatusBadGateway, "InvalidRuntimeException", "The runtime or runtime version specified is not supported."
	default: // AWS has such a function in the state Failed
		if why.Text() != "" {
			r.message += "."
		}
	}
	r.message = sentences(r.message, why)
	return r
}

// sentences is AWS's text with the reason behind it.
func sentences(text string, why reason.Reason) string {
	if sentence := why.Text(); sentence != "" {
		return text + " " + sentence
	}
	return text
}

// errSignature: Lambda answers 403 whatever is wrong with a signature.
func errSignature(err error) error {
	var e *sigv4.Error
	if !errors.As(err, &e) {
		return err
	}
	message := e.Message
	if e.Reason == sigv4.Missing {
		message = "Missing Authentication Token"
	}
	return &refusal{status: http.StatusForbidden, kind: e.Code, message: message}
}

func errUnknownOperation() error {
	return &refusal{status: http.StatusNotFound, kind: "UnknownOperationException",
		message: "The box has of Lambda's API: POST " + PrefixInvoke + "{FunctionName}/invocations, " + PrefixInvokeAsync + "{FunctionName}/invoke-async, " +
			PrefixInvokeStream + "{FunctionName}/response-streaming-invocations."}
}

func errParameter(message string) error {
	return &refusal{status: http.StatusBadRequest, kind: "InvalidParameterValueException", user: true, message: message}
}

func errContent(message string) *refusal {
	return &refusal{status: http.StatusBadRequest, kind: "InvalidRequestContentException", user: true, message: message}
}

func errTooLarge(limit int) error {
	return &refusal{status: http.StatusRequestEntityTooLarge, kind: "RequestTooLargeException", user: true,
		message: fmt.Sprintf("Request must be smaller than %d bytes for the InvokeFunction operation", limit)}
}

// refuse answers an error, when nothing was answered yet.
func (s *session) refuse(err error) {
	s.out.Err = err
	if s.begun {
		return
	}
	r := refusalOf(err)
	h := s.W.Header()
	if r.status == statusClientLeft {
		h.Set("Connection", "close")
		s.head(r.status)
		return
	}
	if r.retryAfter > 0 {
		h["Retry-After"] = []string{strconv.Itoa(int(math.Ceil(r.retryAfter.Seconds())))}
	}
	h["X-Amzn-Errortype"] = []string{r.kind}
	s.answer(r.status, "application/json", r.body())
}

// head sends status and headers.
func (s *session) head(status int) {
	s.bound()
	s.begun, s.out.Status = true, status
	s.W.WriteHeader(status)
}

// answer sends a whole answer.
func (s *session) answer(status int, contentType string, body []byte) {
	h := s.W.Header()
	h["Content-Type"] = []string{contentType}
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	s.head(status)
	s.out.BytesOut = len(body)
	_, _ = s.W.Write(body) // a client that has gone needs no answer
}

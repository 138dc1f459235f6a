package agent

import (
	"errors"
	"fmt"

	"github.com/edge-serverless-box/esb/api/reason"
)

// Code classifies an error for callers; agent/grpcapi maps it to a gRPC status in one place.
type Code string

// Error codes.
const (
	// CodeInvalid: a field of the request is missing or out of range.
	CodeInvalid Code = "invalid"
	// CodeNotFound: no such container.
	CodeNotFound Code = "not_found"
	// CodeExhausted: no address, process or memory is left.
	CodeExhausted Code = "exhausted"
	// CodePrecondition: the image cannot be had or cannot run; trying again without a change is useless.
	CodePrecondition Code = "failed_precondition"
	// CodeUnavailable: containerd is down; trying again later is right.
	CodeUnavailable Code = "unavailable"
	// CodeDeadline: the container was not ready in time.
	CodeDeadline Code = "deadline_exceeded"
	// CodeCanceled: the caller has left.
	CodeCanceled Code = "canceled"
	// CodeInternal: everything else.
	CodeInternal Code = "internal"
)

// Error is the agent's one error type. Message may be shown to an operator of the gateway; the cause is for the
// agent's log.
type Error struct {
	Code    Code
	Message string
	// Reason is the kind of cause of a start that failed, "" when this error does not know it (ErrorReason looks further).
	Reason reason.Reason
	cause  error
}

// Errorf makes an Error; a %w in format becomes its cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.cause }

// ErrorCode returns the code of the first Error in err's chain, CodeInternal for strangers, "" for nil.
func ErrorCode(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

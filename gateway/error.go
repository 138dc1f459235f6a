package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/api/reason"
)

// Code classifies an error; gateway/httpapi maps it to status and body in one place (docs/system-specification.md 9).
type Code string

// Error codes.
const (
	// CodeUnauthorized: no credentials, bad ones, or expired ones.
	CodeUnauthorized Code = "unauthorized"
	// CodeNoRoute: no route matches.
	CodeNoRoute Code = "no_route"
	// CodeFunction: the function failed, ran past its own timeout, or answered with a wrong shape.
	CodeFunction Code = "function"
	// CodeIntegrationTimeout: the route's timeout came first.
	CodeIntegrationTimeout Code = "integration_timeout"
	// CodeThrottled: the queue is full.
	CodeThrottled Code = "throttled"
	// CodeUnavailable: no worker in time, agent down, circuit open, start failed for good.
	CodeUnavailable Code = "unavailable"
	// CodeForbidden: the API key that a route asks for is missing or wrong.
	CodeForbidden Code = "forbidden"
	// CodeTokenExpired: a token is good but for its age (AWS REST: "The incoming token has expired").
	CodeTokenExpired Code = "token_expired"
	// CodeAccessDenied: no statement of the policy of a Lambda authorizer allows the call.
	CodeAccessDenied Code = "access_denied"
	// CodeExplicitDeny: a statement of that policy denies it.
	CodeExplicitDeny Code = "explicit_deny"
	// CodeAuthorizerFailure: a Lambda authorizer failed (AWS: AUTHORIZER_FAILURE).
	CodeAuthorizerFailure Code = "authorizer_failure"
	// CodeAuthorizerConfiguration: a Lambda authorizer's answer has a wrong shape (AWS: AUTHORIZER_CONFIGURATION_ERROR).
	CodeAuthorizerConfiguration Code = "authorizer_configuration"
	// CodeRouteThrottled: the rate of a route, or of the API, is used up (AWS: THROTTLED).
	CodeRouteThrottled Code = "route_throttled"
	// CodeTooLarge: event over 6 MB.
	CodeTooLarge Code = "too_large"
	// CodeBodyTooLarge: body over 10 MB.
	CodeBodyTooLarge Code = "body_too_large"
	// CodeHeaderTooLarge: request line and headers over 10240 bytes.
	CodeHeaderTooLarge Code = "header_too_large"
	// CodeInvalid: the request is malformed.
	CodeInvalid Code = "invalid"
	// CodeCanceled: the client has left.
	CodeCanceled Code = "canceled"
	// CodeTransport: a worker broke the connection or the HTTP exchange with it failed.
	CodeTransport Code = "transport"
	// CodeInternal: everything else.
	CodeInternal Code = "internal"
)

// Error is the gateway's one error type. Clients never see Message of an infrastructure error, only what
// httpapi makes of Code; operators find it in the log.
type Error struct {
	Code    Code
	Message string
	// RetryAfter, when not 0, is told to the client.
	RetryAfter time.Duration
	// Challenge, when not empty, is told to the client as WWW-Authenticate.
	Challenge string
	// Busy marks a CodeUnavailable whose cause is that all workers that max_capacity allows are at work (AWS: throttled).
	Busy bool
	// Permanent marks a start failure that trying again cannot cure (image missing, bad configuration).
	Permanent bool
	// NotTried marks a start that was not tried, because what it needs is not known yet: no evidence of trouble.
	NotTried bool
	// Reason is the kind of cause of a start failure, empty when it is not known.
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

// Left says why a caller no longer waits, by the end of its ctx; what completes "the client left", as in "while waiting".
func Left(ctx context.Context, what string) *Error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return Errorf(CodeIntegrationTimeout, "the route's timeout passed %s", what)
	}
	return Errorf(CodeCanceled, "the client left %s", what)
}

// Excerpt is the beginning of a function's error, for the log.
func Excerpt(payload []byte) string {
	const most = 512
	if len(payload) > most {
		return strings.ToValidUTF8(string(payload[:most]), "") + "..."
	}
	return strings.ToValidUTF8(string(payload), "")
}

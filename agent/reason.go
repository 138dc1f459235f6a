package agent

import (
	"errors"

	"github.com/edge-serverless-box/esb/api/reason"
)

// Because gives an error its reason, unless one that it wraps has one: whoever is nearest to the cause knows best. It keeps code
// and message.
func Because(why reason.Reason, err error) error {
	if err == nil || why == "" || ErrorReason(err) != "" {
		return err
	}
	return &Error{Code: ErrorCode(err), Message: err.Error(), Reason: why, cause: err}
}

// ErrorReason returns the first reason in err's chain, "" when there is none.
func ErrorReason(err error) reason.Reason {
	var e *Error
	for errors.As(err, &e) {
		if e.Reason != "" {
			return e.Reason
		}
		err, e = e.cause, nil
	}
	return ""
}

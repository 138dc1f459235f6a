package codewatch

import (
	"context"
	"errors"
	"io/fs"

	"github.com/edge-serverless-box/esb/api/reason"
)

// problem is why code cannot be looked at, with the kind of reason that callers of its functions are told.
type problem struct {
	reason reason.Reason
	err    error
}

// Error implements error.
func (p *problem) Error() string { return p.err.Error() }

// Unwrap returns the cause.
func (p *problem) Unwrap() error { return p.err }

func errNoStore() error {
	return &problem{reason.Configuration, errors.New("there is no S3 store: S3_ENDPOINT is off")}
}

// reasonOf is the kind of reason for an error of a look at location. What is wrong with a local path stays so until somebody
// changes it.
func reasonOf(location string, err error) reason.Reason {
	var p *problem
	switch {
	case errors.As(err, &p):
		return p.reason
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return reason.CodeMissing
	case isObject(location):
		return reason.StoreAway
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return reason.StoreAway
	}
	return reason.CodeInvalid
}

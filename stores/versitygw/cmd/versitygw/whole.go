package main

import (
	"context"
	"errors"
	"io"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
)

// whole is a backend that stores a body only when all of it came. The HTTP server below versitygw (v1.8.0) ends a body
// whose client has gone as if it were complete, and so a piece of an object whose hash was not signed would stay.
type whole struct{ backend.Backend }

// PutObject implements backend.Backend.
func (w whole) PutObject(ctx context.Context, in s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	in.Body = announced(in.Body, in.ContentLength)
	return w.Backend.PutObject(ctx, in)
}

// UploadPart implements backend.Backend.
func (w whole) UploadPart(ctx context.Context, in *s3.UploadPartInput) (*s3.UploadPartOutput, error) {
	in.Body = announced(in.Body, in.ContentLength)
	return w.Backend.UploadPart(ctx, in)
}

func announced(body io.Reader, length *int64) io.Reader {
	if body == nil || length == nil {
		return body
	}
	return &announcedReader{body: body, left: *length}
}

// announcedReader ends with an error when the body ends before as many bytes came as were announced.
type announcedReader struct {
	body io.Reader
	left int64
}

// Read implements io.Reader.
func (r *announcedReader) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	r.left -= int64(n)
	if errors.Is(err, io.EOF) && r.left > 0 {
		return n, s3err.GetAPIError(s3err.ErrIncompleteBody)
	}
	return n, err
}

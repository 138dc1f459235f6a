package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/valyala/fasthttp"
	"github.com/versity/versitygw/backend"
	"github.com/versity/versitygw/s3err"
	"github.com/versity/versitygw/s3response"
)

// whole is a backend that keeps the promises that versitygw's own (v1.8.0) does not, or refuses what it cannot promise.
type whole struct{ backend.Backend }

// headerOffset appends to an object (S3 API reference, PutObject).
const headerOffset = "X-Amz-Write-Offset-Bytes"

// CopyObject implements backend.Backend. versitygw takes no notice of a condition on the object that would be overwritten:
// it would be overwritten in any case.
func (w whole) CopyObject(ctx context.Context, in s3response.CopyObjectInput) (s3response.CopyObjectOutput, error) {
	for _, name := range []string{fasthttp.HeaderIfMatch, fasthttp.HeaderIfNoneMatch} {
		if has(ctx, name) {
			return s3response.CopyObjectOutput{}, s3err.GetNotImplementedErr(name, "")
		}
	}
	return w.Backend.CopyObject(ctx, in)
}

// has says whether the request that ctx belongs to has a header. versitygw gives its backend the request as the context;
// one that is no request is taken to have every header, so that a promise is rather refused than broken.
func has(ctx context.Context, name string) bool {
	r, ok := ctx.(*fasthttp.RequestCtx)
	return !ok || len(r.Request.Header.Peek(name)) > 0
}

// maxDeletes is how many objects one request may delete (S3 API reference, DeleteObjects).
const maxDeletes = 1000

// DeleteObjects implements backend.Backend. versitygw deletes any number of objects, and tells of those that are gone also where it
// was asked to be quiet.
func (w whole) DeleteObjects(ctx context.Context, in *s3.DeleteObjectsInput) (s3response.DeleteResult, error) {
	if in.Delete != nil && len(in.Delete.Objects) > maxDeletes {
		return s3response.DeleteResult{}, s3err.GetAPIError(s3err.ErrMalformedXML)
	}
	result, err := w.Backend.DeleteObjects(ctx, in)
	if r, ok := ctx.(*fasthttp.RequestCtx); ok && err == nil {
		var asked struct{ Quiet bool }
		if xml.Unmarshal(r.Request.Body(), &asked) == nil && asked.Quiet {
			result.Deleted = nil
		}
	}
	return result, err
}

// PutObject implements backend.Backend. It stores a body only when all of it came: the HTTP server below versitygw ends a
// body whose client has gone as if it were complete, and so a piece of an object whose hash was not signed would stay.
// Nothing is appended to an object, which versitygw would overwrite instead.
func (w whole) PutObject(ctx context.Context, in s3response.PutObjectInput) (s3response.PutObjectOutput, error) {
	if has(ctx, headerOffset) {
		return s3response.PutObjectOutput{}, s3err.GetNotImplementedErr(headerOffset, "")
	}
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

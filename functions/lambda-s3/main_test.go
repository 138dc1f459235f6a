package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// bucket is a store with one bucket, in memory; err, when set, is its answer to everything.
type bucket struct {
	objects map[string]string
	err     error
}

func (b *bucket) PutObject(_ context.Context, in *s3.PutObjectInput, _ ...func(*s3.Options)) (*s3.PutObjectOutput, error) {
	if b.err != nil {
		return nil, b.err
	}
	body, err := io.ReadAll(in.Body)
	b.objects[*in.Bucket+"/"+*in.Key] = string(body)
	return &s3.PutObjectOutput{ETag: aws.String(`"1"`)}, err
}

func (b *bucket) GetObject(_ context.Context, in *s3.GetObjectInput, _ ...func(*s3.Options)) (*s3.GetObjectOutput, error) {
	body, ok := b.objects[*in.Bucket+"/"+*in.Key]
	if !ok {
		return nil, &types.NoSuchKey{}
	}
	return &s3.GetObjectOutput{Body: io.NopCloser(strings.NewReader(body)), ETag: aws.String(`"1"`)}, b.err
}

func (b *bucket) HeadObject(_ context.Context, in *s3.HeadObjectInput, _ ...func(*s3.Options)) (*s3.HeadObjectOutput, error) {
	if _, ok := b.objects[*in.Bucket+"/"+*in.Key]; !ok {
		return nil, &types.NotFound{}
	}
	return &s3.HeadObjectOutput{}, b.err
}

func (b *bucket) DeleteObject(_ context.Context, in *s3.DeleteObjectInput, _ ...func(*s3.Options)) (*s3.DeleteObjectOutput, error) {
	delete(b.objects, *in.Bucket+"/"+*in.Key)
	return &s3.DeleteObjectOutput{}, b.err
}

func (b *bucket) ListObjectsV2(_ context.Context, in *s3.ListObjectsV2Input, _ ...func(*s3.Options)) (*s3.ListObjectsV2Output, error) {
	out := &s3.ListObjectsV2Output{}
	for name := range b.objects {
		if key, ours := strings.CutPrefix(name, *in.Bucket+"/"); ours && strings.HasPrefix(key, *in.Prefix) {
			out.Contents = append(out.Contents, types.Object{Key: aws.String(key)})
		}
	}
	return out, b.err
}

func TestActions_InOrder(t *testing.T) {
	f := &function{s3: &bucket{objects: map[string]string{}}}
	for _, step := range []struct {
		body   string
		status int
		want   string
	}{
		{`{"action":"overwrite","key":"a/1","body":"x"}`, 404, `{"message":"there is no such object or bucket"}`},
		{`{"action":"put","key":"a/2","body":"two"}`, 200, `{"success":true,"action":"put","bucket":"esb-files","key":"a/2","etag":"\"1\""}`},
		{`{"action":"put","key":"a/1","body":""}`, 200, `{"success":true,"action":"put","bucket":"esb-files","key":"a/1","etag":"\"1\""}`},
		{`{"action":"put","bucket":"other","key":"a/3","body":"x"}`, 200, `{"success":true,"action":"put","bucket":"other","key":"a/3","etag":"\"1\""}`},
		{`{"action":"get","key":"a/1"}`, 200, `{"success":true,"action":"get","bucket":"esb-files","key":"a/1","etag":"\"1\"","body":""}`},
		{`{"action":"list","key":"a/"}`, 200, `{"success":true,"action":"list","bucket":"esb-files","key":"a/","keys":["a/1","a/2"]}`},
		{`{"action":"list","key":"nothing"}`, 200, `{"success":true,"action":"list","bucket":"esb-files","key":"nothing","keys":[]}`},
		{`{"action":"overwrite","key":"a/2","body":"deux"}`, 200, `{"success":true,"action":"overwrite","bucket":"esb-files","key":"a/2","etag":"\"1\""}`},
		{`{"action":"get","key":"a/2"}`, 200, `{"success":true,"action":"get","bucket":"esb-files","key":"a/2","etag":"\"1\"","body":"deux"}`},
		{`{"action":"delete","key":"a/2"}`, 200, `{"success":true,"action":"delete","bucket":"esb-files","key":"a/2"}`},
		{`{"action":"get","key":"a/2"}`, 404, `{"message":"there is no such object or bucket"}`},
		{`{"action":"move","key":"a/2"}`, 400, `{"message":"action must be put, get, list, delete or overwrite"}`},
		{`{"action":"get"}`, 400, `{"message":"key is missing"}`},
	} {
		got, err := f.handle(context.Background(), events.APIGatewayProxyRequest{Body: step.body})
		require.NoError(t, err)
		assert.Equal(t, step.status, got.StatusCode, step.body)
		assert.Equal(t, step.want, got.Body, step.body)
	}
	got, err := f.handle(context.Background(), events.APIGatewayProxyRequest{Body: "{"})
	require.NoError(t, err)
	assert.Equal(t, http.StatusBadRequest, got.StatusCode)
}

func TestStoreFails_IsBadGatewayWithoutDetails(t *testing.T) {
	for want, err := range map[string]error{
		`{"message":"the store cannot be reached"}`: errors.New("dial tcp 10.88.0.1:9000: connection refused"),
		`{"message":"the store answered SlowDown"}`: &smithy.GenericAPIError{Code: "SlowDown", Message: "secret detail"},
	} {
		f := &function{s3: &bucket{objects: map[string]string{}, err: err}}
		got, failed := f.handle(context.Background(), events.APIGatewayProxyRequest{Body: `{"action":"put","key":"k"}`})
		require.NoError(t, failed)
		assert.Equal(t, http.StatusBadGateway, got.StatusCode)
		assert.Equal(t, want, got.Body)
	}
}

func TestGet_TooLarge_IsRefused(t *testing.T) {
	f := &function{s3: &bucket{objects: map[string]string{"esb-files/big": strings.Repeat("x", maxBody+1)}}}
	got, err := f.handle(context.Background(), events.APIGatewayProxyRequest{Body: `{"action":"get","key":"big"}`})
	require.NoError(t, err)
	assert.Equal(t, http.StatusRequestEntityTooLarge, got.StatusCode)
}

func TestStoreDenies_IsForbidden_AndSaysWhatToSet(t *testing.T) {
	f := &function{s3: &bucket{objects: map[string]string{}, err: &smithy.GenericAPIError{Code: "AccessDenied"}}}
	got, err := f.handle(context.Background(), events.APIGatewayProxyRequest{Body: `{"action":"put","key":"k"}`})
	require.NoError(t, err)
	assert.Equal(t, http.StatusForbidden, got.StatusCode)
	assert.Contains(t, got.Body, "functions.yml")
}

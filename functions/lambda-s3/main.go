// Command lambda-s3 is a sample function: it puts, gets, lists, overwrites and deletes objects of the box's S3 store with
// the AWS SDK as it comes. The box leads the SDK there: AWS_ENDPOINT_URL_S3 and credentials are in the function's
// environment.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/edge-serverless-box/esb/functions/internal/apigw"
)

const (
	// defaultBucket is one of functions/resources.yml.
	defaultBucket = "esb-files"
	// maxBody bounds what get reads: an answer of Lambda has 6 MB at most, and JSON may escape every byte.
	maxBody = 1 << 20
	// maxKeys bounds what list answers.
	maxKeys = 1000
)

// order is the body of a request.
type order struct {
	Action string `json:"action"`
	Bucket string `json:"bucket"`
	Key    string `json:"key"`
	Body   string `json:"body"`
}

// answer is the body of a 200. Which members it has depends on the action.
type answer struct {
	Success bool     `json:"success"`
	Action  string   `json:"action"`
	Bucket  string   `json:"bucket"`
	Key     string   `json:"key,omitempty"`
	ETag    string   `json:"etag,omitempty"`
	Body    *string  `json:"body,omitempty"`
	Keys    []string `json:"keys,omitzero"`
}

// client is what this function uses of *s3.Client.
type client interface {
	PutObject(ctx context.Context, in *s3.PutObjectInput, o ...func(*s3.Options)) (*s3.PutObjectOutput, error)
	GetObject(ctx context.Context, in *s3.GetObjectInput, o ...func(*s3.Options)) (*s3.GetObjectOutput, error)
	HeadObject(ctx context.Context, in *s3.HeadObjectInput, o ...func(*s3.Options)) (*s3.HeadObjectOutput, error)
	DeleteObject(ctx context.Context, in *s3.DeleteObjectInput, o ...func(*s3.Options)) (*s3.DeleteObjectOutput, error)
	ListObjectsV2(ctx context.Context, in *s3.ListObjectsV2Input, o ...func(*s3.Options)) (*s3.ListObjectsV2Output, error)
}

type function struct{ s3 client }

func main() {
	settings, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "lambda-s3: read the SDK's settings:", err)
		os.Exit(1)
	}
	lambda.Start((&function{s3: s3.NewFromConfig(settings)}).handle)
}

// refusal is an answer other than 200.
type refusal struct {
	status  int
	message string
}

func (r refusal) Error() string { return r.message }

func (f *function) handle(ctx context.Context, request events.APIGatewayProxyRequest) (events.APIGatewayProxyResponse, error) {
	var o order
	if err := apigw.Decode(request, &o); err != nil {
		return apigw.Message(http.StatusBadRequest, err.Error())
	}
	if o.Bucket == "" {
		o.Bucket = defaultBucket
	}
	a, err := f.do(ctx, o)
	if err == nil {
		return apigw.JSON(http.StatusOK, a)
	}
	var r refusal
	if !errors.As(err, &r) {
		r = explain(err)
		fmt.Fprintln(os.Stderr, "lambda-s3:", o.Action, o.Bucket, o.Key, err)
	}
	return apigw.Message(r.status, r.message)
}

func (f *function) do(ctx context.Context, o order) (answer, error) {
	actions := map[string]func(context.Context, order, *answer) error{
		"put": f.put, "get": f.get, "list": f.list, "delete": f.remove, "overwrite": f.overwrite,
	}
	act, ok := actions[o.Action]
	if !ok {
		return answer{}, refusal{http.StatusBadRequest, "action must be put, get, list, delete or overwrite"}
	}
	if o.Key == "" && o.Action != "list" {
		return answer{}, refusal{http.StatusBadRequest, "key is missing"}
	}
	a := answer{Success: true, Action: o.Action, Bucket: o.Bucket, Key: o.Key}
	err := act(ctx, o, &a)
	return a, err
}

func (f *function) put(ctx context.Context, o order, a *answer) error {
	out, err := f.s3.PutObject(ctx, &s3.PutObjectInput{Bucket: &o.Bucket, Key: &o.Key, Body: strings.NewReader(o.Body)})
	if err != nil {
		return fmt.Errorf("put: %w", err)
	}
	a.ETag = aws.ToString(out.ETag)
	return nil
}

// overwrite is put for an object that must be there.
func (f *function) overwrite(ctx context.Context, o order, a *answer) error {
	if _, err := f.s3.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &o.Bucket, Key: &o.Key}); err != nil {
		return fmt.Errorf("look for the object: %w", err)
	}
	return f.put(ctx, o, a)
}

func (f *function) get(ctx context.Context, o order, a *answer) error {
	out, err := f.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &o.Bucket, Key: &o.Key})
	if err != nil {
		return fmt.Errorf("get: %w", err)
	}
	defer func() { _ = out.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(out.Body, maxBody+1))
	if err != nil {
		return fmt.Errorf("read the object: %w", err)
	}
	if len(body) > maxBody {
		return refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("the object is larger than %d bytes", maxBody)}
	}
	a.Body, a.ETag = aws.String(string(body)), aws.ToString(out.ETag)
	return nil
}

// list answers with the keys that begin with the given one.
func (f *function) list(ctx context.Context, o order, a *answer) error {
	out, err := f.s3.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: &o.Bucket, Prefix: &o.Key, MaxKeys: aws.Int32(maxKeys)})
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	a.Keys = make([]string, 0, len(out.Contents))
	for _, object := range out.Contents {
		a.Keys = append(a.Keys, aws.ToString(object.Key))
	}
	slices.Sort(a.Keys)
	return nil
}

// remove is delete. As in S3, deleting what is not there is no error.
func (f *function) remove(ctx context.Context, o order, _ *answer) error {
	if _, err := f.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &o.Bucket, Key: &o.Key}); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	return nil
}

// explain makes an answer of the store's error.
func explain(err error) refusal {
	var said smithy.APIError
	if !errors.As(err, &said) {
		return refusal{http.StatusBadGateway, "the store cannot be reached"}
	}
	switch said.ErrorCode() {
	case "NoSuchKey", "NoSuchBucket", "NotFound":
		return refusal{http.StatusNotFound, "there is no such object or bucket"}
	case "AccessDenied", "Forbidden":
		return refusal{http.StatusForbidden, "this function has no such access: its s3 in functions.yml says what it may use"}
	}
	return refusal{http.StatusBadGateway, "the store answered " + said.ErrorCode()}
}

package codewatch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/edge-serverless-box/esb/api/reason"
)

// askTimeout bounds one question to the store.
const askTimeout = 4 * time.Second

// S3 asks an S3 store.
type S3 struct {
	endpoint string
	client   *s3.Client
}

// NewS3 returns a client of the store at endpoint, a URL.
func NewS3(endpoint, region, accessKey, secretKey string) *S3 {
	return &S3{endpoint: endpoint, client: s3.New(s3.Options{
		BaseEndpoint: aws.String(endpoint), Region: region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
		// The next look comes soon enough.
		RetryMaxAttempts: 1,
	})}
}

// ETag implements Objects.
func (s *S3) ETag(ctx context.Context, bucket, key string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	out, err := s.client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		var answer *awshttp.ResponseError
		if errors.As(err, &answer) {
			switch answer.HTTPStatusCode() {
			case http.StatusNotFound:
				return "", &problem{reason.CodeMissing, fmt.Errorf("there is no such object at %s (S3_ENDPOINT)", s.endpoint)}
			case http.StatusForbidden, http.StatusUnauthorized:
				return "", &problem{reason.CodeMissing, fmt.Errorf("%s refuses the gateway's key (S3_ACCESS_KEY, S3_SECRET_KEY)", s.endpoint)}
			}
			// Its text has a request id in it, so that each would look like a new problem.
			return "", &problem{reason.StoreAway, fmt.Errorf("%s (S3_ENDPOINT) answered with status %d", s.endpoint, answer.HTTPStatusCode())}
		}
		return "", &problem{reason.StoreAway, fmt.Errorf("%s (S3_ENDPOINT) cannot be asked: %w", s.endpoint, errors.Unwrap(err))}
	}
	etag := strings.Trim(aws.ToString(out.ETag), `"`)
	if etag == "" {
		return "", &problem{reason.StoreAway, fmt.Errorf("%s (S3_ENDPOINT) tells no ETag", s.endpoint)}
	}
	return etag, nil
}

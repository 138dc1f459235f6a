package async

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// S3 puts records into an S3 store.
type S3 struct {
	client *s3.Client
}

// NewS3 returns a client of the store at endpoint, a URL.
func NewS3(endpoint, region, accessKey, secretKey string) *S3 {
	return &S3{client: s3.New(s3.Options{
		BaseEndpoint: aws.String(endpoint), Region: region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
		// The queue tries again, and counts.
		RetryMaxAttempts: 1,
	})}
}

// Put implements Objects.
func (s *S3) Put(ctx context.Context, bucket, key string, body []byte) error {
	_, err := s.client.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: bytes.NewReader(body), ContentType: aws.String("application/json")})
	var answer *awshttp.ResponseError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answer):
		return fmt.Errorf("put s3://%s/%s: the store answered with status %d", bucket, key, answer.HTTPStatusCode())
	}
	return fmt.Errorf("put s3://%s/%s: %w", bucket, key, err)
}

package code

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/api/reason"
)

// S3 reads objects of an S3 store.
type S3 struct {
	endpoint string
	client   *s3.Client
}

// NewS3 returns a client of the store at endpoint, a URL.
func NewS3(endpoint, region, accessKey, secretKey string) *S3 {
	return &S3{endpoint: endpoint, client: s3.New(s3.Options{
		BaseEndpoint: aws.String(endpoint), Region: region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(accessKey, secretKey, ""),
	})}
}

// Fetch implements Objects.
func (s *S3) Fetch(ctx context.Context, bucket, key, etag string, w io.Writer) error {
	out, err := s.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key, IfMatch: aws.String(`"` + etag + `"`)})
	if err != nil {
		return s.explain(err, etag)
	}
	defer func() { _ = out.Body.Close() }()
	// A store that does not know If-Match answers all the same.
	if got := strings.Trim(aws.ToString(out.ETag), `"`); got != etag {
		return changed(etag)
	}
	if _, err := io.Copy(w, out.Body); err != nil {
		if ours := (*agent.Error)(nil); errors.As(err, &ours) {
			return ours
		}
		return agent.Errorf(agent.CodeUnavailable, "download from %s broke off: %w", s.endpoint, err)
	}
	return nil
}

func changed(etag string) error {
	return agent.Because(reason.CodeChanging, agent.Errorf(agent.CodeUnavailable,
		"the object is not the version %s any more that was asked for: the gateway takes up the new one when it has seen it", etag))
}

// explain gives an error of the store its code.
func (s *S3) explain(err error, etag string) error {
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) {
		switch answer.HTTPStatusCode() {
		case http.StatusPreconditionFailed:
			return changed(etag)
		case http.StatusNotFound:
			return agent.Because(reason.CodeMissing, agent.Errorf(agent.CodePrecondition, "there is no such object at %s (S3_ENDPOINT)", s.endpoint))
		case http.StatusForbidden, http.StatusUnauthorized:
			return agent.Because(reason.CodeMissing, agent.Errorf(agent.CodePrecondition, "%s refuses the agent's key (S3_ACCESS_KEY, S3_SECRET_KEY): %w", s.endpoint, err))
		}
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("the agent is stopping: %w", err)
	}
	return agent.Errorf(agent.CodeUnavailable, "%s (S3_ENDPOINT) cannot be asked: %w", s.endpoint, err)
}

package provision

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/edge-serverless-box/esb/gateway"
)

// usEast1 is the region that a bucket has when it names none, and that must not be named (S3 API, CreateBucket).
const usEast1 = "us-east-1"

// bucketStore is the S3 store.
type bucketStore struct {
	client *s3.Client
	region string
}

func (s *bucketStore) ping(ctx context.Context) error {
	_, err := s.client.ListBuckets(ctx, &s3.ListBucketsInput{MaxBuckets: aws.Int32(1)}, func(o *s3.Options) { o.RetryMaxAttempts = 1 })
	if err != nil {
		return fmt.Errorf("list buckets: %w", err)
	}
	return nil
}

func (s *bucketStore) maker(definition any) maker {
	return &bucketMaker{store: s, want: definition.(gateway.Bucket)}
}

// bucketMaker makes one bucket.
type bucketMaker struct {
	store *bucketStore
	want  gateway.Bucket
}

func (m *bucketMaker) ensure(ctx context.Context) ([]string, error) {
	if problem, err := m.create(ctx); problem != "" || err != nil {
		return list(problem), err
	}
	problem, err := m.versioning(ctx)
	return list(problem), err
}

func list(problem string) []string {
	if problem == "" {
		return nil
	}
	return []string{problem}
}

// create makes the bucket unless it is there.
func (m *bucketMaker) create(ctx context.Context) (problem string, err error) {
	client, name := m.store.client, aws.String(m.want.Name)
	_, err = client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: name})
	if err == nil {
		return "", nil
	}
	var response *smithyhttp.ResponseError
	if !errors.As(err, &response) || response.HTTPStatusCode() != http.StatusNotFound {
		return decide("look for the bucket", err)
	}
	input := &s3.CreateBucketInput{Bucket: name}
	if m.store.region != usEast1 {
		input.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(m.store.region)}
	}
	_, err = client.CreateBucket(ctx, input)
	var mine *types.BucketAlreadyOwnedByYou
	if err == nil || errors.As(err, &mine) {
		return "", nil
	}
	return decide("make the bucket", err)
}

func (m *bucketMaker) versioning(ctx context.Context) (problem string, err error) {
	client, name := m.store.client, aws.String(m.want.Name)
	have, err := client.GetBucketVersioning(ctx, &s3.GetBucketVersioningInput{Bucket: name})
	if err != nil {
		if !m.want.Versioning && !temporary(err) {
			return "", nil // a store without versioning, and none is asked for
		}
		return decide("read the bucket's versioning", err)
	}
	enabled := have.Status == types.BucketVersioningStatusEnabled
	switch {
	case enabled && !m.want.Versioning:
		return "keeps versions in the store, and resources.yml does not say so: add versioning: true, or suspend it by hand", nil
	case enabled == m.want.Versioning:
		return "", nil
	}
	_, err = client.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{
		Bucket: name, VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled},
	})
	if err != nil {
		return decide("switch versioning on", err)
	}
	return "", nil
}

// decide makes a problem of what a store refused, and an error of what may pass.
func decide(doing string, err error) (problem string, _ error) {
	if temporary(err) {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Sprintf("the store refuses to %s: %s", doing, refusal(err)), nil
}

// Package clients drives a whole box with the clients that people have: unmodified, pinned where they are downloaded, with
// no more settings than endpoint, region and keys.
package clients

import (
	"context"
	"os"
	"testing"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// box is the stack that all tests of this package share, with the sample functions; TestMain owns it.
var box *stack.Stack

func TestMain(m *testing.M) {
	os.Exit(stack.RunTests("clients", func(_, home string) (_ *stack.Stack, err error) {
		box, err = stack.Prepare(home, stack.Options{})
		return box, err
	}, func(context.Context) (int, error) { return m.Run(), nil }))
}

// environment is what a client is told of the box, as its user would.
func environment() []string {
	return append(os.Environ(),
		"AWS_ACCESS_KEY_ID="+stack.AccessKey, "AWS_SECRET_ACCESS_KEY="+stack.SecretKey, "AWS_SESSION_TOKEN=", "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ENDPOINT_URL_LAMBDA="+box.HTTPURL, "AWS_ENDPOINT_URL_S3="+box.S3URL, "AWS_ENDPOINT_URL_DYNAMODB="+box.DynamoDBURL,
		"AWS_ENDPOINT_URL_DYNAMODB_STREAMS="+box.DynamoDBURL)
}

package clients

import (
	"encoding/base64"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// TestGo_V2 invokes in all ways. Its S3 and DynamoDB are in tests/stores.
func TestGo_V2(t *testing.T) {
	client := lambda.New(lambda.Options{
		BaseEndpoint: &box.HTTPURL, Region: "us-east-1", Credentials: credentials.NewStaticCredentialsProvider(stack.AccessKey, stack.SecretKey, ""),
	})
	in := lambda.InvokeInput{FunctionName: aws.String("lambda-respond"), Payload: []byte(`{"body":"{\"n\":1}"}`), LogType: types.LogTypeTail}
	out, err := client.Invoke(t.Context(), &in)
	require.NoError(t, err)
	assert.JSONEq(t, `{"n":1}`, string(out.Payload))
	tail, err := base64.StdEncoding.DecodeString(aws.ToString(out.LogResult))
	require.NoError(t, err)
	assert.Contains(t, string(tail), "REPORT RequestId: ")
	for kind, want := range map[types.InvocationType]int32{types.InvocationTypeEvent: 202, types.InvocationTypeDryRun: 204} {
		in := in
		in.InvocationType, in.LogType = kind, ""
		out, err := client.Invoke(t.Context(), &in)
		require.NoError(t, err)
		assert.Equal(t, want, out.StatusCode)
	}
	var missing *types.ResourceNotFoundException
	_, err = client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("nobody")})
	require.ErrorAs(t, err, &missing)
	var content *types.InvalidRequestContentException
	_, err = client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("lambda-respond"), Payload: []byte("{")})
	require.ErrorAs(t, err, &content)
	failed, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("lambda-chaos"), Payload: []byte(`{"body":"{\"action\":\"panic\"}"}`)})
	require.NoError(t, err)
	assert.Equal(t, "Unhandled", aws.ToString(failed.FunctionError))

	streamed, err := client.InvokeWithResponseStream(t.Context(), &lambda.InvokeWithResponseStreamInput{
		FunctionName: aws.String("lambda-stream"), Payload: []byte(`{"rawQueryString":"chunks=4","queryStringParameters":{"chunks":"4","prelude":"no"}}`),
	})
	require.NoError(t, err)
	text, complete := "", false
	for event := range streamed.GetStream().Events() {
		switch e := event.(type) {
		case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
			text += string(e.Value.Payload)
		case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
			complete = true
			assert.Nil(t, e.Value.ErrorCode)
		}
	}
	require.NoError(t, streamed.GetStream().Close())
	assert.True(t, complete)
	assert.Contains(t, text, "chunk 4 of 4")
}

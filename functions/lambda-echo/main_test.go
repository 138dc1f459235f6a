package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEcho_Request_AnswersExactJSON(t *testing.T) {
	ctx := lambdacontext.NewContext(context.Background(), &lambdacontext.LambdaContext{AwsRequestID: "r-1"})
	request := events.APIGatewayProxyRequest{Body: `{"message":"hällo"}`}
	request.RequestContext.Authorizer = map[string]any{"cognito:username": "ana"}
	e := &echo{instance: "i-1"}

	first, err := e.handle(ctx, request)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, first.StatusCode)
	assert.Equal(t, "application/json", first.Headers["Content-Type"])
	assert.Equal(t, `{"success":true,"message":"hällo","user":"ana","instance":"i-1","count":1,"request_id":"r-1"}`, first.Body)

	request.Body, request.IsBase64Encoded = "eyJtZXNzYWdlIjoiYiJ9", true
	request.RequestContext.Authorizer = nil
	second, err := e.handle(ctx, request)
	require.NoError(t, err)
	assert.Equal(t, `{"success":true,"message":"b","user":"","instance":"i-1","count":2,"request_id":"r-1"}`, second.Body)
}

func TestEcho_BadBody_Answers400(t *testing.T) {
	cases := map[string]events.APIGatewayProxyRequest{
		"empty":       {},
		"not JSON":    {Body: "{"},
		"not object":  {Body: `[1]`},
		"wrong type":  {Body: `{"message":1}`},
		"not base64":  {Body: "%", IsBase64Encoded: true},
		"base64 junk": {Body: "e30x", IsBase64Encoded: true},
	}
	for name, request := range cases {
		t.Run(name, func(t *testing.T) {
			e := &echo{}
			answer, err := e.handle(context.Background(), request)
			require.NoError(t, err)
			assert.Equal(t, http.StatusBadRequest, answer.StatusCode)
			assert.Contains(t, answer.Body, `{"message":"the request body is not`)
			assert.Zero(t, e.count)
		})
	}
}

func TestInstanceID_SecondProcess_KeepsIt(t *testing.T) {
	dir := t.TempDir()
	first, err := instanceID(dir)
	require.NoError(t, err)
	second, err := instanceID(dir)
	require.NoError(t, err)
	other, err := instanceID(t.TempDir())
	require.NoError(t, err)

	assert.Len(t, first, 16)
	assert.Equal(t, first, second)
	assert.NotEqual(t, first, other)

	_, err = instanceID(filepath.Join(dir, "nothere"))
	assert.ErrorIs(t, err, os.ErrNotExist)
}

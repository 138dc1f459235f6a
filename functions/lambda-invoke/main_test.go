package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHandle_AnswersWithWhatTheAPISaid(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/denied/") {
			w.Header().Set("X-Amzn-Errortype", "AccessDeniedException")
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, `{"Message":"no"}`)
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Amz-Function-Error", r.Header.Get("X-Amz-Invocation-Type"))
		_, _ = w.Write(body)
	}))
	defer api.Close()
	f := &function{api: lambda.New(lambda.Options{Region: "us-east-1", BaseEndpoint: &api.URL, Credentials: aws.AnonymousCredentials{}})}
	for _, c := range []struct {
		body   string
		status int
		want   string
	}{
		{`{"function":"f","payload":{"a":1},"type":"RequestResponse"}`, 200, `{"status":200,"payload":"{\"a\":1}","function_error":"RequestResponse"}`},
		{`{"function":"denied"}`, 403, `{"message":"AccessDeniedException: no"}`},
		{`{}`, 400, `{"message":"function is missing"}`},
	} {
		got, err := f.handle(context.Background(), events.APIGatewayProxyRequest{Body: c.body})
		require.NoError(t, err)
		assert.Equal(t, c.status, got.StatusCode, got.Body)
		assert.JSONEq(t, c.want, got.Body)
		assert.True(t, json.Valid([]byte(got.Body)))
	}
}

package stack

import (
	"bytes"
	"context"
	"net/http"
	"time"

	"github.com/edge-serverless-box/esb/sigv4"
)

// EventRequest is an asynchronous invocation of a function by Lambda's API. Its answer, where the event was accepted, is 202 with the
// request's id in X-Amzn-RequestId.
func (s *Stack) EventRequest(ctx context.Context, function string, payload []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.HTTPURL+"/2015-03-31/functions/"+function+"/invocations", bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-Amz-Invocation-Type", "Event")
	sigv4.Sign(r, sigv4.Credentials{AccessKeyID: AccessKey, SecretAccessKey: SecretKey}, "us-east-1", "lambda", sigv4.HashPayload(payload), time.Now())
	return r, nil
}

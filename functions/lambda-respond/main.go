// Command lambda-respond is a sample function: the body of the request is its result, byte for byte, so that a test can
// make a function answer anything, also what is not JSON. A base64 body is decoded first.
package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/edge-serverless-box/esb/functions/internal/apigw"
)

// handler implements lambda.Handler, whose result is sent as it is.
type handler struct{}

func main() { lambda.Start(handler{}) }

// Invoke returns the request's body; an event without a body gives the result null.
func (handler) Invoke(_ context.Context, event []byte) ([]byte, error) {
	var request struct {
		Body            *string `json:"body"`
		IsBase64Encoded bool    `json:"isBase64Encoded"`
	}
	if err := json.Unmarshal(event, &request); err != nil {
		return nil, fmt.Errorf("read the event: %w", err)
	}
	if request.Body == nil {
		return []byte("null"), nil
	}
	return apigw.Body(*request.Body, request.IsBase64Encoded)
}

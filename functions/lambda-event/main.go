// Command lambda-event is a sample function: it answers 200, and its body is the event exactly as received, byte for
// byte.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
)

// handler implements lambda.Handler: unlike a plain function, it sees the event before any decoding.
type handler struct{}

func main() { lambda.Start(handler{}) }

// Invoke answers with the event as body.
func (handler) Invoke(_ context.Context, event []byte) ([]byte, error) {
	answer, err := json.Marshal(events.APIGatewayProxyResponse{
		StatusCode: http.StatusOK,
		Headers:    map[string]string{"Content-Type": "application/json"},
		Body:       string(event),
	})
	if err != nil {
		return nil, fmt.Errorf("marshal the answer: %w", err)
	}
	return answer, nil
}

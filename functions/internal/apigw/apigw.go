// Package apigw is what the sample functions share: the body of an API Gateway event, and a JSON answer to it.
package apigw

import (
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/aws/aws-lambda-go/events"
)

// Body returns the bytes of a request's body; base64 is decoded when the event says that the body is encoded.
func Body(body string, isBase64 bool) ([]byte, error) {
	if !isBase64 {
		return []byte(body), nil
	}
	decoded, err := base64.StdEncoding.DecodeString(body)
	if err != nil {
		return nil, fmt.Errorf("the request body is not valid base64: %w", err)
	}
	return decoded, nil
}

// Decode reads the JSON object in a request's body into v. Its errors may be shown to clients.
func Decode(request events.APIGatewayProxyRequest, v any) error {
	body, err := Body(request.Body, request.IsBase64Encoded)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("the request body is not the expected JSON object: %w", err)
	}
	return nil
}

// JSON answers with v as a JSON body.
func JSON(status int, v any) (events.APIGatewayProxyResponse, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return events.APIGatewayProxyResponse{}, fmt.Errorf("marshal the answer: %w", err)
	}
	return events.APIGatewayProxyResponse{
		StatusCode: status,
		Headers:    map[string]string{"Content-Type": "application/json"},
		Body:       string(body),
	}, nil
}

// Message answers with {"message": text}.
func Message(status int, text string) (events.APIGatewayProxyResponse, error) {
	return JSON(status, struct {
		Message string `json:"message"`
	}{text})
}

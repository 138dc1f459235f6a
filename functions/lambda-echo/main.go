// Command lambda-echo is a sample function: POST {"message": "x"} answers with that message, who asked, and which
// container answered. A body that is not such a JSON object is answered 400 {"message": <why>}.
package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"

	"github.com/edge-serverless-box/esb/functions/internal/apigw"
)

// answer is the body of a 200; the order of its members is part of the sample's contract.
type answer struct {
	Success bool   `json:"success"`
	Message string `json:"message"`
	// User is the caller's cognito:username, as the gateway's authorizer gave it.
	User string `json:"user"`
	// Instance identifies the container: it survives a restart of the process in the same container.
	Instance string `json:"instance"`
	// Count is how many requests this process has served, this one included.
	Count     int    `json:"count"`
	RequestID string `json:"request_id"`
}

// echo serves requests one at a time, as Lambda does.
type echo struct {
	instance string
	count    int
}

func main() {
	instance, err := instanceID(os.TempDir())
	if err != nil {
		fmt.Fprintln(os.Stderr, "lambda-echo:", err)
		os.Exit(1)
	}
	lambda.Start((&echo{instance: instance}).handle)
}

func (e *echo) handle(ctx context.Context, request events.APIGatewayProxyRequest) (events.APIGatewayProxyResponse, error) {
	var given struct {
		Message string `json:"message"`
	}
	if err := apigw.Decode(request, &given); err != nil {
		return apigw.Message(http.StatusBadRequest, err.Error())
	}
	e.count++
	user, _ := request.RequestContext.Authorizer["cognito:username"].(string)
	a := answer{Success: true, Message: given.Message, User: user, Instance: e.instance, Count: e.count}
	if lc, ok := lambdacontext.FromContext(ctx); ok {
		a.RequestID = lc.AwsRequestID
	}
	return apigw.JSON(http.StatusOK, a)
}

// instanceID returns the id that an earlier process of this container left in dir (/tmp lives as long as the
// container), else makes and leaves one.
func instanceID(dir string) (string, error) {
	path := filepath.Join(dir, "lambda-echo-instance")
	if old, err := os.ReadFile(path); err == nil {
		if id := strings.TrimSpace(string(old)); id != "" {
			return id, nil
		}
	}
	random := make([]byte, 8)
	if _, err := rand.Read(random); err != nil {
		return "", fmt.Errorf("make an instance id: %w", err)
	}
	id := hex.EncodeToString(random)
	if err := os.WriteFile(path, []byte(id), 0o600); err != nil {
		return "", fmt.Errorf("keep the instance id: %w", err)
	}
	return id, nil
}

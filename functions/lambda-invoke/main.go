// Command lambda-invoke is a sample function: it invokes another one with the AWS SDK as it comes. The box leads the SDK to
// itself: AWS_ENDPOINT_URL_LAMBDA and credentials are in the function's environment. Whom it may invoke says functions.yml.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	lambdaapi "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/edge-serverless-box/esb/functions/internal/apigw"
)

// order is the body of a request.
type order struct {
	// Function is a name or an ARN.
	Function string `json:"function"`
	// Type is RequestResponse (default), Event or DryRun. With Stream the result is asked for as a stream.
	Type    string          `json:"type"`
	Stream  bool            `json:"stream"`
	Payload json.RawMessage `json:"payload"`
}

// answer is the body of a 200.
type answer struct {
	// Status is what the Invoke API answered: 200, 202 or 204.
	Status int `json:"status"`
	// Payload is the result, as text.
	Payload string `json:"payload"`
	// FunctionError is set when the function failed.
	FunctionError string `json:"function_error,omitempty"`
	// Chunks are the pieces of a stream.
	Chunks int `json:"chunks,omitempty"`
}

type function struct{ api *lambdaapi.Client }

func main() {
	settings, err := config.LoadDefaultConfig(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, "lambda-invoke: read the SDK's settings:", err)
		os.Exit(1)
	}
	lambda.Start((&function{api: lambdaapi.NewFromConfig(settings)}).handle)
}

func (f *function) handle(ctx context.Context, request events.APIGatewayProxyRequest) (events.APIGatewayProxyResponse, error) {
	var o order
	if err := apigw.Decode(request, &o); err != nil {
		return apigw.Message(http.StatusBadRequest, err.Error())
	}
	if o.Function == "" {
		return apigw.Message(http.StatusBadRequest, "function is missing")
	}
	fmt.Println("lambda-invoke: invoking", o.Function)
	do := f.invoke
	if o.Stream {
		do = f.stream
	}
	a, err := do(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "lambda-invoke:", o.Function, err)
		return explain(err)
	}
	return apigw.JSON(http.StatusOK, a)
}

func (f *function) invoke(ctx context.Context, o order) (answer, error) {
	out, err := f.api.Invoke(ctx, &lambdaapi.InvokeInput{FunctionName: &o.Function, InvocationType: types.InvocationType(o.Type), Payload: o.Payload})
	if err != nil {
		return answer{}, err
	}
	a := answer{Status: int(out.StatusCode), Payload: string(out.Payload)}
	if out.FunctionError != nil {
		a.FunctionError = *out.FunctionError
	}
	return a, nil
}

func (f *function) stream(ctx context.Context, o order) (answer, error) {
	out, err := f.api.InvokeWithResponseStream(ctx, &lambdaapi.InvokeWithResponseStreamInput{FunctionName: &o.Function, Payload: o.Payload})
	if err != nil {
		return answer{}, err
	}
	stream := out.GetStream()
	defer func() { _ = stream.Close() }()
	a := answer{Status: int(out.StatusCode)}
	var payload bytes.Buffer
	for event := range stream.Events() {
		switch e := event.(type) {
		case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
			payload.Write(e.Value.Payload)
			a.Chunks++
		case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
			if e.Value.ErrorCode != nil {
				a.FunctionError = *e.Value.ErrorCode
			}
		}
	}
	a.Payload = payload.String()
	return a, stream.Err()
}

// explain answers with the exception of the Invoke API.
func explain(err error) (events.APIGatewayProxyResponse, error) {
	var said smithy.APIError
	var response *smithyhttp.ResponseError
	if !errors.As(err, &said) || !errors.As(err, &response) {
		return apigw.Message(http.StatusBadGateway, "the Invoke API cannot be reached")
	}
	return apigw.Message(response.HTTPStatusCode(), said.ErrorCode()+": "+said.ErrorMessage())
}

// Command lambda-chaos is a sample function that misbehaves on request. POST {"action": ...}:
//
//	ok                    answers 200 {"action":"ok"}
//	sleep    "ms": n      sleeps n milliseconds, then answers 200 {"action":"sleep","ms":n}
//	exit     "code": n    ends the process with exit code n
//	panic                 panics: aws-lambda-go reports it as a function error and ends the process
//	segfault              dies of SIGSEGV
//	oom                   allocates and touches memory until the kernel kills the process
//	big      "bytes": n   answers 200 with a text body of n bytes
//	log      "lines": n   prints n lines "chaos line 1 of n", then answers 200 {"action":"log","lines":n}
//	init-fail             cannot be had by a request, see below; answers 400 that says so
//
// Anything else is answered 400 {"message": <why>}. The environment variable CHAOS_INIT_FAIL makes the initialisation
// fail instead: "exit" ends the process with code 1, "error" reports an error to /init/error as a runtime does and ends,
// "panic" panics, "hang" never asks for an invocation; empty or unset: no failure.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"

	"github.com/edge-serverless-box/esb/functions/internal/apigw"
)

// maxBig bounds the body of "big": enough to exceed every limit of the box (AWS: 6 MB), not enough to hurt it.
const maxBig = 64 << 20

// initErrorLimit bounds the report to /init/error.
const initErrorLimit = 5 * time.Second

func main() {
	if err := failInit(os.Getenv("CHAOS_INIT_FAIL"), os.Getenv("AWS_LAMBDA_RUNTIME_API")); err != nil {
		fmt.Fprintln(os.Stderr, "lambda-chaos:", err)
		os.Exit(1)
	}
	lambda.Start(handle)
}

// failInit fails as mode says; it returns nil when no failure is asked for.
func failInit(mode, runtimeAPI string) error {
	switch mode {
	case "":
		return nil
	case "exit":
		return fmt.Errorf("CHAOS_INIT_FAIL=exit")
	case "panic":
		panic("CHAOS_INIT_FAIL=panic")
	case "hang":
		for {
			time.Sleep(time.Hour)
		}
	case "error":
		return reportInitError(runtimeAPI)
	default:
		return fmt.Errorf("CHAOS_INIT_FAIL: must be exit, error, panic or hang, got %q", mode)
	}
}

// reportInitError does what a runtime does when a function cannot be loaded. It always returns an error.
func reportInitError(runtimeAPI string) error {
	ctx, cancel := context.WithTimeout(context.Background(), initErrorLimit)
	defer cancel()
	body := `{"errorMessage":"CHAOS_INIT_FAIL=error","errorType":"Chaos.InitError","stackTrace":[]}`
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+runtimeAPI+"/2018-06-01/runtime/init/error",
		strings.NewReader(body))
	if err != nil {
		return fmt.Errorf("report the init error: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Lambda-Runtime-Function-Error-Type", "Chaos.InitError")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("report the init error: %w", err)
	}
	_ = response.Body.Close()
	return fmt.Errorf("CHAOS_INIT_FAIL=error")
}

// order is the body of a request.
type order struct {
	Action string `json:"action"`
	MS     int    `json:"ms"`
	Code   int    `json:"code"`
	Bytes  int    `json:"bytes"`
	Lines  int    `json:"lines"`
}

// report is the body of an answer; only the member that belongs to the action is present.
type report struct {
	Action string `json:"action"`
	MS     *int   `json:"ms,omitempty"`
	Lines  *int   `json:"lines,omitempty"`
}

func handle(_ context.Context, request events.APIGatewayProxyRequest) (events.APIGatewayProxyResponse, error) {
	var o order
	if err := apigw.Decode(request, &o); err != nil {
		return apigw.Message(http.StatusBadRequest, err.Error())
	}
	switch o.Action {
	case "ok":
		return apigw.JSON(http.StatusOK, report{Action: o.Action})
	case "sleep":
		// The context is not looked at: a function that ignores its deadline is the point.
		time.Sleep(time.Duration(o.MS) * time.Millisecond)
		return apigw.JSON(http.StatusOK, report{Action: o.Action, MS: &o.MS})
	case "exit":
		os.Exit(o.Code)
	case "panic":
		panic("chaos panic")
	case "segfault":
		return events.APIGatewayProxyResponse{}, segfault()
	case "oom":
		return events.APIGatewayProxyResponse{}, exhaustMemory(memoryBudget(os.Getenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")))
	case "big":
		if o.Bytes < 0 || o.Bytes > maxBig {
			return apigw.Message(http.StatusBadRequest, fmt.Sprintf("bytes: must be 0 to %d, got %d", maxBig, o.Bytes))
		}
		return events.APIGatewayProxyResponse{
			StatusCode: http.StatusOK,
			Headers:    map[string]string{"Content-Type": "text/plain"},
			Body:       strings.Repeat("x", o.Bytes),
		}, nil
	case "log":
		for line := 1; line <= o.Lines; line++ {
			fmt.Printf("chaos line %d of %d\n", line, o.Lines)
		}
		return apigw.JSON(http.StatusOK, report{Action: o.Action, Lines: &o.Lines})
	case "init-fail":
		return apigw.Message(http.StatusBadRequest,
			"init-fail is switched by the function's environment: CHAOS_INIT_FAIL=exit, error, panic or hang")
	}
	return apigw.Message(http.StatusBadRequest,
		"action: must be ok, sleep, exit, panic, segfault, oom, big, log or init-fail")
}

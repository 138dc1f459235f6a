package invoke

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// interpretRIE makes the result of what the AWS Lambda Runtime Interface Emulator answered, which marks neither
// timeouts nor function errors by its headers (measured with AWS's own).
func interpretRIE(fn *gateway.Function, requestID string, rep reply, elapsed time.Duration) (res gateway.Result, fault string, err error) {
	switch rep.status {
	case http.StatusOK:
	case http.StatusBadGateway:
		// The process exited or its init failed. RIE repeats a failed init's answer for ever, so that the worker
		// ends here although it may have recovered. An exit during init has no body at all.
		if len(bytes.TrimSpace(rep.body)) == 0 {
			res = functionError("Runtime.ExitError", "RequestId: "+requestID+" Error: Runtime exited without providing a reason")
		} else {
			res = gateway.Result{Payload: rep.body, FunctionError: "Unhandled", ContentType: rep.header.contentType}
		}
		return res, "function process exited", nil
	default:
		err = errors.New("status " + strconv.Itoa(rep.status) + " from the Runtime Interface Emulator")
		return res, err.Error(), err
	}
	// A function may answer such a text itself: only what came after the timeout is one. RIE's clock started
	// before its answer came back, so that comparing with the whole timeout is safe.
	if elapsed >= fn.Timeout && (bytes.HasPrefix(rep.body, []byte("Task timed out after ")) || errorType(rep.body) == "Sandbox.Timedout") {
		return timedOut(fn, requestID), "function timeout", nil
	}
	res = gateway.Result{Payload: rep.body, ContentType: rep.header.contentType}
	if rep.header.errorType != "" || errorType(rep.body) != "" {
		res.FunctionError = "Unhandled"
	}
	return res, "", nil
}

// errorType returns the errorType of a body that has the shape of a function error and not that of an answer to
// API Gateway, else "".
func errorType(body []byte) string {
	if !bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("{")) || !bytes.Contains(body, []byte(`"errorType"`)) {
		return ""
	}
	var e struct {
		StatusCode   json.RawMessage `json:"statusCode"`
		ErrorType    string          `json:"errorType"`
		ErrorMessage *string         `json:"errorMessage"`
	}
	if json.Unmarshal(body, &e) != nil || e.ErrorMessage == nil || e.StatusCode != nil {
		return ""
	}
	return e.ErrorType
}

// timedOut is AWS's answer for a function that ran past its timeout (recorded 2025-11).
func timedOut(fn *gateway.Function, requestID string) gateway.Result {
	res := functionError("Sandbox.Timedout", fmt.Sprintf("RequestId: %s Error: Task timed out after %.2f seconds", requestID, fn.Timeout.Seconds()))
	res.TimedOut = true
	return res
}

func functionError(kind, message string) gateway.Result {
	payload, err := json.Marshal(struct {
		ErrorType    string `json:"errorType"`
		ErrorMessage string `json:"errorMessage"`
	}{kind, message})
	if err != nil {
		panic(err) // two strings
	}
	return gateway.Result{Payload: payload, FunctionError: "Unhandled"}
}

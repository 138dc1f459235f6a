package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// told is what the function slow tells of its context.
type told struct {
	Container   string
	RemainingMS int `json:"remaining_ms"`
	ARN         string
}

// callSlow calls the function slow by its route, and waits for whatever it does still.
func callSlow(t *testing.T) (answer told) {
	t.Helper()
	got := box.Post(t, "/e2e/slow", "", `{}`)
	require.Equal(t, http.StatusOK, got.Status, "%s", got.Body)
	require.NoError(t, json.Unmarshal(got.Body, &answer))
	return answer
}

// TestOutlive_WhoeverLeaves_TheFunctionRunsToItsEnd: AWS runs a function on to its own timeout when its client has gone, or API
// Gateway has answered 504 (sielert.com/api-gateway-gotcha-with-aws-lambda, aws-lambda-nodejs-runtime-interface-client#145).
func TestOutlive_WhoeverLeaves_TheFunctionRunsToItsEnd(t *testing.T) {
	first := callSlow(t)
	body := func(mark string) []byte { return fmt.Appendf(nil, `{"seconds":4,"mark":%q}`, mark) }
	for name, leave := range map[string]func(t *testing.T, ctx context.Context, mark string){
		"client of a route": func(t *testing.T, ctx context.Context, mark string) {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			_, err := box.Do(ctx, http.MethodPost, box.HTTPURL+"/e2e/slow", "", body(mark))
			require.ErrorIs(t, err, context.DeadlineExceeded)
		},
		"client of the Invoke API": func(t *testing.T, ctx context.Context, mark string) {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			_, err := operator().Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String("slow"), Payload: proxied(string(body(mark)))})
			require.Error(t, err)
		},
		"client of InvokeWithResponseStream": func(t *testing.T, ctx context.Context, mark string) {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			_, err := operator().InvokeWithResponseStream(ctx, &lambda.InvokeWithResponseStreamInput{FunctionName: aws.String("slow"), Payload: proxied(string(body(mark)))})
			require.Error(t, err)
		},
		"timeout of a route": func(t *testing.T, ctx context.Context, mark string) {
			answer, err := box.Do(ctx, http.MethodPost, box.HTTPURL+"/e2e/slow-impatient", "", body(mark))
			require.NoError(t, err)
			assert.Equal(t, http.StatusGatewayTimeout, answer.Status)
			box.RequireLogged(t, "slow", "REPORT RequestId: "+answer.Header.Get("x-amzn-RequestId"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			leave(t, t.Context(), name)
			// It waits: the one worker is busy until the function has ended.
			next := callSlow(t)
			assert.Equal(t, first.Container, next.Container, "a warm call")
			box.RequireLogged(t, "slow", "begun "+name)
			box.RequireLogged(t, "slow", "ended "+name)
		})
	}
}

// TestOutlive_RemainingTime_IsGiven: a route's timeout takes nothing of what the function is told it has.
func TestOutlive_RemainingTime_IsGiven(t *testing.T) {
	answer := box.Post(t, "/e2e/slow-impatient", "", `{"seconds":4,"mark":"remaining"}`)
	require.Equal(t, http.StatusGatewayTimeout, answer.Status)
	assert.Greater(t, callSlow(t).RemainingMS, 15000)
	box.RequireLogged(t, "slow", "ended remaining with 1") // 15 or 16 s of 20
}

// TestOutlive_Setting_EndsTheInvocationWithItsClient: INVOCATION_OUTLIVES_CLIENT=false, on a box of its own.
func TestOutlive_Setting_EndsTheInvocationWithItsClient(t *testing.T) {
	root, err := stack.RepositoryRoot()
	require.NoError(t, err)
	home := t.TempDir()
	config, err := configuration(root, home)
	require.NoError(t, err)
	other, err := stack.Prepare(home, stack.Options{
		Way:             box.Way,
		FunctionsConfig: config + "/functions.yml", RoutingConfig: config + "/routing.yml", ResourcesConfig: config + "/resources.yml",
		Env: []string{"INVOCATION_OUTLIVES_CLIENT=false"},
	})
	require.NoError(t, err)
	require.NoError(t, other.Up(t.Context()))
	defer func() { assert.NoError(t, other.Down()) }()
	stack.Eventually(t, func() bool { return other.Post(t, "/e2e/slow", "", `{}`).Status == http.StatusOK }, "the function must be warm")
	answer := other.Post(t, "/e2e/slow-impatient", "", `{"seconds":15,"mark":"cut"}`)
	assert.Equal(t, http.StatusGatewayTimeout, answer.Status, "%s", answer.Body)
	// One worker is all that the function may have: whichever takes this call, the one before has ended. lambda-init ends it at
	// the route's timeout and serves on, or the gateway was sooner and the container is another.
	next := other.Post(t, "/e2e/slow", "", `{"mark":"after"}`)
	assert.Equal(t, http.StatusOK, next.Status, "%s", next.Body)
	other.RequireLogged(t, "slow", "begun cut")
	other.RequireLogged(t, "slow", "ended after")
	lines, err := other.Query(t.Context(), `function:="slow"`)
	require.NoError(t, err)
	for _, line := range lines {
		assert.NotContains(t, line.Message, "ended cut")
	}
}

// TestQualifier_EndsTheARNThatTheFunctionIsTold: as AWS does when a caller names a version (recorded).
func TestQualifier_EndsTheARNThatTheFunctionIsTold(t *testing.T) {
	const arn = "arn:aws:lambda:us-east-1:123456789012:function:slow"
	for name, c := range map[string]struct {
		function  string
		qualifier *string
		want      string
	}{
		"none":               {function: "slow", want: arn},
		"the query's":        {function: "slow", qualifier: aws.String("$LATEST"), want: arn + ":$LATEST"},
		"the name's":         {function: "slow:$LATEST", want: arn + ":$LATEST"},
		"the whole ARN's":    {function: arn + ":$LATEST", want: arn + ":$LATEST"},
		"of an ARN, without": {function: arn, want: arn},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := operator().Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &c.function, Qualifier: c.qualifier, Payload: proxied(`{}`)})
			require.NoError(t, err)
			var answer struct{ Body string }
			require.NoError(t, json.Unmarshal(out.Payload, &answer), "%s", out.Payload)
			var got told
			require.NoError(t, json.Unmarshal([]byte(answer.Body), &got))
			assert.Equal(t, c.want, got.ARN)
		})
	}
}

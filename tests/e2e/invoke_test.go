package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// sdk is the AWS SDK's Lambda client, with nothing changed but where the service is, and that it asks once.
func sdk(url, access, secret, session string, more ...func(*lambda.Options)) *lambda.Client {
	return lambda.New(lambda.Options{
		Region: "us-east-1", BaseEndpoint: &url, HTTPClient: box.HTTP, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(access, secret, session),
	}, more...)
}

func operator() *lambda.Client { return sdk(box.HTTPURL, stack.AccessKey, stack.SecretKey, "") }

// proxied is the payload for a function that reads the body of API Gateway's event.
func proxied(body string) []byte {
	payload, _ := json.Marshal(map[string]string{"body": body})
	return payload
}

func requireCode(t *testing.T, err error, code string) {
	t.Helper()
	var said smithy.APIError
	require.ErrorAs(t, err, &said)
	assert.Equal(t, code, said.ErrorCode(), said.ErrorMessage())
}

func TestInvoke_RequestResponse(t *testing.T) {
	const arn = "arn:aws:lambda:us-east-1:123456789012:function:lambda-respond"
	for _, url := range []string{box.HTTPURL, box.HTTPSURL} {
		client := sdk(url, stack.AccessKey, stack.SecretKey, "")
		for _, name := range []string{"lambda-respond", "lambda-respond:$LATEST", arn, arn + ":$LATEST", "123456789012:function:lambda-respond"} {
			out, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &name, Payload: proxied(`{"answer":42}`)})
			require.NoError(t, err, name)
			assert.Equal(t, int32(200), out.StatusCode)
			assert.JSONEq(t, `{"answer":42}`, string(out.Payload))
			assert.Equal(t, "$LATEST", *out.ExecutedVersion)
			assert.Nil(t, out.FunctionError)
			assert.Nil(t, out.LogResult)
		}
	}
}

func TestInvoke_LogTypeTail_ReturnsTheLog(t *testing.T) {
	out, err := operator().Invoke(t.Context(), &lambda.InvokeInput{
		FunctionName: aws.String("burst"), Payload: proxied(`{"action":"log","lines":3}`), LogType: types.LogTypeTail,
	})
	require.NoError(t, err)
	log, err := base64.StdEncoding.DecodeString(aws.ToString(out.LogResult))
	require.NoError(t, err)
	assert.Contains(t, string(log), "chaos line 3 of 3")
	assert.Contains(t, string(log), "REPORT RequestId: ")
}

func TestInvoke_FunctionError_IsNoError(t *testing.T) {
	out, err := operator().Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("burst"), Payload: proxied(`{"action":"exit","code":4}`)})
	require.NoError(t, err)
	assert.Equal(t, int32(200), out.StatusCode)
	assert.Equal(t, "Unhandled", aws.ToString(out.FunctionError))
	assert.Contains(t, string(out.Payload), "exit status 4")
}

func TestInvoke_DryRun_Is204(t *testing.T) {
	out, err := operator().Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("lambda-respond"), InvocationType: types.InvocationTypeDryRun})
	require.NoError(t, err)
	assert.Equal(t, int32(204), out.StatusCode)
}

func TestInvoke_Event_IsAcceptedAndRuns(t *testing.T) {
	for name, invoke := range map[string]func(marker []byte) (int32, error){
		"Invoke": func(marker []byte) (int32, error) {
			out, err := operator().Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("burst"), InvocationType: types.InvocationTypeEvent, Payload: marker})
			if err != nil {
				return 0, err
			}
			return out.StatusCode, nil
		},
		"InvokeAsync": func(marker []byte) (int32, error) {
			out, err := operator().InvokeAsync(t.Context(), &lambda.InvokeAsyncInput{FunctionName: aws.String("burst"), InvokeArgs: bytes.NewReader(marker)}) //nolint:staticcheck // old clients use it
			if err != nil {
				return 0, err
			}
			return out.Status, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			before, err := box.Query(t.Context(), `function:="burst" _msg:="chaos line 7 of 7"`)
			require.NoError(t, err)
			status, err := invoke(proxied(`{"action":"log","lines":7}`))
			require.NoError(t, err)
			assert.Equal(t, int32(202), status)
			box.EventuallyLogged(t, `function:="burst" _msg:="chaos line 7 of 7"`, func(lines []stack.LogLine) bool { return len(lines) > len(before) })
		})
	}
}

func TestInvoke_WithResponseStream(t *testing.T) {
	for name, want := range map[string]struct{ payload, result, code string }{
		"lambda-stream":  {`{"queryStringParameters":{"prelude":"no","chunks":"3"}}`, "chunk 1 of 3\nchunk 2 of 3\nchunk 3 of 3\n", ""},
		"lambda-respond": {string(proxied("\"buffered\"")), `"buffered"`, ""},
		"burst":          {string(proxied(`{"action":"exit","code":5}`)), "", "Unhandled"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := operator().InvokeWithResponseStream(t.Context(), &lambda.InvokeWithResponseStreamInput{
				FunctionName: &name, Payload: []byte(want.payload), LogType: types.LogTypeTail,
			})
			require.NoError(t, err)
			assert.Equal(t, "$LATEST", aws.ToString(out.ExecutedVersion))
			stream := out.GetStream()
			var result bytes.Buffer
			var end *types.InvokeWithResponseStreamCompleteEvent
			for event := range stream.Events() {
				switch e := event.(type) {
				case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
					assert.Nil(t, end)
					result.Write(e.Value.Payload)
				case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
					end = &e.Value
				}
			}
			require.NoError(t, stream.Err())
			require.NoError(t, stream.Close())
			assert.Equal(t, want.result, result.String())
			require.NotNil(t, end)
			assert.Equal(t, want.code, aws.ToString(end.ErrorCode))
			assert.NotEmpty(t, aws.ToString(end.LogResult))
		})
	}
}

func TestInvoke_Errors_AreTyped(t *testing.T) {
	ask := func(name string, payload []byte) error {
		_, err := operator().Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &name, Payload: payload})
		return err
	}
	var notFound *types.ResourceNotFoundException
	require.ErrorAs(t, ask("nobody", nil), &notFound)
	assert.Equal(t, "User", aws.ToString(notFound.Type))
	assert.Contains(t, notFound.ErrorMessage(), "Function not found: arn:aws:lambda:us-east-1:123456789012:function:nobody")

	var throttled *types.TooManyRequestsException
	require.ErrorAs(t, ask("invoke-throttled", nil), &throttled)
	assert.Equal(t, types.ThrottleReasonReservedFunctionConcurrentInvocationLimitExceeded, throttled.Reason)
	assert.NotEmpty(t, aws.ToString(throttled.RetryAfterSeconds))

	var tooLarge *types.RequestTooLargeException
	require.ErrorAs(t, ask("lambda-respond", []byte(`"`+strings.Repeat("x", 6291455)+`"`)), &tooLarge)
	var content *types.InvalidRequestContentException
	require.ErrorAs(t, ask("lambda-respond", []byte("{no")), &content)
	// What is for good says of what kind it is, and SDKs do not try it again.
	var artifact *types.CodeArtifactUserFailedException
	require.ErrorAs(t, ask("no-image", nil), &artifact)
	assert.Contains(t, artifact.ErrorMessage(), "The function's image cannot be had")
	var parameter *types.InvalidParameterValueException
	_, err := operator().Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("lambda-respond:1"), Qualifier: aws.String("2")})
	require.ErrorAs(t, err, &parameter)

	_, err = operator().InvokeWithResponseStream(t.Context(), &lambda.InvokeWithResponseStreamInput{FunctionName: aws.String("invoke-throttled")})
	require.ErrorAs(t, err, &throttled)
}

// skewed signs as a client whose clock is wrong.
type skewed struct {
	*v4.Signer
	by time.Duration
}

func (s skewed) SignHTTP(ctx context.Context, c aws.Credentials, r *http.Request, payload, service, region string, at time.Time, o ...func(*v4.SignerOptions)) error {
	return s.Signer.SignHTTP(ctx, c, r, payload, service, region, at.Add(s.by), o...)
}

func TestInvoke_Signatures(t *testing.T) {
	skew := func(by time.Duration) *lambda.Client {
		return sdk(box.HTTPURL, stack.AccessKey, stack.SecretKey, "", func(o *lambda.Options) { o.HTTPSignerV4 = skewed{v4.NewSigner(), by} })
	}
	for name, c := range map[string]struct {
		client *lambda.Client
		code   string
	}{
		"right":         {operator(), ""},
		"4 minutes ago": {skew(-4 * time.Minute), ""},
		"in 4 minutes":  {skew(4 * time.Minute), ""},
		"6 minutes ago": {skew(-6 * time.Minute), "InvalidSignatureException"},
		"in 6 minutes":  {skew(6 * time.Minute), "InvalidSignatureException"},
		"wrong secret":  {sdk(box.HTTPURL, stack.AccessKey, "another", ""), "InvalidSignatureException"},
		"unknown key":   {sdk(box.HTTPURL, "AKIDNOBODY", stack.SecretKey, ""), "UnrecognizedClientException"},
		"not signed":    {sdk(box.HTTPURL, "", "", "", func(o *lambda.Options) { o.Credentials = aws.AnonymousCredentials{} }), "MissingAuthenticationTokenException"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("lambda-respond"), Payload: proxied("1")})
			if c.code == "" {
				require.NoError(t, err)
				return
			}
			requireCode(t, err, c.code)
		})
	}
}

// The keys of a function open what its invoke allows, from wherever they are used.
func TestInvoke_KeysOfAFunction(t *testing.T) {
	keys, err := box.FunctionKeys(t.Context())
	require.NoError(t, err)
	own := keys.Of("lambda-invoke")
	client := sdk(box.HTTPURL, own.AccessKeyID, own.SecretAccessKey, own.SessionToken)
	_, err = client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("lambda-respond"), Payload: proxied("1")})
	require.NoError(t, err)
	for _, name := range []string{"lambda-echo", "nobody", "lambda-invoke"} {
		_, err = client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &name})
		requireCode(t, err, "AccessDeniedException")
	}
	none := keys.Of("lambda-echo")
	_, err = sdk(box.HTTPURL, none.AccessKeyID, none.SecretAccessKey, none.SessionToken).Invoke(t.Context(), &lambda.InvokeInput{FunctionName: aws.String("lambda-respond")})
	requireCode(t, err, "AccessDeniedException")
}

// One function invokes another with the SDK as it comes. All that both log has the trace of the first request.
func TestInvoke_FunctionInvokesFunction_InOneTrace(t *testing.T) {
	if box.Way != stack.Native {
		t.Skip("the gateway of this box does not listen at its functions' address")
	}
	for i, c := range []struct{ kind, want string }{
		{`"type":"RequestResponse"`, `{"status":200,"payload":"\"hello\""}`},
		{`"type":"Event"`, `{"status":202,"payload":""}`},
		{`"stream":true`, `{"status":200,"payload":"\"hello\"","chunks":1}`},
	} {
		t.Run(c.kind, func(t *testing.T) {
			root := fmt.Sprintf("1-6543210f-0123456789abcdef0000001%d", i)
			body := `{"function":"lambda-respond",` + c.kind + `,"payload":` + string(proxied(`"hello"`)) + `}`
			answer, err := box.Do(t.Context(), http.MethodPost, box.HTTPURL+"/api/invoke", token, []byte(body), "X-Amzn-Trace-Id", "Root="+root)
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
			assert.JSONEq(t, c.want, string(answer.Body))
			// The first function's request and the second's, each with its report and the gateway's line.
			box.EventuallyLogged(t, fmt.Sprintf("trace_id:=%q", root), func(lines []stack.LogLine) bool {
				reports, requests := map[string]bool{}, map[string]bool{}
				for _, line := range lines {
					switch {
					case line.Type == "platform.report":
						reports[line.Function] = true
					case line.Job == "gateway" && line.Message == "request":
						requests[line.RequestID] = true
					}
				}
				return reports["lambda-invoke"] && reports["lambda-respond"] && len(requests) == 2
			})
		})
	}
}

func TestInvoke_FunctionInvokesFunction_IsDeniedWithoutLeave(t *testing.T) {
	if box.Way != stack.Native {
		t.Skip("the gateway of this box does not listen at its functions' address")
	}
	answer := box.Post(t, "/api/invoke", token, `{"function":"lambda-echo","payload":{}}`)
	assert.Equal(t, http.StatusForbidden, answer.Status)
	assert.Contains(t, string(answer.Body), "AccessDeniedException: User: arn:aws:sts::123456789012:assumed-role/lambda-invoke/lambda-invoke is not authorized to perform: lambda:InvokeFunction")
	answer = box.Post(t, "/api/invoke", token, `{"function":"invoke-throttled","payload":{}}`)
	assert.Equal(t, http.StatusTooManyRequests, answer.Status)
	assert.Contains(t, string(answer.Body), "TooManyRequestsException")
}

// The one worker of the function is another caller's when the function has ended that the first did not wait for.
func TestInvoke_ClientLeaves_TheFunctionRunsToItsEnd(t *testing.T) {
	ctx, leave := context.WithTimeout(t.Context(), time.Second)
	defer leave()
	name := aws.String("chaos-patient")
	_, err := operator().Invoke(ctx, &lambda.InvokeInput{FunctionName: name, Payload: proxied(`{"action":"sleep","ms":4000}`)})
	require.Error(t, err)
	require.True(t, errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil)
	out, err := operator().Invoke(t.Context(), &lambda.InvokeInput{FunctionName: name, Payload: proxied(`{"action":"ok"}`)})
	require.NoError(t, err)
	assert.Nil(t, out.FunctionError)
}

// The memory of the gateway does not grow with a stream: 256 MB here, 1 GB through a route (TestStream_OneGigabyte_NeedsNoMemory).
func TestInvoke_WithResponseStream_NeedsNoMemory(t *testing.T) {
	if box.Way != stack.Native {
		t.Skip("the processes of a box in Docker are not this machine's to look at")
	}
	const size, room = 256 << 20, 32 << 20
	read := func(bytes int) int {
		t.Helper()
		// A connection of its own: one that another stream's end had a hand on was once closed under this one, by the client.
		client := sdk(box.HTTPURL, stack.AccessKey, stack.SecretKey, "", func(o *lambda.Options) {
			o.HTTPClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		})
		out, err := client.InvokeWithResponseStream(t.Context(), &lambda.InvokeWithResponseStreamInput{
			FunctionName: aws.String("stream-big"), Payload: fmt.Appendf(nil, `{"queryStringParameters":{"prelude":"no","bytes":"%d"}}`, bytes),
		})
		require.NoError(t, err)
		stream, n := out.GetStream(), 0
		for event := range stream.Events() {
			switch e := event.(type) {
			case *types.InvokeWithResponseStreamResponseEventMemberPayloadChunk:
				n += len(e.Value.Payload)
			case *types.InvokeWithResponseStreamResponseEventMemberInvokeComplete:
				assert.Nil(t, e.Value.ErrorCode)
			}
		}
		require.NoError(t, stream.Err())
		require.NoError(t, stream.Close())
		return n
	}
	require.Equal(t, 1000000, read(1000000))
	gateway := findProcess(t, filepath.Join(box.BinDir, "gateway"), "ESB_HOME="+box.Home)
	before := peakMemory(t, gateway)
	require.Equal(t, size, read(size))
	after := peakMemory(t, gateway)
	t.Logf("gateway: at most %d MiB before the stream, %d MiB after it", before>>20, after>>20)
	assert.Less(t, after-before, room)
}

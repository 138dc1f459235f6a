// Package e2e drives one whole box, started as a user starts it, with a real HTTP client: real containers, real
// functions, nothing faked.
package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// box is the stack that all tests of this package share; TestMain owns it.
var box *stack.Stack

// token of the tests' user.
var token string

// routingFile is the box's routing.yml, a copy of that in testdata.
var routingFile string

func TestMain(m *testing.M) {
	os.Exit(stack.RunTests("e2e", prepare, func(ctx context.Context) (_ int, err error) {
		if token, err = box.Token(ctx); err != nil {
			return 1, err
		}
		return m.Run(), nil
	}))
}

// prepare makes the box of the tests.
func prepare(root, home string) (*stack.Stack, error) {
	way, err := stack.ChosenWay()
	if err != nil {
		return nil, err
	}
	images, err := rieImages(root, home)
	if err != nil {
		return nil, err
	}
	config, err := configuration(root, home)
	if err != nil {
		return nil, err
	}
	routingFile = filepath.Join(config, "routing.yml")
	// For the stream of 1 GB.
	env := []string{"GATEWAY_STREAM_LIMIT_MB=2048"}
	if way != stack.Native {
		// Code in S3 is changed six times, each of which is seen when it is looked for. The native way has the default, by which local
		// changes are seen because the system tells them.
		env = append(env, "CODE_POLL_SECONDS=1")
	}
	box, err = stack.Prepare(home, stack.Options{
		Way:             way,
		FunctionsConfig: filepath.Join(config, "functions.yml"),
		RoutingConfig:   routingFile,
		ResourcesConfig: filepath.Join(config, "resources.yml"),
		Images:          images,
		Env:             env,
	})
	if err != nil {
		return nil, err
	}
	if way == stack.Native {
		// A box that was off for years: see schedules_test.go.
		if err := os.WriteFile(filepath.Join(box.Home, "schedules.json"), []byte(missedNewYears), 0o600); err != nil {
			return nil, err
		}
	}
	return box, nil
}

// configuration makes the folder that a user of the box has: the three files, and code that functions.yml names.
func configuration(root, home string) (string, error) {
	config := filepath.Join(home, "config")
	samples := filepath.Join(root, "functions")
	for _, name := range []string{"lambda-hello-python", "lambda-hello-node"} {
		if err := os.CopyFS(filepath.Join(config, name), os.DirFS(filepath.Join(samples, name))); err != nil {
			return "", fmt.Errorf("copy the code of %s: %w", name, err)
		}
	}
	for _, name := range []string{"slow", "changing", "stem"} {
		if err := os.CopyFS(filepath.Join(config, name), os.DirFS(filepath.Join(root, "tests", "e2e", "testdata", name))); err != nil {
			return "", fmt.Errorf("copy the code of %s: %w", name, err)
		}
	}
	for _, source := range []string{
		filepath.Join(root, "tests", "e2e", "testdata", "functions.yml"),
		filepath.Join(root, "tests", "e2e", "testdata", "routing.yml"),
		filepath.Join(samples, "resources.yml"),
	} {
		data, err := os.ReadFile(source)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(config, filepath.Base(source)), data, 0o644); err != nil {
			return "", err
		}
	}
	return config, nil
}

// rieImages puts two functions behind the RIE-like program, in images that speak on port 8080 only.
func rieImages(root, home string) ([]string, error) {
	rie, err := stack.BuildProgram(root, home, "./tests/rie")
	if err != nil {
		return nil, err
	}
	var archives []string
	for _, name := range []string{"respond", "chaos"} {
		function, err := stack.BuildProgram(root, home, "./functions/lambda-"+name, "-tags", "lambda.norpc")
		if err != nil {
			return nil, err
		}
		archive, err := stack.BuildImage(root, home, "esb/rie-"+name+":latest",
			"-file", "/usr/local/bin/rie="+rie, "-file", "/var/task/bootstrap="+function,
			"-entrypoint", "/usr/local/bin/rie", "-cmd", "/var/task/bootstrap")
		if err != nil {
			return nil, err
		}
		archives = append(archives, archive)
	}
	return archives, nil
}

type echoBody struct {
	Success   bool   `json:"success"`
	Message   string `json:"message"`
	User      string `json:"user"`
	Instance  string `json:"instance"`
	Count     int    `json:"count"`
	RequestID string `json:"request_id"`
}

func postEcho(t *testing.T, path string) echoBody {
	t.Helper()
	answer := box.Post(t, path, token, `{"message":"hello"}`)
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	var body echoBody
	require.NoError(t, json.Unmarshal(answer.Body, &body), "%s", answer.Body)
	return body
}

func TestEcho_AnswersOverBothListeners(t *testing.T) {
	for _, base := range []string{box.HTTPSURL, box.HTTPURL} {
		answer, err := box.Do(t.Context(), http.MethodPost, base+"/api/echo", token, []byte(`{"message":"héllo"}`))
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
		var body echoBody
		require.NoError(t, json.Unmarshal(answer.Body, &body))
		assert.True(t, body.Success)
		assert.Equal(t, "héllo", body.Message)
		assert.Equal(t, stack.User, body.User)
		assert.NotEmpty(t, body.Instance)
		assert.Equal(t, answer.Header.Get("x-amzn-RequestId"), body.RequestID, "the client and the function must see one request id")
		assert.Contains(t, answer.Header.Get("X-Amzn-Trace-Id"), "Root=1-")
	}
}

func TestEcho_SecondRequestReusesTheWorker(t *testing.T) {
	first := postEcho(t, "/api/echo")
	second := postEcho(t, "/api/echo")
	assert.Equal(t, first.Instance, second.Instance)
	assert.Equal(t, first.Count+1, second.Count)
}

func TestHello_InterpretedRuntimesAnswer(t *testing.T) {
	for _, language := range []string{"python", "node"} {
		t.Run(language, func(t *testing.T) {
			answer := box.Post(t, "/api/hello-"+language, token, `{"name":"wörld"}`)
			require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
			var body struct{ Message, Runtime string }
			require.NoError(t, json.Unmarshal(answer.Body, &body))
			assert.Equal(t, "hello wörld", body.Message)
			assert.Contains(t, body.Runtime, language)
		})
	}
}

func TestUp_Again_IsHarmless(t *testing.T) {
	before := postEcho(t, "/api/echo")
	require.NoError(t, box.Up(t.Context()))
	after := postEcho(t, "/api/echo")
	assert.Equal(t, before.Instance, after.Instance)
}

func TestAuthentication(t *testing.T) {
	good := fmt.Sprintf(`{"AuthParameters":{"USERNAME":%q,"PASSWORD":%q}}`, stack.User, stack.Password)
	cases := map[string]struct {
		key, body, authorized string
		status                int
	}{
		"right":          {stack.APIKey, good, "true", 200},
		"no API key":     {"", good, "", 401},
		"wrong API key":  {"wrong", good, "", 401},
		"wrong password": {stack.APIKey, strings.Replace(good, stack.Password, "nope", 1), "true", 401},
		"not JSON":       {stack.APIKey, `{"AuthParameters":`, "", 400},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			answer, err := box.Do(t.Context(), http.MethodPost, box.HTTPURL+"/user/auth/ver1.0", "", []byte(c.body), "x-api-key", c.key)
			require.NoError(t, err)
			assert.Equal(t, c.status, answer.Status, "%s", answer.Body)
			assert.Equal(t, c.authorized, answer.Header.Get("PADMA_USER_AUTHORIZED"))
		})
	}
}

func TestRoutes_RefuseStrangersAndUnknownPaths(t *testing.T) {
	cases := map[string]struct {
		method, path, token, apiKey string
		status                      int
		body                        string
	}{
		"no token":       {"POST", "/api/echo", "", "", 401, `{"message":"Unauthorized"}`},
		"forged token":   {"POST", "/api/echo", token[:len(token)-4] + "AAAA", "", 401, `{"message":"Unauthorized"}`},
		"no route":       {"GET", "/api/nothing", token, "", 404, `{"message":"Not Found"}`},
		"wrong method":   {"GET", "/api/echo", token, "", 404, `{"message":"Not Found"}`},
		"open route":     {"GET", "/open/event", "", "", 200, ""},
		"key missing":    {"GET", "/keyed/event", "", "", 403, `{"message":"Forbidden"}`},
		"key right":      {"GET", "/keyed/event", "", stack.APIKey, 200, ""},
		"health is open": {"GET", "/health", "", "", 200, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			answer, err := box.Do(t.Context(), c.method, box.HTTPURL+c.path, c.token, nil, "x-api-key", c.apiKey)
			require.NoError(t, err)
			assert.Equal(t, c.status, answer.Status, "%s", answer.Body)
			assert.NotEmpty(t, answer.Header.Get("x-amzn-RequestId"))
			if c.body != "" {
				assert.Equal(t, c.body, string(answer.Body))
			}
		})
	}
}

func TestEvent_IsComplete(t *testing.T) {
	answer, err := box.Do(t.Context(), http.MethodPut, box.HTTPURL+"/api/event/a%2Fb/c?x=1&x=2&y=%2B", token, []byte("text"), "X-Custom", "v")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	var event map[string]any
	require.NoError(t, json.Unmarshal(answer.Body, &event))
	assert.Equal(t, "/api/event/{proxy+}", event["resource"])
	assert.Equal(t, "/api/event/a%2Fb/c", event["path"])
	assert.Equal(t, map[string]any{"x": "2", "y": "+"}, event["queryStringParameters"])
	assert.Equal(t, "text", event["body"])
	stageVariables, present := event["stageVariables"]
	assert.True(t, present)
	assert.Nil(t, stageVariables)
	assert.Equal(t, "v", event["headers"].(map[string]any)["X-Custom"])
	authorizer := event["requestContext"].(map[string]any)["authorizer"].(map[string]any)
	assert.Equal(t, stack.User, authorizer["cognito:username"])
	assert.Equal(t, stack.User, authorizer["claims"].(map[string]any)["cognito:username"])
	assert.Equal(t, answer.Header.Get("x-amzn-RequestId"), event["requestContext"].(map[string]any)["requestId"])
}

func TestRespond_WrongShapesAreBadGateway(t *testing.T) {
	for _, result := range []string{`"text"`, `3`, `null`, `[1]`, `{"statusCode":"test"}`, `{"statusCode":200,"unknown":1}`, `{"statusCode":200,"body":{"a":1}}`} {
		t.Run(result, func(t *testing.T) {
			answer := box.Post(t, "/api/respond", token, result)
			assert.Equal(t, http.StatusBadGateway, answer.Status)
			assert.Equal(t, `{"message": "Internal server error"}`, string(answer.Body))
		})
	}
	answer := box.Post(t, "/api/respond", token, `{"statusCode":201,"headers":{"X-Made":"here"},"body":"made"}`)
	assert.Equal(t, http.StatusCreated, answer.Status)
	assert.Equal(t, "made", string(answer.Body))
	assert.Equal(t, "here", answer.Header.Get("X-Made"))
}

func TestIdle_ContainerGoesAwayAndTheNextRequestWorks(t *testing.T) {
	first := postEcho(t, "/api/echo-idle")
	require.Len(t, box.Containers(t, "echo-idle"), 1)
	stack.Eventually(t, func() bool { return len(box.Containers(t, "echo-idle")) == 0 }, "the idle container must go away")
	second := postEcho(t, "/api/echo-idle")
	assert.NotEqual(t, first.Instance, second.Instance)
	assert.Equal(t, 1, second.Count)
}

func TestStandby_TurnsAColdStartIntoTheFirstRequestOfASandbox(t *testing.T) {
	var standby *agentv1.ContainerInfo
	stack.Eventually(t, func() bool {
		for _, c := range box.Containers(t, "echo-standby") {
			if c.GetStandby() {
				standby = c
			}
		}
		return standby != nil
	}, "a sandbox must stand by before any request")
	body := postEcho(t, "/api/echo-standby")
	assert.Equal(t, 1, body.Count)
	stack.Eventually(t, func() bool { return len(box.Containers(t, "echo-standby")) == 2 }, "another sandbox must stand by")
	names := []string{}
	for _, c := range box.Containers(t, "echo-standby") {
		names = append(names, c.GetContainerName())
	}
	assert.Contains(t, names, standby.GetContainerName(), "the first sandbox must have served the request")
}

func TestBurst_NeverExceedsMaxCapacity(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	most := make(chan int, 1)
	go func() {
		highest := 0
		for ctx.Err() == nil {
			list, err := box.Agent.ListContainers(ctx, &agentv1.ListContainersRequest{FunctionName: "burst"})
			if err == nil {
				highest = max(highest, len(list.GetContainers()))
			}
		}
		most <- highest
	}()
	var wg sync.WaitGroup
	answers := make([]stack.Answer, 20)
	errs := make([]error, len(answers))
	for i := range answers {
		wg.Go(func() {
			answers[i], errs[i] = box.Do(t.Context(), http.MethodPost, box.HTTPURL+"/api/burst", token, []byte(`{"action":"sleep","ms":400}`))
		})
	}
	wg.Wait()
	cancel()
	for i, answer := range answers {
		require.NoError(t, errs[i])
		assert.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	}
	assert.Equal(t, 3, <-most, "20 requests of 400 ms need all the workers there may be, and no more")
}

func TestQueueFull_IsThrottled(t *testing.T) {
	box.Post(t, "/api/narrow", token, `{"action":"ok"}`)
	var wg sync.WaitGroup
	statuses := make([]int, 6)
	for i := range statuses {
		wg.Go(func() {
			answer, err := box.Do(t.Context(), http.MethodPost, box.HTTPURL+"/api/narrow", token, []byte(`{"action":"sleep","ms":2000}`))
			if assert.NoError(t, err) {
				statuses[i] = answer.Status
			}
		})
	}
	wg.Wait()
	count := map[int]int{}
	for _, status := range statuses {
		count[status]++
	}
	assert.Equal(t, map[int]int{200: 2, 429: 4}, count, "one runs, one waits, the others are refused")
}

func TestChaos_FailureIsBadGatewayAndTheNextRequestWorks(t *testing.T) {
	for _, action := range []string{`{"action":"exit","code":3}`, `{"action":"panic"}`, `{"action":"segfault"}`} {
		t.Run(action, func(t *testing.T) {
			answer := box.Post(t, "/api/chaos", token, action)
			assert.Equal(t, http.StatusBadGateway, answer.Status, "%s", answer.Body)
			assert.Equal(t, `{"message": "Internal server error"}`, string(answer.Body))
			next := box.Post(t, "/api/chaos", token, `{"action":"ok"}`)
			assert.Equal(t, http.StatusOK, next.Status, "%s", next.Body)
		})
	}
}

func TestChaos_FunctionTimeout_IsBadGatewayInTimeAndTheContainerServesAgain(t *testing.T) {
	require.Equal(t, http.StatusOK, box.Post(t, "/api/chaos", token, `{"action":"ok"}`).Status)
	before := box.Containers(t, "lambda-chaos")
	require.Len(t, before, 1)
	start := time.Now()
	answer := box.Post(t, "/api/chaos", token, `{"action":"sleep","ms":60000}`)
	assert.Equal(t, http.StatusBadGateway, answer.Status, "%s", answer.Body)
	assert.GreaterOrEqual(t, time.Since(start), 3*time.Second)
	assert.Less(t, time.Since(start), 28*time.Second, "the function's own timeout must come before the route's")
	box.RequireLogged(t, "lambda-chaos", "Task timed out after 3.00 seconds")
	assert.Equal(t, http.StatusOK, box.Post(t, "/api/chaos", token, `{"action":"ok"}`).Status)
	after := box.Containers(t, "lambda-chaos")
	require.Len(t, after, 1)
	assert.Equal(t, before[0].GetContainerId(), after[0].GetContainerId())
}

func TestChaos_RouteTimeout_IsGatewayTimeoutAndTheFunctionRunsOn(t *testing.T) {
	// The route allows 2 s, a cold start included: more than a loaded machine may need for one.
	stack.Eventually(t, func() bool {
		return box.Post(t, "/api/chaos-patient", token, `{"action":"ok"}`).Status == http.StatusOK
	}, "the function must be warm")
	before := box.Containers(t, "chaos-patient")
	require.Len(t, before, 1)
	answer := box.Post(t, "/api/chaos-patient", token, `{"action":"sleep","ms":4000}`)
	assert.Equal(t, http.StatusGatewayTimeout, answer.Status, "%s", answer.Body)
	assert.Equal(t, `{"message": "Endpoint request timed out"}`, string(answer.Body))
	// Without the route's 2 s, for which it may have to wait.
	next := box.Post(t, "/api/chaos-oom", token, `{"action":"ok"}`)
	assert.Equal(t, http.StatusOK, next.Status, "%s", next.Body)
	after := box.Containers(t, "chaos-patient")
	require.Len(t, after, 1)
	assert.Equal(t, before[0].GetContainerId(), after[0].GetContainerId())
}

func TestChaos_ClientLeaves_TheContainerServesAgain(t *testing.T) {
	require.Equal(t, http.StatusOK, box.Post(t, "/api/narrow", token, `{"action":"ok"}`).Status)
	before := box.Containers(t, "echo-narrow")
	require.Len(t, before, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := box.Do(ctx, http.MethodPost, box.HTTPURL+"/api/narrow", token, []byte(`{"action":"sleep","ms":4000}`))
		done <- err
	}()
	stack.Eventually(t, func() bool {
		answer, err := box.Do(t.Context(), http.MethodGet, box.AdminURL+"/pools", "", nil)
		return err == nil && strings.Contains(string(answer.Body), `"busy":1`)
	}, "the request must have reached the worker")
	cancel()
	require.Error(t, <-done)
	require.Equal(t, http.StatusOK, box.Post(t, "/api/narrow", token, `{"action":"ok"}`).Status)
	after := box.Containers(t, "echo-narrow")
	require.Len(t, after, 1)
	assert.Equal(t, before[0].GetContainerId(), after[0].GetContainerId())
}

// TestDeadWorker_LeavesThePoolAtOnce: the next caller does not find out by itself, which took 3 s. Nobody calls meanwhile, and the
// heartbeat, 30 s, is too late for what is waited for.
func TestDeadWorker_LeavesThePoolAtOnce(t *testing.T) {
	if box.Way != stack.Native {
		t.Skip("the processes of a box in Docker are not this machine's to look at")
	}
	warm := callSlow(t)
	before := box.Containers(t, "slow")
	require.Len(t, before, 1)
	require.NoError(t, syscall.Kill(findLambdaInit(t, "slow"), syscall.SIGKILL))
	killed := time.Now()
	stack.Eventually(t, func() bool {
		answer, err := box.Do(t.Context(), http.MethodGet, box.AdminURL+"/pools", "", nil)
		return err == nil && !strings.Contains(string(answer.Body), before[0].GetContainerId())
	}, "the worker must leave the pool")
	assert.Less(t, time.Since(killed), 15*time.Second)
	assert.NotEqual(t, warm.Container, callSlow(t).Container)
}

func TestChaos_OutOfMemory_IsBadGatewayAndTheLogSaysSo(t *testing.T) {
	// With time enough: its memory is small, and so is its part of a CPU.
	answer := box.Post(t, "/api/chaos-oom", token, `{"action":"oom"}`)
	assert.Equal(t, http.StatusBadGateway, answer.Status, "%s", answer.Body)
	box.RequireLogged(t, "chaos-patient", "OOM")
	assert.Equal(t, http.StatusOK, box.Post(t, "/api/chaos-oom", token, `{"action":"ok"}`).Status)
}

func TestInitError_IsBadGateway(t *testing.T) {
	for range 2 {
		answer := box.Post(t, "/api/chaos-init-error", token, `{"action":"ok"}`)
		assert.Equal(t, http.StatusBadGateway, answer.Status, "%s", answer.Body)
	}
}

func TestMissingImage_IsAnsweredAtOnce(t *testing.T) {
	start := time.Now()
	answer := box.Post(t, "/api/no-image", token, `{}`)
	assert.Equal(t, http.StatusServiceUnavailable, answer.Status, "%s", answer.Body)
	assert.Equal(t, `{"message":"Service Unavailable"}`, string(answer.Body))
	assert.Less(t, time.Since(start), 25*time.Second, "the waiter must not wait for its acquire timeout")
}

func TestRIE_ImageThatBringsItsOwnInterfaceWorks(t *testing.T) {
	answer := box.Post(t, "/api/rie-respond", token, `{"statusCode":200,"body":"from behind RIE"}`)
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	assert.Equal(t, "from behind RIE", string(answer.Body))
	for range 20 {
		require.Equal(t, http.StatusOK, box.Post(t, "/api/rie-respond", token, `{"statusCode":200}`).Status)
	}
}

func TestRIE_ManyAtOnce_OneEachWorker(t *testing.T) {
	// A second invocation at once ends the emulator: every answer is 200 only if the pool never overlaps two.
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			answer, err := box.Do(t.Context(), http.MethodPost, box.HTTPURL+"/api/rie-respond", token, []byte(`{"statusCode":200}`))
			if assert.NoError(t, err) {
				assert.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
			}
		})
	}
	wg.Wait()
	assert.LessOrEqual(t, len(box.Containers(t, "rie-respond")), 2)
}

func TestRIE_ExitAndTimeoutAreBadGateway(t *testing.T) {
	require.Equal(t, http.StatusOK, box.Post(t, "/api/rie-chaos", token, `{"action":"ok"}`).Status)
	assert.Equal(t, http.StatusBadGateway, box.Post(t, "/api/rie-chaos", token, `{"action":"exit","code":1}`).Status)
	require.Equal(t, http.StatusOK, box.Post(t, "/api/rie-chaos", token, `{"action":"ok"}`).Status)
	before := box.Containers(t, "rie-chaos")
	require.Len(t, before, 1)
	assert.Equal(t, http.StatusBadGateway, box.Post(t, "/api/rie-chaos", token, `{"action":"sleep","ms":60000}`).Status)
	requireDestroyed(t, "rie-chaos", before[0].GetContainerId())
}

func TestPauseAndResume_ByTheAgent(t *testing.T) {
	postEcho(t, "/api/echo")
	id := box.Containers(t, "lambda-echo")[0].GetContainerId()
	_, err := box.Agent.PauseContainer(t.Context(), &agentv1.PauseContainerRequest{ContainerId: id})
	require.NoError(t, err)
	stack.Eventually(t, func() bool { return status(t, id) == agentv1.ContainerStatus_PAUSED }, "the container must be frozen")
	_, err = box.Agent.ResumeContainer(t.Context(), &agentv1.ResumeContainerRequest{ContainerId: id})
	require.NoError(t, err)
	stack.Eventually(t, func() bool { return status(t, id) == agentv1.ContainerStatus_RUNNING }, "the container must run again")
	postEcho(t, "/api/echo")
}

func TestMetrics_OfAContainer(t *testing.T) {
	postEcho(t, "/api/echo")
	id := box.Containers(t, "lambda-echo")[0].GetContainerId()
	metrics, err := box.Agent.GetContainerMetrics(t.Context(), &agentv1.GetContainerMetricsRequest{ContainerId: id})
	require.NoError(t, err)
	assert.EqualValues(t, 256<<20, metrics.GetMemoryLimitBytes())
	assert.Positive(t, metrics.GetMemoryCurrentBytes())
	assert.Positive(t, metrics.GetCpuUsageNanoseconds())
	assert.GreaterOrEqual(t, metrics.GetMemoryPeakBytes(), metrics.GetMemoryCurrentBytes()/2)
}

func TestAdmin_ReadyAndMetrics(t *testing.T) {
	ready, err := box.Do(t.Context(), http.MethodGet, box.AdminURL+"/readyz", "", nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusOK, ready.Status, "%s", ready.Body)
	metrics, err := box.Do(t.Context(), http.MethodGet, box.AdminURL+"/metrics", "", nil)
	require.NoError(t, err)
	assert.Contains(t, string(metrics.Body), "esb_")
	public, err := box.Do(t.Context(), http.MethodGet, box.HTTPURL+"/metrics", token, nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusNotFound, public.Status, "metrics must not be public")
}

func requireDestroyed(t *testing.T, function, id string) {
	t.Helper()
	stack.Eventually(t, func() bool {
		for _, c := range box.Containers(t, function) {
			if c.GetContainerId() == id {
				return false
			}
		}
		return true
	}, "container %s must be destroyed", id)
}

func status(t *testing.T, id string) agentv1.ContainerStatus {
	t.Helper()
	for _, c := range box.Containers(t, "") {
		if c.GetContainerId() == id {
			return c.GetStatus()
		}
	}
	return agentv1.ContainerStatus_UNKNOWN
}

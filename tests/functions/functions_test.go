// Package functions runs what people deploy on a whole box: public packages, unmodified, pinned, and downloaded by the
// test as their users do. Each test asserts what the function answers.
package functions

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image/png"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/packages"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// box is the stack that all tests of this package share; TestMain owns it.
var box *stack.Stack

func TestMain(m *testing.M) {
	os.Exit(stack.RunTests("functions", func(root, home string) (_ *stack.Stack, err error) {
		w := &workshop{root: root, home: home, config: filepath.Join(home, "config"), cache: packages.NewCache(root)}
		if err := w.prepare(context.Background()); err != nil {
			return nil, fmt.Errorf("make the functions of the tests: %w", err)
		}
		box, err = stack.Prepare(home, stack.Options{
			FunctionsConfig: filepath.Join(w.config, "functions.yml"),
			RoutingConfig:   filepath.Join(w.config, "routing.yml"),
			ResourcesConfig: filepath.Join(w.config, "resources.yml"),
			Images:          w.images,
		})
		return box, err
	}, func(context.Context) (int, error) { return m.Run(), nil }))
}

// request sends one to the box over HTTP; redirects are not followed.
func request(t *testing.T, method, path, contentType, body string) stack.Answer {
	t.Helper()
	client := *box.HTTP
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	req, err := http.NewRequestWithContext(t.Context(), method, box.HTTPURL+path, bytes.NewReader([]byte(body)))
	require.NoError(t, err)
	req.Header.Set("User-Agent", "esb-tests")
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := client.Do(req)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	var data bytes.Buffer
	_, err = data.ReadFrom(res.Body)
	require.NoError(t, err)
	return stack.Answer{Status: res.StatusCode, Header: res.Header, Body: data.Bytes()}
}

// invoke invokes a function by Lambda's API and decodes its answer into result.
func invoke(t *testing.T, function, payload string, result any) {
	t.Helper()
	client := lambda.New(lambda.Options{BaseEndpoint: &box.HTTPURL, Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider(stack.AccessKey, stack.SecretKey, "")})
	out, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &function, Payload: []byte(payload)})
	require.NoError(t, err)
	require.Nil(t, out.FunctionError, "%s answered %s", function, out.Payload)
	require.NoError(t, json.Unmarshal(out.Payload, result), "%s answered %s", function, out.Payload)
}

func TestExpress_ByCodegenie(t *testing.T) {
	item := request(t, "GET", "/web/express/items/7?tag=a&tag=b", "", "")
	require.Equal(t, http.StatusOK, item.Status, "%s", item.Body)
	assert.JSONEq(t, `{"id":"7","tags":["a","b"],"agent":"esb-tests"}`, string(item.Body))
	assert.Equal(t, []string{"a=1; Path=/", "b=2; Path=/"}, item.Header.Values("Set-Cookie"))

	old := request(t, "GET", "/web/express/old", "", "")
	assert.Equal(t, http.StatusMovedPermanently, old.Status)
	assert.Equal(t, "/web/express/items/1", old.Header.Get("Location"))

	form := request(t, "POST", "/web/express/form", "application/x-www-form-urlencoded", url.Values{"name": {"Zoë"}, "mood": {"fine & well"}}.Encode())
	assert.Equal(t, http.StatusCreated, form.Status)
	assert.Equal(t, "Zoë is fine & well", string(form.Body))

	assert.Equal(t, http.StatusNotFound, request(t, "GET", "/web/express/nothing", "", "").Status)
}

func TestExpress_ByCodegenie_HTTPEvents(t *testing.T) {
	answer := request(t, "POST", "/v2/web/express/json", "application/json", `{"n":[1,2]}`)
	// The adapter gives Express the whole path, which this application does not have.
	assert.Equal(t, http.StatusNotFound, answer.Status)
	assert.JSONEq(t, `{"nothing":"/v2/web/express/json"}`, string(answer.Body))
}

func TestExpress_ByServerlessHTTP(t *testing.T) {
	var answer struct {
		StatusCode      int
		IsBase64Encoded bool
		Body            string
	}
	invoke(t, "express-http", `{"version":"2.0","rawPath":"/web/express/bytes","headers":{},"requestContext":{"http":{"method":"GET","path":"/web/express/bytes"}}}`, &answer)
	assert.Equal(t, http.StatusOK, answer.StatusCode)
	assert.True(t, answer.IsBase64Encoded)
	assert.Equal(t, "AAEC/f7/", answer.Body)
}

func TestHono(t *testing.T) {
	hello := request(t, "GET", "/web/hono/hello/wor%20ld?q=1", "", "")
	require.Equal(t, http.StatusOK, hello.Status, "%s", hello.Body)
	assert.JSONEq(t, `{"hello":"wor ld","q":"1"}`, string(hello.Body))

	echo := request(t, "POST", "/web/hono/echo", "application/json", `{"a":"ö"}`)
	assert.Equal(t, http.StatusAccepted, echo.Status)
	assert.Equal(t, `{"a":"ö"}`, string(echo.Body))
	assert.Equal(t, "yes", echo.Header.Get("X-Echo"))

	events := request(t, "GET", "/web/hono/events", "", "")
	assert.Equal(t, "text/event-stream", events.Header.Get("Content-Type"))
	assert.Contains(t, string(events.Body), "data: event 3\nid: 3\n")
}

func TestFastify(t *testing.T) {
	hello := request(t, "GET", "/web/fastify/hello?name=you", "", "")
	require.Equal(t, http.StatusOK, hello.Status, "%s", hello.Body)
	var said struct{ Hello, ID string }
	require.NoError(t, json.Unmarshal(hello.Body, &said))
	assert.Equal(t, "you", said.Hello)
	assert.Equal(t, hello.Header.Get("X-Amzn-Requestid"), said.ID)

	double := request(t, "POST", "/web/fastify/double", "application/json", `{"n":21}`)
	assert.Equal(t, http.StatusCreated, double.Status)
	assert.JSONEq(t, `{"n":42}`, string(double.Body))
	assert.Equal(t, "yes", double.Header.Get("X-Doubled"))
	assert.Equal(t, http.StatusBadRequest, request(t, "POST", "/web/fastify/double", "application/json", `{"n":"x"}`).Status)
}

func TestMiddy(t *testing.T) {
	sum := request(t, "POST", "/web/middy", "application/json", `{"numbers":[1,2,39]}`)
	require.Equal(t, http.StatusOK, sum.Status, "%s", sum.Body)
	assert.JSONEq(t, `{"sum":42,"left":true}`, string(sum.Body))
	assert.Equal(t, "https://shop.example.com", sum.Header.Get("Access-Control-Allow-Origin"))
	assert.Equal(t, http.StatusUnsupportedMediaType, request(t, "POST", "/web/middy", "application/json", `{"numbers"`).Status)
}

// TestPowertools_Idempotency runs logger, metrics and tracer too; the second call of the same order is answered of the table.
func TestPowertools_Idempotency(t *testing.T) {
	var first, again, other struct{ Order, Made string }
	invoke(t, "powertools", `{"order":"A1"}`, &first)
	invoke(t, "powertools", `{"order":"A1"}`, &again)
	invoke(t, "powertools", `{"order":"B2"}`, &other)
	assert.Equal(t, "A1", first.Order)
	assert.NotEmpty(t, first.Made)
	assert.Equal(t, first, again)
	assert.NotEqual(t, first.Made, other.Made)
	box.RequireLogged(t, "powertools", "an order")
	box.RequireLogged(t, "powertools", "CloudWatchMetrics")
}

func TestNodeJS_SDKOfTheRuntime(t *testing.T) {
	var answer struct{ Text, Table string }
	invoke(t, "node-sdk", `{}`, &answer)
	assert.Equal(t, "from node", answer.Text)
	assert.Equal(t, "ACTIVE", answer.Table)
}

func TestSharp(t *testing.T) {
	answer := request(t, "GET", "/media/sharp?width=640&height=480", "", "")
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	assert.Equal(t, "image/png", answer.Header.Get("Content-Type"))
	picture, err := png.Decode(bytes.NewReader(answer.Body))
	require.NoError(t, err)
	assert.Equal(t, "160x120", fmt.Sprintf("%dx%d", picture.Bounds().Dx(), picture.Bounds().Dy()))
	red, green, _, _ := picture.At(80, 60).RGBA()
	assert.Greater(t, red>>8, uint32(200))
	assert.Less(t, green>>8, uint32(50))
}

// TestBrowser is a Chromium that was built for Lambda, by puppeteer; twice, since its first start unpacks it into /tmp.
func TestBrowser(t *testing.T) {
	for range 2 {
		var page struct {
			Title, Png, Pdf string
			Sum             int
		}
		invoke(t, "browser", `{"html":"<title>a page</title><h1>hello</h1>"}`, &page)
		assert.Equal(t, "a page", page.Title)
		assert.Equal(t, 6, page.Sum)
		assert.Equal(t, "89504e470d0a1a0a", page.Png)
		assert.Equal(t, "%PDF-", page.Pdf)
	}
}

// TestRuntimeInterfaceClient is AWS's own client for Node.js in an image with an entrypoint of its own.
func TestRuntimeInterfaceClient(t *testing.T) {
	var answer struct {
		Event             map[string]int
		Function, Request string
	}
	invoke(t, "ric", `{"a":1}`, &answer)
	assert.Equal(t, map[string]int{"a": 1}, answer.Event)
	assert.Equal(t, "ric", answer.Function)
	assert.Len(t, answer.Request, 36)
}

func TestGo(t *testing.T) {
	var answer struct {
		StatusCode int
		Body       string
	}
	invoke(t, "go", `{"httpMethod":"POST","path":"/","body":"{\"message\":\"from go\"}"}`, &answer)
	assert.Equal(t, http.StatusOK, answer.StatusCode)
	assert.Contains(t, answer.Body, `"message":"from go"`)
}

func TestC(t *testing.T) {
	for _, event := range []string{`{"a":[1,"ü"]}`, `7`, `null`} {
		var answer struct{ C json.RawMessage }
		invoke(t, "c", event, &answer)
		assert.JSONEq(t, event, string(answer.C))
	}
}

// TestJava is a Java run-time made by jlink; what it takes for the machine's memory is the function's.
func TestJava(t *testing.T) {
	var answer struct {
		Event     map[string]string
		Java      string
		MaxMemory int64
	}
	invoke(t, "java", `{"a":"b"}`, &answer)
	assert.Equal(t, map[string]string{"a": "b"}, answer.Event)
	assert.Equal(t, "17", answer.Java)
	assert.Less(t, answer.MaxMemory, int64(512<<20))
}

func TestShell(t *testing.T) {
	client := lambda.New(lambda.Options{BaseEndpoint: &box.HTTPURL, Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider(stack.AccessKey, stack.SecretKey, "")})
	name := "shell"
	out, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &name, Payload: []byte(`{"a":1}`)})
	require.NoError(t, err)
	require.Nil(t, out.FunctionError, "%s", out.Payload)
	assert.Equal(t, `Echoing request: '{"a":1}'`, string(out.Payload))
}

// TestPython_SDKOfTheRuntime also uses the URL that boto3 signs by default, from outside.
func TestPython_SDKOfTheRuntime(t *testing.T) {
	var answer struct {
		Text, URL, Version string
		Price              json.Number
	}
	invoke(t, "python-sdk", `{}`, &answer)
	assert.Equal(t, "from python", answer.Text)
	assert.Equal(t, json.Number("0.1234567890123456789012345"), answer.Price)
	file, err := box.Do(t.Context(), http.MethodGet, answer.URL, "", nil)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, file.Status, "%s", file.Body)
	assert.Equal(t, "from python", string(file.Body))
}

func TestPython_FlaskOfDebian(t *testing.T) {
	answer := request(t, "POST", "/python/flask/wor%20ld", "application/x-www-form-urlencoded", "a=1&b=%26")
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	assert.JSONEq(t, `{"hello":"wor ld","form":{"a":"1","b":"&"},"page":"<b>&lt;&amp;&gt;</b>"}`, string(answer.Body))
}

// TestSentry: an SDK that puts itself between the runtime's client and the handler, in either of the ways that such do, is told of
// the handler's errors (sentry_sdk 1.9.10 of Debian 12; @sentry/aws-serverless 10).
func TestSentry(t *testing.T) {
	for function, kind := range map[string]string{"sentry-node": "RangeError", "sentry-python": "LookupError"} {
		t.Run(function, func(t *testing.T) {
			client := lambda.New(lambda.Options{BaseEndpoint: &box.HTTPURL, Region: "us-east-1",
				Credentials: credentials.NewStaticCredentialsProvider(stack.AccessKey, stack.SecretKey, "")})
			failed, err := client.Invoke(t.Context(), &lambda.InvokeInput{FunctionName: &function, Payload: []byte(`{"fail":"told to sentry"}`)})
			require.NoError(t, err)
			require.NotNil(t, failed.FunctionError)
			assert.Contains(t, string(failed.Payload), kind)
			// What the SDK could not send before the invocation's end, it sends later.
			stack.Eventually(t, func() bool {
				var answer struct{ Received []string }
				invoke(t, function, `{}`, &answer)
				return slices.ContainsFunc(answer.Received, func(sent string) bool {
					return strings.Contains(sent, kind) && strings.Contains(sent, "told to sentry")
				})
			}, "the error must reach Sentry")
		})
	}
}

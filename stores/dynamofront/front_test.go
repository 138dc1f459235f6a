package dynamofront

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
	"github.com/edge-serverless-box/esb/stores/front"
)

const master = "0123456789abcdef0123456789abcdef"

// functions are those that there are: f and g.
func functions(t *testing.T) (*functionkeys.Keys, functionaccess.List) {
	t.Helper()
	keys, err := functionkeys.New([]byte(master))
	require.NoError(t, err)
	return keys, functionaccess.List{Account: "123456789012", Functions: map[string]functionaccess.Function{
		keys.ID("f"):   {Name: "f", Tables: []functionaccess.Table{{Table: "mine", Access: write}, {Table: "shared-*", Access: read}}},
		keys.ID("g"):   {Name: "g"},
		keys.ID("all"): {Name: "all", Tables: []functionaccess.Table{{Table: "*", Access: write}}},
	}}
}

// mustOpen starts a front before a backend that answers every operation with one table name and knows the key "key", and
// returns its URL. What comes from another address of loopback comes from a function.
func mustOpen(t *testing.T) string {
	t.Helper()
	return mustOpenWith(t, nil, nil)
}

func mustOpenWith(t *testing.T, held *budget.Budget, seen func(*http.Request)) string {
	t.Helper()
	store := sigv4.NewVerifier("dynamodb", sigv4.OneKey("key", "secret"))
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, "healthy")
			return
		}
		if string(body) == `{"ExclusiveStartTableName":"die"}` {
			panic(http.ErrAbortHandler)
		}
		if _, err := store.Verify(r, body); err != nil {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		if seen != nil {
			seen(r)
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_, _ = io.WriteString(w, `{"TableNames":["`+r.Header.Get("X-Amz-Target")+`"]}`)
	}))
	t.Cleanup(backend.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	keys, list := functions(t)
	f := Start([]net.Listener{l}, Options{
		Callers: front.Callers{
			Secret: keys.Secret, Rights: list.Rights, Store: sigv4.Credentials{AccessKeyID: "key", SecretAccessKey: "secret"}, WellKnown: "secret",
			Network: netip.MustParsePrefix("127.88.0.0/16"), Box: netip.MustParseAddr("127.88.0.1"),
		},
		Dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", backend.Listener.Addr().String())
		},
		Budget: held, Logger: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return "http://" + l.Addr().String()
}

func client(url, access, secret string) *dynamodb.Client {
	return dynamodb.New(dynamodb.Options{
		Region: "eu-central-1", BaseEndpoint: &url, Credentials: credentials.NewStaticCredentialsProvider(access, secret, ""),
		Retryer: aws.NopRetryer{}, HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute},
	})
}

func TestFront_RightKey_PassesTheRequestOn(t *testing.T) {
	url := mustOpen(t)
	tables, err := client(url, "key", "secret").ListTables(t.Context(), &dynamodb.ListTablesInput{})
	require.NoError(t, err)
	assert.Equal(t, []string{"DynamoDB_20120810.ListTables"}, tables.TableNames)
}

func TestFront_WrongKey_AnswersSoThatTheSDKUnderstands(t *testing.T) {
	url := mustOpen(t)
	for code, keys := range map[string][2]string{
		"UnrecognizedClientException": {"other", "secret"},
		"InvalidSignatureException":   {"key", "other"},
	} {
		_, err := client(url, keys[0], keys[1]).ListTables(t.Context(), &dynamodb.ListTablesInput{})
		var answer smithy.APIError
		require.ErrorAs(t, err, &answer)
		assert.Equal(t, code, answer.ErrorCode())
	}
}

func TestFront_BackendDies_AnswersAnErrorThatIsTriedAgain(t *testing.T) {
	_, err := client(mustOpen(t), "key", "secret").ListTables(t.Context(), &dynamodb.ListTablesInput{ExclusiveStartTableName: aws.String("die")})
	var answer *types.InternalServerError
	require.ErrorAs(t, err, &answer)
}

func TestFront_PlainRequests(t *testing.T) {
	url := mustOpen(t)
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		want               string
	}{
		"health":       {http.MethodGet, "/", "", 200, "healthy"},
		"not signed":   {http.MethodPost, "/", "{}", 400, `{"__type":"com.amazon.coral.service#MissingAuthenticationTokenException","message":"Request is missing Authentication Token"}`},
		"another path": {http.MethodPost, "/x", "{}", 404, "UnknownOperationException"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), c.method, url+c.path, strings.NewReader(c.body))
			require.NoError(t, err)
			res, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			defer func() { _ = res.Body.Close() }()
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			assert.Equal(t, c.status, res.StatusCode)
			assert.Contains(t, string(body), c.want)
		})
	}
}

// post sends a signed request, from an address when local is not empty.
func post(t *testing.T, url, local string, c sigv4.Credentials, target, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	require.NoError(t, err)
	r.Header.Set("X-Amz-Target", target)
	sigv4.Sign(r, c, "eu-central-1", "dynamodb", sigv4.HashPayload([]byte(body)), time.Now())
	dialer := &net.Dialer{}
	if local != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(local)}
	}
	res, err := (&http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}).Do(r)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res.StatusCode, string(text)
}

func TestFront_Functions_UseWhatTheyWereGiven(t *testing.T) {
	var resigned http.Header
	url := mustOpenWith(t, nil, func(r *http.Request) { resigned = r.Header.Clone() })
	keys, _ := functions(t)
	status, text := post(t, url, "127.88.0.2", keys.Of("f"), "DynamoDB_20120810.PutItem", `{"TableName":"mine","Item":{}}`)
	require.Equal(t, http.StatusOK, status, text)
	assert.Contains(t, resigned.Get("Authorization"), "Credential=key/")
	assert.Empty(t, resigned.Get("X-Amz-Security-Token"))

	status, text = post(t, url, "", keys.Of("f"), "DynamoDB_20120810.PutItem", `{"TableName":"shared-1","Item":{}}`)
	assert.Equal(t, http.StatusBadRequest, status)
	assert.JSONEq(t, `{"__type":"com.amazon.coral.service#AccessDeniedException","message":"User: arn:aws:sts::123456789012:assumed-role/f/f is not authorized to perform: dynamodb:PutItem on resource: arn:aws:dynamodb:eu-central-1:123456789012:table/shared-1 because functions.yml gives function f no such access (tables)"}`, text)

	status, text = post(t, url, "", keys.Of("gone"), "DynamoDB_20120810.GetItem", `{"TableName":"mine"}`)
	assert.Equal(t, http.StatusBadRequest, status)
	assert.Contains(t, text, "UnrecognizedClientException")
}

func TestFront_FunctionNetwork_TakesNoKeyThatEverybodyKnows(t *testing.T) {
	url := mustOpen(t)
	known := sigv4.Credentials{AccessKeyID: "key", SecretAccessKey: "secret"}
	const target, body = "DynamoDB_20120810.GetItem", `{"TableName":"mine"}`
	status, text := post(t, url, "127.88.0.2", known, target, body)
	assert.Equal(t, http.StatusBadRequest, status)
	assert.Contains(t, text, "known to everybody")
	for _, local := range []string{"127.88.0.1", ""} {
		status, _ = post(t, url, local, known, target, body)
		assert.Equal(t, http.StatusOK, status, "the box itself: %s", local)
	}
}

func TestFront_HalfRequests_AreRefusedBeforeTheirBodyComes(t *testing.T) {
	url := mustOpen(t)
	keys, _ := functions(t)
	for name, c := range map[string]struct {
		key    sigv4.Credentials
		target string
		want   string
	}{
		"unknown key":    {sigv4.Credentials{AccessKeyID: "other", SecretAccessKey: "x"}, "DynamoDB_20120810.GetItem", "UnrecognizedClientException"},
		"no such right":  {keys.Of("g"), "DynamoDB_20120810.PutItem", "AccessDeniedException"},
		"for nobody":     {keys.Of("all"), "DynamoDB_20120810.DeleteTable", "AccessDeniedException"},
		"not signed":     {sigv4.Credentials{}, "", "MissingAuthenticationToken"},
		"PartiQL, small": {keys.Of("g"), "DynamoDB_20120810.ExecuteStatement", "no such access"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
			require.NoError(t, err)
			r.Header.Set("X-Amz-Target", c.target)
			if c.key.AccessKeyID != "" {
				sigv4.Sign(r, c.key, "eu-central-1", "dynamodb", sigv4.HashPayload(nil), time.Now())
			}
			conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			require.NoError(t, err)
			defer func() { _ = conn.Close() }()
			var text strings.Builder
			require.NoError(t, r.Header.Write(&text))
			_, err = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: "+r.Host+"\r\nContent-Length: 10000000\r\n"+text.String()+"\r\n")
			require.NoError(t, err)
			require.NoError(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
			answer, err := io.ReadAll(conn)
			require.NoError(t, err, "%s", answer)
			assert.Contains(t, string(answer), c.want)
		})
	}
}

func TestFront_BodiesBeyondTheBudget_MayBeTriedAgain(t *testing.T) {
	held := budget.New(1 << 20)
	url := mustOpenWith(t, held, nil)
	keys, _ := functions(t)
	big := `{"TableName":"mine","Item":{"a":"` + strings.Repeat("x", 700<<10) + `"}}`
	status, text := post(t, url, "", keys.Of("f"), "DynamoDB_20120810.PutItem", big)
	assert.Equal(t, http.StatusServiceUnavailable, status)
	assert.Contains(t, text, "ServiceUnavailableException")
	status, text = post(t, url, "", keys.Of("f"), "DynamoDB_20120810.PutItem", `{"TableName":"mine"}`)
	assert.Equal(t, http.StatusOK, status, text)
	require.Eventually(t, func() bool { return held.Used() == 0 }, time.Minute, time.Millisecond)
}

package dynamofront

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
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

	"github.com/edge-serverless-box/esb/sigv4"
)

// mustOpen starts a front before a backend that answers every operation with one table name, and returns its URL.
func mustOpen(t *testing.T) string {
	t.Helper()
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, "healthy")
			return
		}
		if string(body) == `{"ExclusiveStartTableName":"die"}` {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		_, _ = io.WriteString(w, `{"TableNames":["`+r.Header.Get("X-Amz-Target")+`"]}`)
	}))
	t.Cleanup(backend.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", backend.Listener.Addr().String())
	}
	front := Start([]net.Listener{l}, sigv4.NewVerifier("dynamodb", sigv4.OneKey("key", "secret")), dial, slog.New(slog.DiscardHandler))
	t.Cleanup(func() { require.NoError(t, front.Close()) })
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
		"too large":    {http.MethodPost, "/", strings.Repeat("x", maxBody+1), 413, "Request size exceeded"},
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

package security

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// atS3 is a request that the hostile function signs with its own key, and what it is answered.
func atS3(t *testing.T, method, path, body, headers string) (status float64, answer string) {
	t.Helper()
	got := inside(t, fmt.Sprintf(`result = signed("s3", %q, os.environ["AWS_ENDPOINT_URL_S3"] + %q, %q, %s)[::2]`, method, path, body, headers)).([]any)
	return got[0].(float64), got[1].(string)
}

func TestHostileFunction_S3_IsItsOwnOnly(t *testing.T) {
	status, answer := atS3(t, "PUT", "/security-mine/kept", "data", "{}")
	require.Equal(t, 200.0, status, "what functions.yml gives works: %s", answer)
	status, answer = atS3(t, "GET", "/security-mine/kept", "", "{}")
	require.Equal(t, []any{200.0, "data"}, []any{status, answer})
	status, answer = atS3(t, "GET", "/security-part?list-type=2&prefix=mine%2F", "", "{}")
	require.Equal(t, 200.0, status, answer)
	const others = `<Delete><Object><Key>mine/a</Key></Object><Object><Key>theirs</Key></Object></Delete>`
	for what, c := range map[string]struct{ method, path, body, headers string }{
		"replace the code of another function":           {"PUT", "/security-code/app.zip", "evil", "{}"},
		"replace code by a copy":                         {"PUT", "/security-code/app.zip", "", `{"x-amz-copy-source": "/security-mine/kept"}`},
		"delete the code of another function":            {"DELETE", "/security-code/app.zip", "", "{}"},
		"read a bucket that it was not given":            {"GET", "/security-other/k", "", "{}"},
		"list a bucket that it was not given":            {"GET", "/security-other", "", "{}"},
		"write to a bucket that it was not given":        {"PUT", "/security-other/k", "x", "{}"},
		"copy from a bucket that it was not given":       {"PUT", "/security-mine/k", "", `{"x-amz-copy-source": "/security-other/k"}`},
		"read outside of its prefix":                     {"GET", "/security-part/theirs", "", "{}"},
		"list outside of its prefix":                     {"GET", "/security-part", "", "{}"},
		"list all buckets":                               {"GET", "/", "", "{}"},
		"open a bucket to everybody by a policy":         {"PUT", "/security-mine?policy", `{"Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::security-mine/*"}]}`, "{}"},
		"open a bucket to everybody by its ACL":          {"PUT", "/security-mine?acl", "", `{"x-amz-acl": "public-read-write"}`},
		"open an object to everybody by its ACL":         {"PUT", "/security-mine/k", "x", `{"x-amz-acl": "public-read"}`},
		"delete a bucket":                                {"DELETE", "/security-mine", "", "{}"},
		"make a bucket":                                  {"PUT", "/security-new", "", "{}"},
		"switch versions of a bucket off":                {"PUT", "/security-mine?versioning", "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>", "{}"},
		"ask the store's administration for all buckets": {"PATCH", "/list-buckets", "", "{}"},
		"make a user by the store's administration":      {"PATCH", "/create-user", "<Account><Access>x</Access><Secret>y</Secret><Role>admin</Role></Account>", "{}"},
	} {
		attempt(t, function, what, func(t *testing.T) {
			status, answer := atS3(t, c.method, c.path, c.body, c.headers)
			assert.Equal(t, 403.0, status, answer)
			assert.Contains(t, answer, "AccessDenied")
		})
	}
	attempt(t, function, "delete outside of its prefix, many at once", func(t *testing.T) {
		status, answer := atS3(t, "POST", "/security-part?delete", others, "{}")
		assert.Equal(t, 200.0, status, answer)
		assert.Contains(t, answer, "<Error><Key>theirs</Key><Code>AccessDenied</Code>")
		assert.NotContains(t, answer, "<Deleted><Key>theirs</Key>")
		// S3 answers for each object, when it is all of them too.
		for _, bucket := range []string{"security-part", "security-other", "security-code"} {
			status, answer = atS3(t, "POST", "/"+bucket+"?delete", `<Delete><Object><Key>theirs</Key></Object></Delete>`, "{}")
			assert.Equal(t, 200.0, status, answer)
			assert.Contains(t, answer, "<Error><Key>theirs</Key><Code>AccessDenied</Code>")
			assert.NotContains(t, answer, "<Deleted>")
		}
	})
	attempt(t, function, "climb out of its prefix", func(t *testing.T) {
		for _, path := range []string{"/security-part/mine/../theirs", "/security-part/mine/%2e%2e/theirs", "/security-mine/../security-other/k"} {
			status, answer := atS3(t, "GET", path, "", "{}")
			assert.Contains(t, []float64{400, 403}, status, answer)
		}
	})
	attempt(t, function, "use S3 without a signature", func(t *testing.T) {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			got := inside(t, fmt.Sprintf(`result = request(%q, os.environ["AWS_ENDPOINT_URL_S3"] + "/security-mine/kept", "x")[0]`, method))
			assert.Equal(t, 403.0, got, method)
		}
	})
	attempt(t, function, "use the stores with the key that everybody knows", func(t *testing.T) {
		got := inside(t, `
known = {"key": "esb-dev-access", "secret": "esb-dev-secret-change-in-production"}
result = [
    signed("s3", "GET", os.environ["AWS_ENDPOINT_URL_S3"] + "/security-other", **known)[0],
    signed("dynamodb", "POST", os.environ["AWS_ENDPOINT_URL_DYNAMODB"] + "/", "{}", {"x-amz-target": "DynamoDB_20120810.ListTables"}, **known)[0],
]`)
		for _, status := range got.([]any) {
			assert.Contains(t, []any{400.0, 403.0, 404.0}, status)
		}
	})
}

func TestHostileFunction_DynamoDB_IsItsOwnOnly(t *testing.T) {
	at := func(t *testing.T, operation, body string) (float64, string) {
		t.Helper()
		got := inside(t, fmt.Sprintf(`result = signed("dynamodb", "POST", os.environ["AWS_ENDPOINT_URL_DYNAMODB"] + "/", %q, {"x-amz-target": "DynamoDB_20120810.%s", "content-type": "application/x-amz-json-1.0"})[::2]`, body, operation)).([]any)
		return got[0].(float64), got[1].(string)
	}
	const id = `{"id":{"S":"1"}}`
	status, answer := at(t, "PutItem", `{"TableName":"security-mine","Item":`+id+`}`)
	require.Equal(t, 200.0, status, "what functions.yml gives works: %s", answer)
	status, answer = at(t, "BatchGetItem", `{"RequestItems":{"security-mine":{"Keys":[`+id+`]},"security-read":{"Keys":[`+id+`]}}}`)
	require.Equal(t, 200.0, status, answer)
	for what, c := range map[string]struct{ operation, body string }{
		"read a table that it was not given": {"GetItem", `{"TableName":"security-other","Key":` + id + `}`},
		"read it by its ARN":                 {"GetItem", `{"TableName":"arn:aws:dynamodb:us-east-1:123456789012:table/security-other","Key":` + id + `}`},
		"write to a table that it may read":  {"PutItem", `{"TableName":"security-read","Item":` + id + `}`},
		"read it in a batch":                 {"BatchGetItem", `{"RequestItems":{"security-mine":{"Keys":[` + id + `]},"security-other":{"Keys":[` + id + `]}}}`},
		"write to it in a batch":             {"BatchWriteItem", `{"RequestItems":{"security-other":[{"PutRequest":{"Item":` + id + `}}]}}`},
		"write to it in a transaction":       {"TransactWriteItems", `{"TransactItems":[{"Put":{"TableName":"security-mine","Item":` + id + `}},{"Put":{"TableName":"security-other","Item":` + id + `}}]}`},
		"read it by PartiQL":                 {"ExecuteStatement", `{"Statement":"SELECT * FROM \"security-other\""}`},
		"list all tables":                    {"ListTables", `{}`},
		"make a table":                       {"CreateTable", `{"TableName":"security-new","AttributeDefinitions":[{"AttributeName":"id","AttributeType":"S"}],"KeySchema":[{"AttributeName":"id","KeyType":"HASH"}],"BillingMode":"PAY_PER_REQUEST"}`},
		"delete a table":                     {"DeleteTable", `{"TableName":"security-mine"}`},
		"change a table":                     {"UpdateTable", `{"TableName":"security-mine","BillingMode":"PAY_PER_REQUEST"}`},
	} {
		attempt(t, function, "DynamoDB: "+what, func(t *testing.T) {
			status, answer := at(t, c.operation, c.body)
			assert.Equal(t, 400.0, status)
			assert.Contains(t, answer, "AccessDeniedException")
		})
	}
	attempt(t, function, "DynamoDB: name two tables in one member", func(t *testing.T) {
		for _, body := range []string{`{"TableName":"security-mine","TableName":"security-other","Key":` + id + `}`, `{"tablename":"security-mine","TableName":"security-other","Key":` + id + `}`} {
			status, answer := at(t, "GetItem", body)
			assert.Equal(t, 400.0, status, answer)
		}
	})
}

func TestFunctionThatIsGone_HasNoKey(t *testing.T) {
	path := filepath.Join(box.Home, "config", "functions.yml")
	before, err := os.ReadFile(path)
	require.NoError(t, err)
	keys, err := functionkeys.Open(filepath.Join(box.Home, "function-keys"))
	require.NoError(t, err)
	ask := func() (s3, dynamoDB int) {
		do := func(method, url, service, body string) int {
			r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
			require.NoError(t, err)
			r.Header.Set("X-Amz-Target", "DynamoDB_20120810.GetItem")
			r.Header.Set("Content-Type", "application/x-amz-json-1.0")
			sigv4.Sign(r, keys.Of("leaver"), "us-east-1", service, sigv4.HashPayload([]byte(body)), time.Now())
			res, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			defer func() { _ = res.Body.Close() }()
			_, _ = io.Copy(io.Discard, res.Body)
			return res.StatusCode
		}
		return do(http.MethodPut, box.S3URL+"/security-mine/of-the-leaver", "s3", "x"), do(http.MethodPost, box.DynamoDBURL+"/", "dynamodb", `{"TableName":"security-mine","Key":{"id":{"S":"1"}}}`)
	}
	const entry = "  leaver: {image: \"esb/lambda-echo:latest\", s3: [{bucket: security-mine, access: write}], tables: [security-mine]}\n"
	require.NoError(t, os.WriteFile(path, append(before, entry...), 0o644))
	t.Cleanup(func() { require.NoError(t, os.WriteFile(path, before, 0o644)) })
	require.Eventually(t, func() bool {
		s3, dynamoDB := ask()
		return s3 == http.StatusOK && dynamoDB == http.StatusOK
	}, 20*time.Second, 50*time.Millisecond, "what is given holds without a restart")
	attempt(t, function, "use the stores after it was taken out of functions.yml", func(t *testing.T) {
		require.NoError(t, os.WriteFile(path, before, 0o644))
		require.Eventually(t, func() bool {
			s3, dynamoDB := ask()
			return s3 == http.StatusForbidden && dynamoDB == http.StatusBadRequest
		}, 20*time.Second, 50*time.Millisecond)
	})
}

// storesBytes is what the stores' fronts may hold for requests, and garbage not yet collected.
const storesBytes int64 = 400 << 20

func TestClient_StalledUploadsAtTheStores_StayWithinTheBudget(t *testing.T) {
	if box.Way != stack.Native {
		t.Skip("looks at the stores' process")
	}
	const size, part = 15 << 20, 14 << 20
	guess := sigv4.Credentials{AccessKeyID: stack.AccessKey, SecretAccessKey: "a guess"}
	for _, c := range []struct {
		what, url, method, path, service string
		key                              sigv4.Credentials
	}{
		{"DynamoDB, not signed", box.DynamoDBURL, http.MethodPost, "/", "dynamodb", sigv4.Credentials{}},
		{"DynamoDB, with a known key's id", box.DynamoDBURL, http.MethodPost, "/", "dynamodb", guess},
		{"S3, not signed", box.S3URL, http.MethodPut, "/a-bucket/key", "s3", sigv4.Credentials{}},
		{"S3, with a known key's id", box.S3URL, http.MethodPut, "/a-bucket/key", "s3", guess},
	} {
		attempt(t, client, "take the stores' memory by 60 uploads that stop, at "+c.what, func(t *testing.T) {
			before := memoryOf(t, "stores")
			var uploads crowd
			defer uploads.leave()
			r, err := http.NewRequestWithContext(t.Context(), c.method, c.url+c.path, nil)
			require.NoError(t, err)
			r.Host = "box"
			if c.key.AccessKeyID != "" {
				sigv4.Sign(r, c.key, "us-east-1", c.service, sigv4.HashPayload(nil), time.Now())
			}
			headers := []string{"X-Amz-Target: DynamoDB_20120810.PutItem"}
			for name := range r.Header {
				headers = append(headers, name+": "+r.Header.Get(name))
			}
			var sending sync.WaitGroup
			for range 60 {
				conn, err := dialFrom(t.Context(), attacker, c.url)
				require.NoError(t, err)
				uploads.join(conn)
				sending.Go(func() {
					_ = conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
					_ = half(conn, c.method, c.path, size, make([]byte, part), headers...) // a refused one cannot send all
				})
			}
			sending.Wait()
			grown := memoryOf(t, "stores") - before
			t.Logf("%d MB more", grown>>20)
			assert.Less(t, grown, storesBytes)
			res, err := clientFrom(t, honest).Get(c.url + "/")
			require.NoError(t, err)
			defer func() { _ = res.Body.Close() }()
			assert.Less(t, res.StatusCode, 500, "others are served")
		})
	}
	attempt(t, function, "take the stores' memory by 40 bodies of 15 MB", func(t *testing.T) {
		before := memoryOf(t, "stores")
		got := inside(t, `
import threading
answers = []
body = json.dumps({"TableName": "security-mine", "Item": {"id": {"S": "big"}, "text": {"S": "x" * (15 << 20)}}}).encode()  # once: its own memory has a bound too
def put():
    status = signed("dynamodb", "POST", os.environ["AWS_ENDPOINT_URL_DYNAMODB"] + "/", body, {"x-amz-target": "DynamoDB_20120810.PutItem"}, timeout=25)[0]
    answers.append(status)
threads = [threading.Thread(target=put) for _ in range(40)]
[x.start() for x in threads]
[x.join() for x in threads]
result = answers
`)
		grown := memoryOf(t, "stores") - before
		t.Logf("%d MB more, answers %v", grown>>20, got)
		assert.Less(t, grown, storesBytes)
	})
}

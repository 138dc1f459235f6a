package s3front_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
	"github.com/edge-serverless-box/esb/sigv4/sigv4test"
	"github.com/edge-serverless-box/esb/stores/front"
	"github.com/edge-serverless-box/esb/stores/s3front"
)

const master = "0123456789abcdef0123456789abcdef"

var (
	storeKey = sigv4.Credentials{AccessKeyID: "store", SecretAccessKey: "store-secret"}
	log      = slog.New(slog.DiscardHandler)
)

// seen is a request that has reached the store.
type seen struct {
	method, uri, host, body string
	header                  http.Header
	length                  int64
	// who signed it, and whether that was right.
	key     string
	refused error
	payload string
	bodyErr error
}

// store is a store that knows one key.
type store struct {
	mu   sync.Mutex
	seen []seen
	// answer and header are what it answers; set before it is asked.
	answer string
	header http.Header
}

func (s *store) last(t *testing.T) seen {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	require.NotEmpty(t, s.seen)
	return s.seen[len(s.seen)-1]
}

func (s *store) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen)
}

// given is what function f may do.
var given = functionaccess.Function{Name: "f", S3: []functionaccess.Objects{
	{Bucket: "bkt", Access: functionaccess.Write}, {Bucket: "src", Prefix: "open/", Access: functionaccess.Read}, {Bucket: "code", Access: functionaccess.Write},
	{Bucket: "part", Prefix: "own/", Access: functionaccess.Write},
}}

// mustOpen returns the address of a front before a store that answers 200, and the functions' keys: f has what is given, g
// nothing, and no other function is there.
func mustOpen(t *testing.T) (string, *store, *functionkeys.Keys) {
	t.Helper()
	return mustOpenWith(t, s3front.Options{Logger: log})
}

// mustOpenWith is mustOpen with other options.
func mustOpenWith(t *testing.T, o s3front.Options) (string, *store, *functionkeys.Keys) {
	t.Helper()
	keys, err := functionkeys.New([]byte(master))
	require.NoError(t, err)
	backend := &store{}
	verifier := sigv4.NewVerifier("s3", sigv4.OneKey(storeKey.AccessKeyID, storeKey.SecretAccessKey))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := seen{method: r.Method, uri: r.RequestURI, host: r.Host, header: r.Header.Clone(), length: r.ContentLength}
		var signature sigv4.Signature
		signature, got.refused = verifier.VerifyHead(r)
		body, err := io.ReadAll(r.Body)
		got.body, got.bodyErr, got.key, got.payload = string(body), err, signature.AccessKeyID, signature.Payload
		backend.mu.Lock()
		backend.seen = append(backend.seen, got)
		backend.mu.Unlock()
		for name, values := range backend.header {
			w.Header()[name] = values
		}
		_, _ = io.WriteString(w, backend.answer)
	}))
	t.Cleanup(server.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	o.Callers = callers(keys)
	o.Dial = func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}
	f := s3front.Start([]net.Listener{listener}, o)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return "http://" + listener.Addr().String(), backend, keys
}

func callers(keys *functionkeys.Keys) front.Callers {
	list := functionaccess.List{Account: "123456789012", CodeBuckets: []string{"code"}, Functions: map[string]functionaccess.Function{
		keys.ID("f"): given, keys.ID("g"): {Name: "g"},
	}}
	return front.Callers{
		Secret: keys.Secret, Rights: list.Rights, Store: storeKey, WellKnown: "everybody knows",
		// Who comes from another address of loopback is a function.
		Network: netip.MustParsePrefix("127.88.0.0/16"), Box: netip.MustParseAddr("127.88.0.1"),
	}
}

func client(endpoint string, c sigv4.Credentials) *s3.Client {
	return s3.New(s3.Options{
		Region: "eu-west-1", BaseEndpoint: aws.String(endpoint), UsePathStyle: true, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken),
	})
}

func TestS3_SDKWithAFunctionsKey_ReachesTheStoreWithTheStoresKey(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	c := client(endpoint, keys.Of("f"))
	_, err := c.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String("bkt"), Key: aws.String("a/two words+ü(1).txt"), Body: strings.NewReader("hello"),
		Metadata: map[string]string{"name": "value"}, ContentType: aws.String("text/plain"),
	})
	require.NoError(t, err)
	got := backend.last(t)
	require.NoError(t, got.refused)
	assert.Equal(t, "store", got.key)
	assert.Equal(t, "hello", got.body)
	assert.Equal(t, int64(5), got.length)
	assert.Equal(t, strings.TrimPrefix(endpoint, "http://"), got.host, "the store sees the host that the client called")
	assert.Equal(t, "value", got.header.Get("X-Amz-Meta-Name"))
	assert.Empty(t, got.header.Get("X-Amz-Security-Token"))
	assert.NotContains(t, got.header.Get("Authorization"), "ASIAESB")

	_, err = c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bkt"), Key: aws.String("k"), VersionId: aws.String("a.b+c~d")})
	require.NoError(t, err)
	require.NoError(t, backend.last(t).refused)
	_, err = c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bkt"), Prefix: aws.String("e2e/ü ")})
	require.NoError(t, err)
	require.NoError(t, backend.last(t).refused)
	_, err = c.HeadObject(t.Context(), &s3.HeadObjectInput{Bucket: aws.String("bkt"), Key: aws.String("k")})
	require.NoError(t, err)
	require.NoError(t, backend.last(t).refused)
}

func TestS3_OtherKeys_PassUntouched(t *testing.T) {
	endpoint, backend, _ := mustOpen(t)
	_, err := client(endpoint, storeKey).PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bkt"), Key: aws.String("k"), Body: strings.NewReader("x")})
	require.NoError(t, err)
	require.NoError(t, backend.last(t).refused)
	_, err = client(endpoint, sigv4.Credentials{AccessKeyID: "other", SecretAccessKey: "other"}).GetObject(t.Context(),
		&s3.GetObjectInput{Bucket: aws.String("bkt"), Key: aws.String("k")})
	require.NoError(t, err, "the store decides, and this one answers everybody")
	assert.Contains(t, backend.last(t).header.Get("Authorization"), "Credential=other/")
	require.Error(t, backend.last(t).refused)

	// As it stands on the wire, without a signature too.
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, endpoint+"/b//k%2F+%20?a=%zz;b&delete", nil)
	require.NoError(t, err)
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	assert.Equal(t, "/b//k%2F+%20?a=%zz;b&delete", backend.last(t).uri)
}

func TestS3_Presigned_IsSignedAgainUntilItExpires(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	presigned, err := s3.NewPresignClient(client(endpoint, keys.Of("f"))).PresignPutObject(t.Context(),
		&s3.PutObjectInput{Bucket: aws.String("bkt"), Key: aws.String("k ü")}, s3.WithPresignExpires(time.Minute))
	require.NoError(t, err)
	do := func(target string) *http.Response {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, target, strings.NewReader("data"))
		require.NoError(t, err)
		for name, values := range presigned.SignedHeader {
			if name != "Host" {
				r.Header[name] = values
			}
		}
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		t.Cleanup(func() { _ = res.Body.Close() })
		return res
	}
	assert.Equal(t, http.StatusOK, do(presigned.URL).StatusCode)
	got := backend.last(t)
	require.NoError(t, got.refused)
	assert.Equal(t, "data", got.body)
	query, err := url.ParseQuery(got.uri[strings.Index(got.uri, "?")+1:])
	require.NoError(t, err)
	assert.Equal(t, "60", query.Get("X-Amz-Expires"))
	assert.False(t, query.Has("X-Amz-Security-Token"))

	res := do(strings.Replace(presigned.URL, "X-Amz-Expires=60", "X-Amz-Expires=61", 1))
	assert.Equal(t, http.StatusForbidden, res.StatusCode)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Contains(t, string(body), "<Code>SignatureDoesNotMatch</Code>")
	assert.Equal(t, 1, backend.count())
}

func TestS3_BadSignatures_AreRefusedAsByS3(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	right := keys.Of("f")
	for _, c := range []struct {
		name, code string
		key        sigv4.Credentials
	}{
		{"wrong secret", "SignatureDoesNotMatch", sigv4.Credentials{AccessKeyID: right.AccessKeyID, SecretAccessKey: "wrong"}},
	} {
		_, err := client(endpoint, c.key).GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bkt"), Key: aws.String("k")})
		var api smithy.APIError
		require.ErrorAs(t, err, &api, c.name)
		assert.Equal(t, c.code, api.ErrorCode(), c.name)
	}
	assert.Zero(t, backend.count())
}

func TestS3_BodyIsNotWhatWasSigned_IsRefused(t *testing.T) {
	endpoint, _, keys := mustOpen(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, endpoint+"/bkt/k", strings.NewReader("other"))
	require.NoError(t, err)
	sigv4.Sign(r, keys.Of("f"), "eu-west-1", "s3", sigv4.HashPayload([]byte("right")), time.Now())
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Equal(t, http.StatusBadRequest, res.StatusCode)
	assert.Contains(t, string(body), "<Code>XAmzContentSHA256Mismatch</Code>")
}

func TestS3_SignedChunks_AreCheckedAndPassedOnDecoded(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	for _, size := range []int{0, 1, 8192, 8193, 65536, 65537, 3*65536 + 7} {
		for _, trailer := range []string{"", "x-amz-checksum-crc32c"} {
			data := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, endpoint+"/bkt/k", nil)
			require.NoError(t, err)
			r.Header.Set("Content-Encoding", "gzip")
			sigv4test.SignChunks(r, keys.Of("f"), "eu-west-1", data, 8192, trailer, "sOO8/Q==")
			res, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.Equal(t, http.StatusOK, res.StatusCode, "%d %s", size, trailer)
			got := backend.last(t)
			require.NoError(t, got.refused)
			require.NoError(t, got.bodyErr)
			assert.Equal(t, int64(len(got.body)), got.length)
			if trailer == "" {
				assert.Equal(t, sigv4.UnsignedPayload, got.payload)
				assert.Equal(t, string(data), got.body)
				assert.Equal(t, "gzip", got.header.Get("Content-Encoding"))
				assert.Empty(t, got.header.Get("X-Amz-Decoded-Content-Length"))
				continue
			}
			assert.Equal(t, sigv4.StreamingUnsignedTrailer, got.payload)
			assert.Equal(t, strconv.Itoa(size), got.header.Get("X-Amz-Decoded-Content-Length"))
			assert.Equal(t, string(data), unchunk(t, got.body, "x-amz-checksum-crc32c:sOO8/Q=="))
		}
	}
}

// unchunk decodes chunks without signatures and checks what follows them.
func unchunk(t *testing.T, body, trailer string) string {
	t.Helper()
	var data strings.Builder
	for {
		line, rest, ok := strings.Cut(body, "\r\n")
		require.True(t, ok)
		size, err := strconv.ParseInt(line, 16, 64)
		require.NoError(t, err)
		if size == 0 {
			require.Equal(t, trailer+"\r\n\r\n", rest)
			return data.String()
		}
		data.WriteString(rest[:size])
		require.Equal(t, "\r\n", rest[size:size+2])
		body = rest[size+2:]
	}
}

func TestS3_BadChunks_AreRefused_AndTheStoreNeverHasAll(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	data := bytes.Repeat([]byte("x"), 300_000)
	for _, trailer := range []string{"", "x-amz-checksum-crc32c"} {
		for _, at := range []int{1000, 299_000} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, endpoint+"/bkt/k", nil)
			require.NoError(t, err)
			r.Header.Set("Content-Encoding", "gzip")
			sigv4test.SignChunks(r, keys.Of("f"), "eu-west-1", data, 8192, trailer, "sOO8/Q==")
			body, err := io.ReadAll(r.Body)
			require.NoError(t, err)
			body[at] ^= 1
			r.Body = io.NopCloser(bytes.NewReader(body))
			before := backend.count()
			res, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			answer, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			assert.Equal(t, http.StatusForbidden, res.StatusCode)
			assert.Contains(t, string(answer), "<Code>SignatureDoesNotMatch</Code>")
			// The store sees the end of the connection before the end of the body.
			require.Eventually(t, func() bool { return backend.count() > before }, time.Minute, time.Millisecond)
			require.Error(t, backend.last(t).bodyErr)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, endpoint+"/bkt/k", nil)
	require.NoError(t, err)
	sigv4test.SignChunks(r, keys.Of("f"), "eu-west-1", data, 8192, "x-amz-other", "1")
	res, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	assert.Equal(t, http.StatusNotImplemented, res.StatusCode)
}

func TestFront_StoreIsGone_SDKsMayTryAgain(t *testing.T) {
	keys, err := functionkeys.New([]byte(master))
	require.NoError(t, err)
	handler := s3front.Handler(s3front.Options{
		Callers: callers(keys), Logger: log, Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("refused") },
	})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
	assert.NotContains(t, w.Body.String(), "refused", "clients see no internals")
}

// from returns a client that comes from an address of loopback.
func from(address string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}).DialContext, DisableKeepAlives: true,
	}}
}

func TestS3_FunctionsRights_DecideBeforeTheStoreIsAsked(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	put := func(function, bucket string) error {
		_, err := client(endpoint, keys.Of(function)).PutObject(t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: aws.String("k"), Body: strings.NewReader("x")})
		return err
	}
	for _, c := range []struct{ function, bucket, code string }{
		{"f", "other", "AccessDenied"}, {"f", "src", "AccessDenied"}, {"f", "code", "AccessDenied"}, {"g", "bkt", "AccessDenied"}, {"gone", "bkt", "InvalidAccessKeyId"},
	} {
		var api smithy.APIError
		require.ErrorAs(t, put(c.function, c.bucket), &api, "%v", c)
		assert.Equal(t, c.code, api.ErrorCode(), "%v", c)
	}
	assert.Zero(t, backend.count())
	require.NoError(t, put("f", "bkt"))
	presigned, err := s3.NewPresignClient(client(endpoint, keys.Of("f"))).PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("other"), Key: aws.String("k")})
	require.NoError(t, err)
	res, err := from("127.0.0.1").Get(presigned.URL)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	assert.Equal(t, http.StatusForbidden, res.StatusCode, "what it signs for others is what it may do itself")
}

func TestS3_DeleteObjects_NamesOnlyWhatTheFunctionMayDelete(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	remove := func(bucket string, names ...string) (*s3.DeleteObjectsOutput, error) {
		in := &s3.DeleteObjectsInput{Bucket: &bucket, Delete: &types.Delete{}}
		for _, name := range names {
			in.Delete.Objects = append(in.Delete.Objects, types.ObjectIdentifier{Key: aws.String(name)})
		}
		return client(endpoint, keys.Of("f")).DeleteObjects(t.Context(), in)
	}
	_, err := remove("bkt", "a b", "c/<d>")
	require.NoError(t, err)
	require.NoError(t, backend.last(t).refused)
	assert.Contains(t, backend.last(t).body, "<Key>a b</Key>")
	for _, bucket := range []string{"src", "code", "other"} {
		// Of each object, as S3 does, even when there is nothing to do.
		out, err := remove(bucket, "open/a", "b & c")
		require.NoError(t, err)
		assert.Empty(t, out.Deleted)
		var refused []string
		for _, e := range out.Errors {
			refused = append(refused, aws.ToString(e.Key))
			assert.Equal(t, "AccessDenied", aws.ToString(e.Code))
			assert.Contains(t, aws.ToString(e.Message), "is not authorized to perform: s3:DeleteObject on resource: arn:aws:s3:::"+bucket)
		}
		assert.Equal(t, []string{"open/a", "b & c"}, refused)
	}
	_, err = remove("bkt", "a", "../b")
	require.ErrorContains(t, err, "MalformedXML")
	assert.Equal(t, 1, backend.count())
}

func TestS3_FunctionNetwork_TakesSignedRequestsOnly(t *testing.T) {
	keys, err := functionkeys.New([]byte(master))
	require.NoError(t, err)
	endpoint, backend, _ := mustOpen(t)
	signed := func(c sigv4.Credentials) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, endpoint+"/bkt/k", nil)
		require.NoError(t, err)
		if c.AccessKeyID != "" {
			sigv4.Sign(r, c, "eu-west-1", "s3", sigv4.HashPayload(nil), time.Now())
		}
		return r
	}
	operator, err := s3.NewPresignClient(client(endpoint, storeKey)).PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("other"), Key: aws.String("k")})
	require.NoError(t, err)
	presigned, err := http.NewRequestWithContext(t.Context(), http.MethodGet, operator.URL, nil)
	require.NoError(t, err)
	nonsense := signed(sigv4.Credentials{})
	nonsense.Header.Set("Authorization", "Bearer Credential=x/y")
	for _, c := range []struct {
		what   string
		r      *http.Request
		status int
	}{
		{"anonymous", signed(sigv4.Credentials{}), http.StatusForbidden},
		{"not quite signed", nonsense, http.StatusBadRequest},
		{"wrong secret of the operator", signed(sigv4.Credentials{AccessKeyID: storeKey.AccessKeyID, SecretAccessKey: "x"}), http.StatusForbidden},
		{"the operator", signed(storeKey), http.StatusOK},
		{"presigned by the operator", presigned, http.StatusOK},
		{"a key that the store may know", signed(sigv4.Credentials{AccessKeyID: "other", SecretAccessKey: "other"}), http.StatusOK},
		{"a function", signed(keys.Of("f")), http.StatusOK},
	} {
		before := backend.count()
		res, err := from("127.88.0.2").Do(c.r)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		assert.Equal(t, c.status, res.StatusCode, c.what)
		assert.Equal(t, c.status == http.StatusOK, backend.count() > before, c.what)
	}
	res, err := from("127.88.0.1").Do(signed(sigv4.Credentials{}))
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	assert.Equal(t, http.StatusOK, res.StatusCode, "the box itself is no function: the store decides")

	known := callers(keys)
	known.WellKnown = storeKey.SecretAccessKey
	handler := s3front.Handler(s3front.Options{Callers: known, Logger: log, Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("none") }})
	for remote, status := range map[string]int{"127.88.0.2:1": http.StatusForbidden, "127.0.0.1:1": http.StatusServiceUnavailable} {
		r := signed(storeKey)
		r.RemoteAddr = remote
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		assert.Equal(t, status, w.Code, remote)
	}
}

func TestS3_BeyondTheBudget_MayBeTriedAgain(t *testing.T) {
	keys, err := functionkeys.New([]byte(master))
	require.NoError(t, err)
	handler := s3front.Handler(s3front.Options{Callers: callers(keys), Logger: log, Budget: budget.New(front.RequestCost), Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("none") }})
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/bkt/k", nil))
	assert.Equal(t, http.StatusServiceUnavailable, w.Code)
	assert.Contains(t, w.Body.String(), "SlowDown")
}

// mustRaw sends bytes and returns all that comes back.
func mustRaw(t *testing.T, addr, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, text)
	require.NoError(t, err)
	all, err := io.ReadAll(conn)
	require.NoError(t, err)
	return string(all)
}

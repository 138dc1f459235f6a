package sigv4

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func mustRequest(t testing.TB, method, target, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	require.NoError(t, err)
	return r
}

func at(service string, now time.Time) *Verifier {
	v := NewVerifier(service, OneKey(access, secret))
	v.now = func() time.Time { return now }
	return v
}

// urls are what signers treat in different ways.
var urls = []string{
	"http://box:8000",
	"http://box:8000/2015-03-31/functions/lambda-echo/invocations?Qualifier=%24LATEST",
	"http://box:8000/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Aecho/invocations",
	"http://box/bucket/a%20b%2Bd%281%29/%C3%A4~?b=2&a=1&a=0&a-b=3&c&d=e%20f%2Bg%2F",
	"http://box/bucket/?prefix=x%3Dy&list-type=2",
}

func TestVerify_SignedByTheSDK_IsAccepted(t *testing.T) {
	creds := aws.Credentials{AccessKeyID: access, SecretAccessKey: secret, SessionToken: "token"}
	for _, target := range urls {
		for _, service := range []string{"lambda", "s3"} {
			t.Run(service+" "+target, func(t *testing.T) {
				signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" })
				r := mustRequest(t, http.MethodPost, target, "{}")
				r.Header.Set("X-Amz-Client-Context", " a   b ")
				r.Header.Set(HeaderContentSHA256, HashPayload([]byte("{}")))
				r.Header.Set("X-Amzn-Trace-Id", "Root=1-2-3")
				require.NoError(t, signer.SignHTTP(t.Context(), creds, r, HashPayload([]byte("{}")), service, "eu-west-1", signedAt))
				// Proxies on the way add what is not signed.
				r.Header.Set("X-Forwarded-For", "1.2.3.4")
				got, err := at(service, signedAt).Verify(r, []byte("{}"))
				require.NoError(t, err)
				assert.Equal(t, "token", got.SessionToken)
				_, err = at(service, signedAt).VerifyHead(r)
				require.NoError(t, err)
			})
		}
	}
}

func TestVerify_PresignedByTheSDK_IsAcceptedUntilItExpires(t *testing.T) {
	creds := aws.Credentials{AccessKeyID: access, SecretAccessKey: secret, SessionToken: "token"}
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	for _, target := range urls {
		t.Run(target, func(t *testing.T) {
			r := mustRequest(t, http.MethodGet, target, "")
			query := r.URL.Query()
			query.Set("X-Amz-Expires", "600")
			r.URL.RawQuery = query.Encode()
			signed, _, err := signer.PresignHTTP(t.Context(), creds, r, UnsignedPayload, "s3", "us-east-1", signedAt)
			require.NoError(t, err)
			fresh := func() *http.Request { return mustRequest(t, http.MethodGet, signed, "") }
			got, err := at("s3", signedAt.Add(9*time.Minute)).VerifyHead(fresh())
			require.NoError(t, err)
			assert.True(t, got.Presigned)
			assert.Equal(t, UnsignedPayload, got.Payload)
			assert.Equal(t, "token", got.SessionToken)

			for name, c := range map[string]struct {
				now    time.Time
				change func(*http.Request, url.Values)
				want   Reason
			}{
				"expired":         {signedAt.Add(11 * time.Minute), func(*http.Request, url.Values) {}, Expired},
				"from the future": {signedAt.Add(-6 * time.Minute), func(*http.Request, url.Values) {}, Skewed},
				"longer":          {signedAt, func(_ *http.Request, q url.Values) { q.Set("X-Amz-Expires", "601") }, Mismatch},
				"for ever":        {signedAt, func(_ *http.Request, q url.Values) { q.Set("X-Amz-Expires", "604801") }, Incomplete},
				"another key":     {signedAt, func(r *http.Request, _ url.Values) { r.URL.Path, r.URL.RawPath = "/bucket/other", "" }, Mismatch},
				"another method":  {signedAt, func(r *http.Request, _ url.Values) { r.Method = http.MethodDelete }, Mismatch},
				"more in query":   {signedAt, func(_ *http.Request, q url.Values) { q.Set("versionId", "1") }, Mismatch},
				"signed twice":    {signedAt, func(r *http.Request, _ url.Values) { r.Header.Set("Authorization", "AWS4-HMAC-SHA256 x") }, Incomplete},
				"two signatures":  {signedAt, func(_ *http.Request, q url.Values) { q.Add("X-Amz-Signature", "0") }, Incomplete},
				"no signature":    {signedAt, func(_ *http.Request, q url.Values) { q.Del("X-Amz-Signature") }, Incomplete},
				"unsigned header": {signedAt, func(r *http.Request, _ url.Values) { r.Header.Set("X-Amz-Acl", "public-read") }, Incomplete},
			} {
				r := fresh()
				q := r.URL.Query()
				c.change(r, q)
				r.URL.RawQuery = q.Encode()
				_, err := at("s3", c.now).VerifyHead(r)
				var refused *Error
				if assert.ErrorAs(t, err, &refused, name) {
					assert.Equal(t, c.want, refused.Reason, "%s: %s", name, refused)
				}
			}
		})
	}
}

func TestSign_AnyRequest_IsWhatTheSDKSigns(t *testing.T) {
	for _, target := range urls {
		for _, service := range []string{"lambda", "s3"} {
			signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = service == "s3" })
			sum := HashPayload(nil)
			want := mustRequest(t, http.MethodGet, target, "")
			want.Header.Set("X-Amz-Meta-A", "1")
			want.Header.Set("Content-Type", "application/json")
			got := want.Clone(t.Context())
			if service == "s3" {
				want.Header.Set(HeaderContentSHA256, sum)
			}
			require.NoError(t, signer.SignHTTP(t.Context(), aws.Credentials{AccessKeyID: access, SecretAccessKey: secret, SessionToken: "token"}, want, sum, service, "eu-west-1", signedAt))
			// A request that was signed by someone else before.
			got.Header.Set("Authorization", "old")
			got.Header.Set(HeaderDate, "old")
			Sign(got, Credentials{AccessKeyID: access, SecretAccessKey: secret, SessionToken: "token"}, "eu-west-1", service, sum, signedAt)
			assert.Equal(t, want.Header.Get("Authorization"), got.Header.Get("Authorization"), "%s %s", service, target)
		}
	}
}

func TestVerifyHead_PayloadIsSaidInTheHeader_IsWhatIsSigned(t *testing.T) {
	for _, c := range []struct {
		payload string
		ok      bool
	}{
		{UnsignedPayload, true},
		{StreamingPayload, true},
		{StreamingPayloadTrailer, true},
		{StreamingUnsignedTrailer, true},
		{HashPayload([]byte("body")), true},
		{"", false},
		{"STREAMING-OTHER", false},
		{strings.Repeat("0", 63), false},
	} {
		r := mustRequest(t, http.MethodPut, "http://box/b/k", "body")
		Sign(r, Credentials{AccessKeyID: access, SecretAccessKey: secret}, "us-east-1", "s3", c.payload, signedAt)
		got, err := at("s3", signedAt).VerifyHead(r)
		if !c.ok {
			assert.ErrorContains(t, err, "x-amz-content-sha256", c.payload)
			continue
		}
		require.NoError(t, err, c.payload)
		assert.Equal(t, c.payload, got.Payload)
		_, err = at("s3", signedAt).Verify(r, []byte("body"))
		assert.Equal(t, c.payload == HashPayload([]byte("body")), err == nil, "Verify takes no word for a body that it has")
	}
}

func TestBody_IsNotWhatWasSigned_EndsInAnError(t *testing.T) {
	read := func(payload, body string) error {
		s := Signature{Payload: payload}
		got, err := io.ReadAll(s.Body(io.NopCloser(bytes.NewReader([]byte(body)))))
		assert.Equal(t, body, string(got))
		return err
	}
	require.NoError(t, read(HashPayload([]byte("body")), "body"))
	require.ErrorIs(t, read(HashPayload([]byte("body")), "bodY"), ErrPayload)
	require.ErrorIs(t, read(HashPayload([]byte("body")), ""), ErrPayload)
	require.NoError(t, read(UnsignedPayload, "anything"))
}

func TestError_EveryReason_HasS3sCode(t *testing.T) {
	got := map[Reason]string{}
	for _, reason := range []Reason{Missing, Incomplete, UnknownKey, Mismatch, Skewed, Expired} {
		got[reason] = (&Error{Reason: reason}).S3Code()
	}
	assert.Equal(t, map[Reason]string{
		Missing: "AccessDenied", Incomplete: "AuthorizationHeaderMalformed", UnknownKey: "InvalidAccessKeyId",
		Mismatch: "SignatureDoesNotMatch", Skewed: "RequestTimeTooSkewed", Expired: "AccessDenied",
	}, got)
}

// FuzzVerify: a request that is not the one that was signed is refused, whatever it is, and nothing panics. The
// signatures are those of two requests, one with the signature in its header and one with it in the query.
func FuzzVerify(f *testing.F) {
	const target = "http://box:8000/2015-03-31/functions/arn%3Aaws%3Aecho/invocations?Qualifier=1&a=b+c"
	creds := Credentials{AccessKeyID: access, SecretAccessKey: secret}
	base := mustRequest(f, http.MethodPost, target, body)
	base.Header.Set("X-Amz-Target", "A b")
	Sign(base, creds, "us-east-1", "lambda", HashPayload([]byte(body)), signedAt)
	pre := mustRequest(f, http.MethodGet, target+"&X-Amz-Expires=600", "")
	presigned, _, err := v4.NewSigner().PresignHTTP(f.Context(), aws.Credentials{AccessKeyID: access, SecretAccessKey: secret}, pre, HashPayload(nil), "lambda", "us-east-1", signedAt)
	require.NoError(f, err)
	signedURL, err := url.Parse(presigned)
	require.NoError(f, err)

	f.Add(base.Method, base.URL.EscapedPath(), base.URL.RawQuery, "X-Amz-Target", "A b", base.Header.Get("Authorization"), body)
	f.Add(base.Method, base.URL.EscapedPath(), base.URL.RawQuery, "X-Amz-Target", "A  b", base.Header.Get("Authorization"), body+" ")
	f.Add("GET", signedURL.EscapedPath(), signedURL.RawQuery, "Accept", "*/*", "", "")
	f.Add("GET", signedURL.EscapedPath(), signedURL.RawQuery+"&x=y", "X-Amz-Acl", "x", "", "")
	f.Fuzz(func(t *testing.T, method, path, query, name, value, authorization, body string) {
		u, err := url.Parse("http://box:8000" + path)
		if err != nil {
			return
		}
		u.RawQuery = query
		r := &http.Request{Method: method, URL: u, Host: "box:8000", Header: http.Header{}, ContentLength: int64(len(body))}
		want, wantQuery := base, base.URL.Query()
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
			r.Header.Set("X-Amz-Date", base.Header.Get("X-Amz-Date"))
		} else {
			want, wantQuery = pre, signedURL.Query()
		}
		if name != "" {
			r.Header.Set(name, value)
		}
		v := at("lambda", signedAt)
		_, _ = v.VerifyHead(r)
		if _, err := v.Verify(r, []byte(body)); err != nil {
			var refused *Error
			require.ErrorAs(t, err, &refused)
			return
		}
		assert.Equal(t, want.Method, r.Method)
		assert.Equal(t, want.URL.EscapedPath(), r.URL.EscapedPath())
		gotQuery := r.URL.Query()
		for _, values := range [...]url.Values{gotQuery, wantQuery} {
			for _, key := range slices.Collect(maps.Keys(values)) {
				slices.Sort(values[key])
			}
		}
		assert.Equal(t, wantQuery, gotQuery)
		assert.Equal(t, strings.Fields(want.Header.Get("X-Amz-Target")), strings.Fields(r.Header.Get("X-Amz-Target")))
		if want == base {
			assert.Equal(t, `{"TableName":"items"}`, body)
		} else {
			assert.Empty(t, body)
		}
	})
}

package s3front

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
)

// rights of a function that was given a bucket, a part of another one, a bucket with code, and to read what begins with r-.
func rights(t testing.TB) functionaccess.Rights {
	t.Helper()
	l := functionaccess.List{Account: "123456789012", CodeBuckets: []string{"code"}, Functions: map[string]functionaccess.Function{"KEY": {
		Name: "f", S3: []functionaccess.Objects{
			{Bucket: "mine", Access: functionaccess.Write}, {Bucket: "some", Prefix: "open/", Access: functionaccess.Write},
			{Bucket: "code", Access: functionaccess.Write}, {Bucket: "r-*", Access: functionaccess.Read},
		},
	}}}
	r, ok := l.Rights("KEY")
	require.True(t, ok)
	return r
}

func everything(t testing.TB) functionaccess.Rights {
	t.Helper()
	r := rights(t)
	r.S3 = []functionaccess.Objects{{Bucket: "*", Access: functionaccess.Write}}
	return r
}

func TestDecide(t *testing.T) {
	const denied, uri, bucket, argument = "AccessDenied", "InvalidURI", "InvalidBucketName", "InvalidArgument"
	one := func(name, value string) http.Header { return http.Header{http.CanonicalHeaderKey(name): {value}} }
	from := func(source string) http.Header { return one(headerCopySource, source) }
	f, all := rights(t), everything(t)
	for _, c := range []struct {
		rights         functionaccess.Rights
		method, target string
		header         http.Header
		want           string // empty: allowed
	}{
		// Objects.
		{f, "GET", "/mine/k", nil, ""}, {f, "HEAD", "/mine/k", nil, ""}, {f, "PUT", "/mine/a/b%20c", nil, ""}, {f, "DELETE", "/mine/k", nil, ""},
		{f, "GET", "/mine/k?x-id=GetObject&versionId=null&partNumber=1&response-content-type=a", nil, ""},
		{f, "GET", "/other/k", nil, denied}, {f, "PUT", "/other/k", nil, denied}, {f, "DELETE", "/other/k", nil, denied}, {f, "HEAD", "/other/k", nil, denied},
		{f, "GET", "/some/open/k", nil, ""}, {f, "PUT", "/some/open/k", nil, ""}, {f, "GET", "/some/k", nil, denied}, {f, "PUT", "/some/open", nil, denied},
		{f, "GET", "/r-1/k", nil, ""}, {f, "PUT", "/r-1/k", nil, denied}, {f, "DELETE", "/r-1/k", nil, denied},
		{f, "GET", "/mine/k?tagging", nil, ""}, {f, "PUT", "/mine/k?tagging", nil, ""}, {f, "PUT", "/r-1/k?tagging", nil, denied}, {f, "DELETE", "/r-1/k?tagging", nil, denied},
		{f, "GET", "/r-1/k?attributes", nil, ""}, {f, "POST", "/r-1/k?select&select-type=2", nil, ""},
		{f, "PATCH", "/mine/k", nil, denied}, {f, "POST", "/mine/k", nil, denied}, {f, "OPTIONS", "/mine/k", nil, denied}, {f, "POST", "/mine/k?restore", nil, denied},
		// Multipart.
		{f, "POST", "/mine/k?uploads", nil, ""}, {f, "PUT", "/mine/k?partNumber=1&uploadId=abc", nil, ""}, {f, "POST", "/mine/k?uploadId=abc", nil, ""},
		{f, "DELETE", "/mine/k?uploadId=abc", nil, ""}, {f, "GET", "/mine/k?uploadId=abc", nil, ""}, {f, "POST", "/r-1/k?uploads", nil, denied},
		{f, "PUT", "/mine/k?uploadId=abc", nil, denied}, {f, "PUT", "/mine/k?partNumber=1", nil, denied},
		{f, "PUT", "/some/open/k?partNumber=1&uploadId=..%2F..%2Fother", nil, argument}, {f, "GET", "/mine/k?versionId=..", nil, argument},
		// Copies.
		{f, "PUT", "/mine/k", from("/r-1/x"), ""}, {f, "PUT", "/mine/k", from("r-1/x?versionId=1"), ""}, {f, "PUT", "/mine/k", from("r-1%2Fx"), ""},
		{f, "PUT", "/mine/k", from("/other/x"), denied}, {f, "PUT", "/mine/k", from("/some/k"), denied}, {f, "PUT", "/r-1/k", from("/mine/x"), denied},
		{f, "PUT", "/mine/k?partNumber=1&uploadId=a", from("/other/x"), denied}, {f, "PUT", "/mine/k?partNumber=1&uploadId=a", from("/r-1/x"), ""},
		{f, "PUT", "/mine/k", from("/mine/../other/x"), argument}, {f, "PUT", "/mine/k", from("other"), argument}, {f, "PUT", "/mine/k", from("/mine/%zz"), argument},
		{f, "PUT", "/mine/k", from("/mine/a+b"), argument}, {f, "PUT", "/mine/k", from("/mine/a?versionId=../x"), argument},
		{f, "PUT", "/mine/k", http.Header{headerCopySource: {"/mine/a", "/other/b"}}, denied}, {f, "PUT", "/mine/k?x-amz-copy-source=%2Fother%2Fx", nil, denied},
		{f, "PUT", "/mine/k?tagging", from("/other/x"), denied}, {f, "GET", "/mine/k", from("/other/x"), denied}, {f, "PUT", "/mine", from("/other/x"), denied},
		{f, "PUT", "/mine/k", http.Header{headerCopySource: {"/mine/x"}, "If-None-Match": {"*"}}, ""},
		{f, "PUT", "/mine/k", http.Header{headerCopySource: {"/mine/x"}, "If-Match": {"x"}}, ""},
		// Code.
		{f, "GET", "/code/app.zip", nil, ""}, {f, "PUT", "/code/app.zip", nil, denied}, {f, "DELETE", "/code/app.zip", nil, denied},
		{all, "PUT", "/code/app.zip", nil, denied}, {all, "PUT", "/code/app.zip", from("/mine/x"), denied}, {all, "POST", "/code/app.zip?uploads", nil, denied},
		{all, "PUT", "/code/app.zip?tagging", nil, denied},
		// Buckets.
		{f, "GET", "/", nil, denied}, {all, "GET", "/", nil, ""}, {all, "POST", "/", nil, denied}, {all, "PUT", "/", nil, denied},
		{f, "GET", "/mine", nil, ""}, {f, "GET", "/mine/?list-type=2&prefix=a", nil, ""}, {f, "GET", "/some", nil, denied}, {f, "GET", "/some?prefix=open", nil, denied},
		{f, "GET", "/some?list-type=2&prefix=open/", nil, ""}, {f, "GET", "/some?versions&prefix=open/x", nil, ""}, {f, "GET", "/some?uploads", nil, denied},
		{f, "GET", "/other", nil, denied}, {f, "HEAD", "/some", nil, ""}, {f, "HEAD", "/other", nil, denied}, {f, "GET", "/some?location", nil, ""},
		{f, "GET", "/mine?versioning", nil, ""},
		{f, "GET", "/some?prefix=open/../", nil, uri}, {f, "GET", "/some?prefix=open/&prefix=", nil, uri},
		{all, "PUT", "/new", nil, denied}, {all, "DELETE", "/mine", nil, denied}, {all, "PUT", "/mine?policy", nil, denied}, {all, "DELETE", "/mine?policy", nil, denied},
		{all, "GET", "/mine?policy", nil, denied}, {all, "PUT", "/mine?acl", nil, denied}, {all, "PUT", "/mine?versioning", nil, denied}, {all, "PUT", "/mine?lifecycle", nil, denied},
		{all, "PUT", "/mine?notification", nil, denied}, {all, "PUT", "/mine?website", nil, denied}, {all, "PUT", "/mine?cors", nil, denied}, {all, "PUT", "/mine?unknown", nil, denied},
		{all, "PATCH", "/list-buckets", nil, denied}, {all, "PATCH", "/mine/create", nil, denied}, {all, "TRACE", "/mine", nil, denied}, {all, "POST", "/mine", nil, denied},
		{f, "POST", "/mine?delete", nil, ""}, {f, "POST", "/other?delete", nil, denied},
		// Ways around.
		{all, "GET", "/mine/k?tagging&acl", nil, denied}, {all, "GET", "//mine/k", nil, bucket}, {f, "GET", "/mine/../other/k", nil, uri}, {f, "GET", "/mine/%2e%2e/other/k", nil, uri},
		{f, "GET", "/some/open/../k", nil, uri}, {f, "PUT", "/some/open/.", nil, uri}, {f, "GET", "/mine/a..b/.c", nil, ""}, {all, "GET", "/Mine/k", nil, bucket},
		{all, "GET", "/rustfs/admin/v3/info", nil, bucket}, {all, "GET", "/minio/admin/v3/info", nil, bucket}, {all, "GET", "/_health", nil, bucket}, {all, "GET", "/.rustfs.sys/config", nil, bucket},
		{all, "GET", "/mine/k?acl=%zz", nil, uri},
		// Headers.
		{f, "PUT", "/mine/k", one("X-Amz-Acl", "private"), ""}, {f, "PUT", "/mine/k", one("X-Amz-Acl", "public-read"), denied}, {f, "PUT", "/mine/k?x-amz-acl=public-read-write", nil, denied},
		{f, "PUT", "/mine/k", one("X-Amz-Grant-Read", `uri="http://acs.amazonaws.com/groups/global/AllUsers"`), denied},
		{f, "PUT", "/mine/k", one("X-Amz-Object-Lock-Mode", "COMPLIANCE"), denied}, {f, "DELETE", "/mine/k", one("X-Amz-Bypass-Governance-Retention", "true"), denied},
		{f, "PUT", "/mine/k", one("X-Amz-Meta-Snowball-Auto-Extract", "true"), denied}, {f, "PUT", "/mine/k", one("X-Minio-Source-Mtime", "1"), denied},
		{f, "PUT", "/mine/k", one("X-Amz-Meta-Name", "value"), ""}, {all, "PUT", "/mine/k?acl", nil, denied}, {all, "PUT", "/mine/k?retention", nil, denied},
	} {
		r := httptest.NewRequest(c.method, c.target, nil)
		for name, values := range c.header {
			r.Header[name] = values
		}
		op, err := parse(r)
		if err == nil {
			err = decide(op, c.rights)
		}
		what := c.method + " " + c.target
		if c.want == "" {
			require.NoError(t, err, what)
			continue
		}
		var answer *s3Error
		require.ErrorAs(t, err, &answer, what)
		assert.Equal(t, c.want, answer.code, what)
	}
}

func TestDecide_Denied_SaysWhatToSet(t *testing.T) {
	for target, want := range map[string]string{
		"/other/k":   "User: arn:aws:sts::123456789012:assumed-role/f/f is not authorized to perform: s3:PutObject on resource: arn:aws:s3:::other/k because functions.yml gives function f no such access (s3)",
		"/code/x":    "User: arn:aws:sts::123456789012:assumed-role/f/f is not authorized to perform: s3:PutObject on resource: arn:aws:s3:::code/x because the bucket holds code of functions, and no function may write there",
		"/new-one":   "User: arn:aws:sts::123456789012:assumed-role/f/f is not authorized to perform: s3:CreateBucket on resource: arn:aws:s3:::new-one because buckets are made by resources.yml, and their settings by the box's operator",
		"/mine?cors": "User: arn:aws:sts::123456789012:assumed-role/f/f is not authorized to perform: s3:PUT:cors on resource: arn:aws:s3:::mine because buckets are made by resources.yml, and their settings by the box's operator",
	} {
		op, err := parse(httptest.NewRequest(http.MethodPut, target, nil))
		require.NoError(t, err)
		var answer *s3Error
		require.ErrorAs(t, decide(op, rights(t)), &answer)
		assert.Equal(t, want, answer.message)
		assert.Equal(t, http.StatusForbidden, answer.status)
	}
}

func TestDeleted(t *testing.T) {
	for body, want := range map[string][]string{
		`<Delete><Object><Key>a</Key></Object></Delete>`: {"a"},
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\n <Object><Key>a &amp; &#98;</Key><VersionId>null</VersionId></Object><Object>\n<ETag>x</ETag><Key>c/d</Key></Object><Quiet>true</Quiet></Delete>": {"a & b", "c/d"},
		`<Delete><Object><Key>a</Key><Key>b</Key></Object></Delete>`: nil,
		`<Delete><Object></Object></Delete>`:                         nil,
		`<Delete><Object><Key/></Object></Delete>`:                   nil,
		`<Delete></Delete>`:                                          nil,
		`<Delete><Object><Key>a</Key></Object></Delete><Delete><Object><Key>b</Key></Object></Delete>`: nil,
		`<Delete><!-- c --><Object><Key>a</Key></Object></Delete>`:                                     nil,
		`<!DOCTYPE d [<!ENTITY e "x">]><Delete><Object><Key>&e;</Key></Object></Delete>`:               nil,
		`<Delete><Object><Key>a<b>c</b></Key></Object></Delete>`:                                       nil,
		`<x:Delete xmlns:x="y"><x:Object><x:Key>a</x:Key></x:Object></x:Delete>`:                       nil,
		`<Delete><object><key>a</key></object></Delete>`:                                               nil,
		`<Delete><Object><Key>a</Key>b</Object></Delete>`:                                              nil,
		`<Delete><Object><Key>../a</Key></Object></Delete>`:                                            nil,
		`<Delete><Object><Key>a</Key><VersionId>../x</VersionId></Object></Delete>`:                    nil,
		`<Delete><Object><Key>a</Key></Object>`:                                                        nil,
		"":                                                                                             nil,
		`<Delete>` + strings.Repeat(`<Object><Key>a</Key></Object>`, maxKeys+1) + `</Delete>`:          nil,
	} {
		got, err := deleted([]byte(body))
		if want == nil {
			require.Error(t, err, body)
			continue
		}
		require.NoError(t, err, body)
		var keys []string
		for _, o := range got.Objects {
			keys = append(keys, o.Key)
		}
		assert.Equal(t, want, keys)
	}
}

// FuzzParse: whatever a function sends, it gets no further than it was given: an operation that is allowed names only what
// is its own.
func FuzzParse(f *testing.F) {
	for _, seed := range [][3]string{{"GET", "/mine/k?versionId=1", ""}, {"PUT", "/mine/k", "/other/x"}, {"PUT", "/some/open/../k", ""}, {"GET", "//mine/k", ""}, {"POST", "/mine?delete", ""}} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, method, target, source string) {
		r, err := http.NewRequest(method, "http://box", nil)
		if err != nil || !strings.HasPrefix(target, "/") {
			return
		}
		if r.URL, err = r.URL.Parse("http://box" + target); err != nil {
			return
		}
		if source != "" {
			r.Header.Set(headerCopySource, source)
		}
		op, err := parse(r)
		if err != nil || decide(op, rights(t)) != nil {
			return
		}
		path := r.URL.Path
		own := strings.HasPrefix(path, "/mine/") || path == "/mine" || strings.HasPrefix(path, "/some/open/") || strings.HasPrefix(path, "/r-") ||
			strings.HasPrefix(path, "/code") || strings.HasPrefix(path, "/some") && (r.Method == http.MethodGet || r.Method == http.MethodHead)
		if !own || strings.Contains(path+"/", "/../") || r.Method == http.MethodPatch {
			t.Fatalf("%s %q from %q is allowed", method, target, source)
		}
	})
}

func FuzzDeleted(f *testing.F) {
	f.Add([]byte(`<Delete><Object><Key>a</Key></Object></Delete>`))
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := deleted(body)
		var answer *s3Error
		if err != nil && !errors.As(err, &answer) {
			t.Fatal(err)
		}
		if len(got.Objects) > bytes.Count(body, []byte("Object")) {
			t.Fatal("more objects than were named")
		}
	})
}

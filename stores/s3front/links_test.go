package s3front_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/sigv2"
)

// linkV2 is a link as boto3 makes it for us-east-1. headers are signed and in its query.
func linkV2(c sigv4.Credentials, method, endpoint, path, query, resource string, headers ...string) string {
	expires := strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)
	if c.SessionToken != "" {
		headers = append(headers, "x-amz-security-token:"+c.SessionToken)
	}
	text := method + "\n\n\n" + expires + "\n"
	for _, header := range headers {
		text += header + "\n"
		name, value, _ := strings.Cut(header, ":")
		query += "&" + name + "=" + url.QueryEscape(value)
	}
	signature := sigv2.Sign(c.SecretAccessKey, text+path+resource)
	return fmt.Sprintf("%s%s?%s&AWSAccessKeyId=%s&Signature=%s&Expires=%s", endpoint, path, query, c.AccessKeyID, url.QueryEscape(signature), expires)
}

func mustDo(t *testing.T, client *http.Client, method, link, body string, header ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, link, strings.NewReader(body))
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
		r.Header.Del("Host")
	}
	res, err := client.Do(r)
	require.NoError(t, err)
	text, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return res.StatusCode, string(text)
}

func TestS3_LinkOfVersion2_ReachesTheStoreSignedWithVersion4(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	link := linkV2(keys.Of("f"), http.MethodPut, endpoint, "/bkt/a%20b", "", "", "x-amz-meta-who:me")
	status, text := mustDo(t, http.DefaultClient, http.MethodPut, link, "hello")
	require.Equal(t, http.StatusOK, status, text)
	got := backend.last(t)
	require.NoError(t, got.refused)
	assert.Equal(t, "store", got.key)
	assert.Equal(t, "/bkt/a%20b", strings.TrimSuffix(got.uri, "?"))
	assert.Equal(t, "hello", got.body)
	assert.Equal(t, "me", got.header.Get("X-Amz-Meta-Who"), "a header that the link has as a parameter is one")
	assert.Empty(t, got.header.Get("X-Amz-Security-Token"))
	// The operator's, of a part of a list.
	link = linkV2(storeKey, http.MethodGet, endpoint, "/any/k", "versionId=1&prefix=x", "?versionId=1")
	status, text = mustDo(t, http.DefaultClient, http.MethodGet, link, "")
	require.Equal(t, http.StatusOK, status, text)
	require.NoError(t, backend.last(t).refused)
	assert.Equal(t, "/any/k?versionId=1&prefix=x", backend.last(t).uri)
}

func TestS3_LinkOfVersion2_OpensNoMoreThanItsSignerMayUse(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	f, g := keys.Of("f"), keys.Of("g")
	wrong := f
	wrong.SecretAccessKey += "x"
	good := linkV2(f, http.MethodGet, endpoint, "/bkt/k", "", "")
	for name, c := range map[string]struct {
		method, link, code string
		header             []string
	}{
		"another bucket":                 {http.MethodGet, linkV2(f, http.MethodGet, endpoint, "/other/k", "", ""), "AccessDenied", nil},
		"only to read":                   {http.MethodPut, linkV2(f, http.MethodPut, endpoint, "/src/open/k", "", ""), "AccessDenied", nil},
		"a function without rights":      {http.MethodGet, linkV2(g, http.MethodGet, endpoint, "/bkt/k", "", ""), "AccessDenied", nil},
		"a function that is not there":   {http.MethodGet, linkV2(keys.Of("gone"), http.MethodGet, endpoint, "/bkt/k", "", ""), "InvalidAccessKeyId", nil},
		"the settings of a bucket":       {http.MethodPut, linkV2(f, http.MethodPut, endpoint, "/bkt", "policy", "?policy"), "AccessDenied", nil},
		"a copy of what is not its own":  {http.MethodPut, linkV2(f, http.MethodPut, endpoint, "/bkt/k", "", "", "x-amz-copy-source:/other/k"), "AccessDenied", nil},
		"another secret":                 {http.MethodGet, linkV2(wrong, http.MethodGet, endpoint, "/bkt/k", "", ""), "SignatureDoesNotMatch", nil},
		"another object":                 {http.MethodGet, strings.Replace(good, "/bkt/k", "/bkt/x", 1), "SignatureDoesNotMatch", nil},
		"another method":                 {http.MethodPut, good, "SignatureDoesNotMatch", nil},
		"another operation":              {http.MethodGet, good + "&acl", "SignatureDoesNotMatch", nil},
		"an operation that is not in v2": {http.MethodGet, good + "&attributes", "AuthorizationHeaderMalformed", nil},
		"a header of AWS beside it":      {http.MethodGet, good, "SignatureDoesNotMatch", []string{"X-Amz-Copy-Source", "/bkt/y"}},
		"signed in two ways":             {http.MethodGet, good + "&X-Amz-Signature=1", "AuthorizationHeaderMalformed", nil},
		"with a header of version 4":     {http.MethodGet, good, "AuthorizationHeaderMalformed", []string{"Authorization", "AWS4-HMAC-SHA256 Credential=store/x"}},
		"expired":                        {http.MethodGet, strings.Replace(good, "Expires=", "Expires=1&x=", 1), "AuthorizationHeaderMalformed", nil},
	} {
		status, text := mustDo(t, http.DefaultClient, c.method, c.link, "", c.header...)
		assert.GreaterOrEqual(t, status, 400, name)
		assert.Contains(t, text, "<Code>"+c.code+"</Code>", name)
	}
	assert.Zero(t, backend.count(), "nothing of that reaches the store")
	// From the function network too, unless the key is known to everybody.
	status, text := mustDo(t, from("127.88.0.9"), http.MethodGet, good, "")
	assert.Equal(t, http.StatusOK, status, text)
	status, text = mustDo(t, from("127.88.0.9"), http.MethodGet, linkV2(sigv4.Credentials{AccessKeyID: "nobody", SecretAccessKey: "x"}, http.MethodGet, endpoint, "/bkt/k", "", ""), "")
	assert.Equal(t, http.StatusForbidden, status, text)
	status, text = mustDo(t, from("127.88.0.9"), http.MethodGet, endpoint+"/bkt/k", "", "Authorization", "AWS "+f.AccessKeyID+":x")
	assert.Equal(t, http.StatusBadRequest, status)
	assert.Contains(t, text, "<Code>InvalidRequest</Code>", "as AWS answers to version 2 in the header")
}

// formOf makes the fields of a form as boto3 does, of version 2 or 4.
func formOf(c sigv4.Credentials, four bool, key string, conditions ...any) [][2]string {
	now := time.Now().UTC()
	fields := [][2]string{{"key", key}}
	conditions = append(conditions, map[string]string{"bucket": "bkt"}, []string{"starts-with", "$key", strings.TrimSuffix(key, "${filename}")})
	scope := sigv4.Scope{Date: now.Format("20060102"), Region: "eu-west-1", Service: "s3"}
	if four {
		for _, own := range [][2]string{{"x-amz-algorithm", "AWS4-HMAC-SHA256"}, {"x-amz-credential", c.AccessKeyID + "/" + scope.String()}, {"x-amz-date", now.Format("20060102T150405Z")}} {
			fields, conditions = append(fields, own), append(conditions, map[string]string{own[0]: own[1]})
		}
	} else {
		fields = append(fields, [2]string{"AWSAccessKeyId", c.AccessKeyID})
	}
	if c.SessionToken != "" {
		fields, conditions = append(fields, [2]string{"x-amz-security-token", c.SessionToken}), append(conditions, map[string]string{"x-amz-security-token": c.SessionToken})
	}
	policy, _ := json.Marshal(map[string]any{"expiration": now.Add(time.Hour).Format("2006-01-02T15:04:05Z"), "conditions": conditions})
	encoded := base64.StdEncoding.EncodeToString(policy)
	if four {
		return append(fields, [2]string{"policy", encoded}, [2]string{"x-amz-signature", scope.Sign(c.SecretAccessKey, encoded)})
	}
	return append(fields, [2]string{"policy", encoded}, [2]string{"signature", sigv2.Sign(c.SecretAccessKey, encoded)})
}

func mustPost(t *testing.T, client *http.Client, link string, fields [][2]string, filename, data string, host ...string) (int, string) {
	t.Helper()
	var body bytes.Buffer
	w := multipart.NewWriter(&body)
	for _, f := range fields {
		require.NoError(t, w.WriteField(f[0], f[1]))
	}
	file, err := w.CreateFormFile("file", filename)
	require.NoError(t, err)
	_, err = io.WriteString(file, data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	header := []string{"Content-Type", w.FormDataContentType()}
	if len(host) > 0 {
		header = append(header, "Host", host[0])
	}
	return mustDo(t, client, http.MethodPost, link, body.String(), header...)
}

// mustRead reads a form that has reached the store, and checks that the store's key has signed it.
func mustRead(t *testing.T, got seen) (fields map[string]string, data string) {
	t.Helper()
	r := &http.Request{Method: http.MethodPost, Header: got.header, Body: io.NopCloser(strings.NewReader(got.body))}
	require.NoError(t, r.ParseMultipartForm(1<<20))
	fields = map[string]string{}
	for name, values := range r.MultipartForm.Value {
		require.Len(t, values, 1)
		fields[name] = values[0]
	}
	require.Len(t, r.MultipartForm.File["file"], 1)
	file, err := r.MultipartForm.File["file"][0].Open()
	require.NoError(t, err)
	text, err := io.ReadAll(file)
	require.NoError(t, err)
	parts := strings.Split(fields["x-amz-credential"], "/")
	require.Len(t, parts, 5)
	assert.Equal(t, storeKey.AccessKeyID, parts[0])
	scope := sigv4.Scope{Date: parts[1], Region: parts[2], Service: parts[3]}
	assert.True(t, scope.Verify(storeKey.SecretAccessKey, fields["policy"], fields["x-amz-signature"]))
	assert.Equal(t, int64(len(got.body)), got.length)
	return fields, string(text)
}

func TestS3_FormOfAFunction_ReachesTheStoreWithTheStoresSignature(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	for _, four := range []bool{false, true} {
		data := strings.Repeat("data\r\n--", 30_000)
		fields := formOf(keys.Of("f"), four, "up/${filename}", map[string]string{"Content-Type": "text/plain"}, []any{"content-length-range", 1, 1 << 20})
		status, text := mustPost(t, from("127.88.0.9"), endpoint+"/bkt", append([][2]string{{"Content-Type", "text/plain"}}, fields...), `C:\dir\a"b.txt`, data)
		require.Equal(t, http.StatusOK, status, text)
		got, file := mustRead(t, backend.last(t))
		assert.Equal(t, data, file)
		assert.Equal(t, "text/plain", got["Content-Type"])
		assert.NotContains(t, got, "AWSAccessKeyId")
		assert.NotContains(t, got, "x-amz-security-token")
		assert.True(t, strings.HasPrefix(got["key"], "up/"), got["key"])
		policy, err := base64.StdEncoding.DecodeString(got["policy"])
		require.NoError(t, err)
		assert.Contains(t, string(policy), `["content-length-range",1,1048576]`, "the store looks at the other conditions")
		assert.NotContains(t, string(policy), keys.ID("f"))
	}
}

func TestS3_FormThatIsNotRight_ReachesNobody(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	f := keys.Of("f")
	wrong := f
	wrong.SecretAccessKey += "x"
	with := func(fields [][2]string, name, value string) [][2]string {
		out := append([][2]string{}, fields...)
		for i := range out {
			if out[i][0] == name {
				out[i][1] = value
				return out
			}
		}
		return append(out, [2]string{name, value})
	}
	two, four := formOf(f, false, "k"), formOf(f, true, "k")
	for name, c := range map[string]struct {
		path   string
		fields [][2]string
		code   string
	}{
		"another bucket, v2":        {"/other", two, "AccessDenied"},
		"another bucket, v4":        {"/other", four, "AccessDenied"},
		"without rights":            {"/bkt", formOf(keys.Of("g"), false, "k"), "AccessDenied"},
		"gone":                      {"/bkt", formOf(keys.Of("gone"), true, "k"), "InvalidAccessKeyId"},
		"bucket with code":          {"/code", two, "AccessDenied"},
		"wrong secret, v2":          {"/bkt", formOf(wrong, false, "k"), "SignatureDoesNotMatch"},
		"wrong secret, v4":          {"/bkt", formOf(wrong, true, "k"), "SignatureDoesNotMatch"},
		"another policy, v2":        {"/bkt", with(two, "policy", "e30="), "SignatureDoesNotMatch"},
		"another policy, v4":        {"/bkt", with(four, "policy", "e30="), "SignatureDoesNotMatch"},
		"another date":              {"/bkt", with(four, "x-amz-date", "20200101T000000Z"), "AuthorizationQueryParametersError"},
		"two signatures":            {"/bkt", with(four, "AWSAccessKeyId", f.AccessKeyID), "MalformedPOSTRequest"},
		"a field twice":             {"/bkt", append(append([][2]string{}, two...), [2]string{"Key", "x"}), "MalformedPOSTRequest"},
		"another token":             {"/bkt", with(two, "x-amz-security-token", "x"), "AccessDenied"},
		"a key that climbs":         {"/bkt", formOf(f, false, "../k"), "InvalidURI"},
		"opened to all":             {"/bkt", with(two, "acl", "public-read"), "AccessDenied"},
		"locked":                    {"/bkt", with(two, "x-amz-object-lock-mode", "GOVERNANCE"), "AccessDenied"},
		"a name that is no name":    {"/bkt", with(two, `a"b`, "x"), "MalformedPOSTRequest"},
		"more than a form may have": {"/bkt", append([][2]string{{"x-ignore-a", strings.Repeat("x", 70<<10)}}, two...), "MaxPostPreDataLengthExceeded"},
	} {
		status, text := mustPost(t, http.DefaultClient, endpoint+c.path, c.fields, "a.txt", "data")
		assert.GreaterOrEqual(t, status, 400, name)
		assert.Contains(t, text, "<Code>"+c.code+"</Code>", name)
	}
	assert.Zero(t, backend.count())
}

func TestS3_HostOfABucket_IsItsPath(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	_, port, _ := strings.Cut(strings.TrimPrefix(endpoint, "http://"), ":")
	host := "bkt.localhost:" + port
	signed := func(path string) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, endpoint+path, nil)
		require.NoError(t, err)
		r.Host = host
		sigv4.Sign(r, keys.Of("f"), "eu-west-1", "s3", sigv4.HashPayload(nil), time.Now())
		return r
	}
	res, err := http.DefaultClient.Do(signed("/a%20b/c"))
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusOK, res.StatusCode)
	got := backend.last(t)
	require.NoError(t, got.refused)
	assert.Equal(t, "/bkt/a%20b/c", got.uri)
	assert.Equal(t, "localhost:"+port, got.host)
	// Signed for the bucket's host, of version 2.
	link := linkV2(keys.Of("f"), http.MethodGet, endpoint, "/bkt/k", "", "")
	status, text := mustDo(t, http.DefaultClient, http.MethodGet, strings.Replace(link, "/bkt/k", "/k", 1), "", "Host", host)
	require.Equal(t, http.StatusOK, status, text)
	assert.Equal(t, "/bkt/k", strings.TrimSuffix(backend.last(t).uri, "?"))
	status, text = mustPost(t, http.DefaultClient, endpoint+"/", formOf(keys.Of("f"), false, "k"), "f", "data", host)
	require.Equal(t, http.StatusOK, status, text)
	assert.Equal(t, "/bkt/", backend.last(t).uri)
	before := backend.count()
	r := signed("/k")
	r.Host = "other.localhost:" + port
	res, err = http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	assert.Equal(t, http.StatusForbidden, res.StatusCode)
	assert.Equal(t, before, backend.count())
}

func TestS3_DeleteObjects_LeavesOutWhatIsNotTheFunctions(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	backend.answer = `<?xml version="1.0"?><DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Deleted><Key>own/a&amp;b</Key></Deleted></DeleteResult>`
	for _, quiet := range []bool{false, true} {
		if quiet {
			backend.answer = `<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"/>`
		}
		out, err := client(endpoint, keys.Of("f")).DeleteObjects(t.Context(), &s3.DeleteObjectsInput{Bucket: aws.String("part"), Delete: &types.Delete{
			Quiet: &quiet, Objects: []types.ObjectIdentifier{{Key: aws.String("own/a&b")}, {Key: aws.String("others/c"), VersionId: aws.String("v1")}},
		}})
		require.NoError(t, err)
		got := backend.last(t)
		require.NoError(t, got.refused)
		require.NoError(t, got.bodyErr)
		assert.Contains(t, got.body, "<Key>own/a&amp;b</Key>")
		assert.NotContains(t, got.body, "others")
		assert.Equal(t, sigv4.HashPayload([]byte(got.body)), got.payload)
		require.Len(t, out.Errors, 1)
		assert.Equal(t, "others/c", aws.ToString(out.Errors[0].Key))
		assert.Equal(t, "v1", aws.ToString(out.Errors[0].VersionId))
		assert.Equal(t, "AccessDenied", aws.ToString(out.Errors[0].Code))
		if !quiet {
			require.Len(t, out.Deleted, 1)
		}
	}
}

func TestS3_SystemTags_AreRefusedFromEverybody(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	for _, c := range []sigv4.Credentials{keys.Of("f"), storeKey} {
		s := client(endpoint, c)
		tags := func(key string) *types.Tagging {
			return &types.Tagging{TagSet: []types.Tag{{Key: aws.String(key), Value: aws.String("v")}}}
		}
		_, err := s.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{Bucket: aws.String("bkt"), Key: aws.String("k"), Tagging: tags("aws:x")})
		require.ErrorContains(t, err, "InvalidTag")
		_, err = s.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("bkt"), Key: aws.String("k"), Tagging: aws.String("a=b&AWS%3Ax=1")})
		require.ErrorContains(t, err, "InvalidTag")
		before := backend.count()
		_, err = s.PutObjectTagging(t.Context(), &s3.PutObjectTaggingInput{Bucket: aws.String("bkt"), Key: aws.String("k"), Tagging: tags("ours:x")})
		require.NoError(t, err)
		require.Equal(t, before+1, backend.count())
		require.NoError(t, backend.last(t).refused)
		assert.Contains(t, backend.last(t).body, "ours:x", "what was looked at is still sent")
	}
	assert.Equal(t, 2, backend.count())
}

func TestS3_SpacesInTheListOfAttributes(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	for _, c := range []sigv4.Credentials{keys.Of("f"), storeKey} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, endpoint+"/bkt/k?attributes", nil)
		require.NoError(t, err)
		r.Header.Set("X-Amz-Object-Attributes", "ETag, ObjectSize") // as the SDK for JavaScript writes it
		sigv4.Sign(r, c, "eu-west-1", "s3", sigv4.HashPayload(nil), time.Now())
		res, err := http.DefaultClient.Do(r)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, http.StatusOK, res.StatusCode)
		require.NoError(t, backend.last(t).refused)
		assert.Equal(t, "ETag,ObjectSize", backend.last(t).header.Get("X-Amz-Object-Attributes"))
	}
}

func TestS3_MetadataIsInLowerCase(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	backend.header = http.Header{"X-Amz-Meta-Who": {"me"}}
	link, err := s3.NewPresignClient(client(endpoint, keys.Of("f"))).PresignGetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("bkt"), Key: aws.String("k")})
	require.NoError(t, err)
	u, err := url.Parse(link.URL)
	require.NoError(t, err)
	raw := mustRaw(t, u.Host, "GET "+u.RequestURI()+" HTTP/1.1\r\nHost: "+u.Host+"\r\nConnection: close\r\n\r\n")
	assert.Contains(t, raw, "\r\nx-amz-meta-who: me\r\n", "boto3 tells its caller what it reads")
}

package sigv4

import (
	"bytes"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	access = "AKIDEXAMPLE"
	secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	body   = `{"TableName":"items"}`
	// signedBy is the signature of request, made by another implementation than the one that is tested (Python's hmac, after
	// the steps in AWS's documentation). It signs what botocore signs, which is less than what Go's SDK does.
	signedBy = "278c260aeee10ef61b3689b8e66a763d84df1c6c928b551bdb0e150a2041cf52"
)

var signedAt = time.Date(2026, 11, 22, 8, 30, 0, 0, time.UTC)

func request(t *testing.T) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", bytes.NewReader([]byte(body)))
	require.NoError(t, err)
	r.Host = "10.88.0.1:8001"
	r.Header.Set("Content-Type", "application/x-amz-json-1.0")
	r.Header.Set("User-Agent", "Boto3/1.40")
	r.Header.Set("X-Amz-Date", "20261122T083000Z")
	r.Header.Set("X-Amz-Security-Token", "session")
	r.Header.Set("X-Amz-Target", "DynamoDB_20120810.DescribeTable")
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+access+"/20261122/eu-central-1/dynamodb/aws4_request, "+
		"SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature="+signedBy)
	return r
}

func verifierAt(now time.Time) *Verifier {
	v := NewVerifier("dynamodb", OneKey(access, secret))
	v.now = func() time.Time { return now }
	return v
}

func TestVerify_SignedByAnotherImplementation_IsAccepted(t *testing.T) {
	got, err := verifierAt(signedAt).Verify(request(t), []byte(body))
	require.NoError(t, err)
	assert.Equal(t, Signature{
		AccessKeyID: access, SessionToken: "session", Date: signedAt, Payload: HashPayload([]byte(body)), Hex: signedBy,
		Scope:   Scope{Date: "20261122", Region: "eu-central-1", Service: "dynamodb"},
		Headers: []string{"content-type", "host", "x-amz-date", "x-amz-security-token", "x-amz-target"},
	}, got)
}

func TestVerify_ClockDiffers_FiveMinutesAreAllowed(t *testing.T) {
	for skew, want := range map[time.Duration]string{
		0: "", 4 * time.Minute: "", -4 * time.Minute: "",
		6 * time.Minute: "Signature expired: 20261122T083000Z", -6 * time.Minute: "Signature not yet current: 20261122T083000Z",
	} {
		_, err := verifierAt(signedAt.Add(skew)).Verify(request(t), []byte(body))
		if want == "" {
			assert.NoError(t, err, skew)
			continue
		}
		assert.ErrorContains(t, err, "InvalidSignatureException", skew)
		assert.ErrorContains(t, err, want, skew)
	}
}

func TestVerify_RequestIsNotWhatWasSigned_IsRefusedAsByAWS(t *testing.T) {
	authorization := func(old, replacement string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, replacement, 1))
		}
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		body   string
		want   string
	}{
		"not signed":             {func(r *http.Request) { r.Header.Del("Authorization") }, body, "MissingAuthenticationTokenException"},
		"another scheme":         {func(r *http.Request) { r.SetBasicAuth("a", "b") }, body, "IncompleteSignatureException"},
		"no signature":           {authorization("Signature=", "Sig="), body, "IncompleteSignatureException"},
		"short scope":            {authorization("/aws4_request", ""), body, "IncompleteSignatureException"},
		"another service":        {authorization("/dynamodb/", "/s3/"), body, "InvalidSignatureException"},
		"target is not signed":   {authorization(";x-amz-target", ""), body, "IncompleteSignatureException"},
		"host is not signed":     {authorization("host;", ""), body, "IncompleteSignatureException"},
		"date is not signed":     {authorization("x-amz-date;", ""), body, "IncompleteSignatureException"},
		"an unsigned header":     {func(r *http.Request) { r.Header.Set("X-Amz-Invocation-Type", "Event") }, body, "IncompleteSignatureException"},
		"header was removed":     {func(r *http.Request) { r.Header.Del("Content-Type") }, body, "InvalidSignatureException"},
		"two authorizations":     {func(r *http.Request) { r.Header.Add("Authorization", "AWS4-HMAC-SHA256 x") }, body, "IncompleteSignatureException"},
		"upper-case header":      {authorization("host;", "Host;"), body, "IncompleteSignatureException"},
		"broken query":           {func(r *http.Request) { r.URL.RawQuery = "a=%zz" }, body, "IncompleteSignatureException"},
		"two dates":              {func(r *http.Request) { r.Header.Add("X-Amz-Date", "20261122T083000Z") }, body, "IncompleteSignatureException"},
		"no date":                {func(r *http.Request) { r.Header.Del("X-Amz-Date") }, body, "IncompleteSignatureException"},
		"unknown key":            {authorization(access, "AKIDOTHER"), body, "UnrecognizedClientException"},
		"date of another day":    {authorization("20261122", "20261121"), body, "InvalidSignatureException"},
		"another region":         {authorization("eu-central-1", "us-east-1"), body, "InvalidSignatureException"},
		"another signature":      {authorization(signedBy, strings.Repeat("0", 64)), body, "InvalidSignatureException"},
		"another body":           {func(*http.Request) {}, `{"TableName":"other"}`, "InvalidSignatureException"},
		"another target":         {func(r *http.Request) { r.Header.Set("X-Amz-Target", "DynamoDB_20120810.DeleteTable") }, body, "InvalidSignatureException"},
		"two targets":            {func(r *http.Request) { r.Header.Add("X-Amz-Target", "DynamoDB_20120810.DeleteTable") }, body, "InvalidSignatureException"},
		"another host":           {func(r *http.Request) { r.Host = "10.88.0.1:9000" }, body, "InvalidSignatureException"},
		"another query":          {func(r *http.Request) { r.URL.RawQuery = "a=b" }, body, "InvalidSignatureException"},
		"another method":         {func(r *http.Request) { r.Method = http.MethodPut }, body, "InvalidSignatureException"},
		"later date, not signed": {func(r *http.Request) { r.Header.Set("X-Amz-Date", "20261122T083500Z") }, body, "InvalidSignatureException"},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t)
			c.change(r)
			_, err := verifierAt(signedAt).Verify(r, []byte(c.body))
			var refused *Error
			require.ErrorAs(t, err, &refused)
			assert.Equal(t, c.want, refused.Code, refused.Message)
		})
	}
}

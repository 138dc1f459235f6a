package sigv4

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestSignedFor(t *testing.T) {
	signed, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://box/", nil)
	require.NoError(t, err)
	Sign(signed, Credentials{AccessKeyID: access, SecretAccessKey: secret}, "eu-central-1", "sts", HashPayload(nil), time.Now())
	service, ok := SignedFor(signed)
	assert.True(t, ok)
	assert.Equal(t, "sts", service)

	for name, c := range map[string]struct {
		authorization, query, want string
	}{
		"version 4A":        {authorization: "AWS4-ECDSA-P256-SHA256 Credential=AKID/20261122/s3/aws4_request, SignedHeaders=host, Signature=00", want: "s3"},
		"without spaces":    {authorization: "AWS4-HMAC-SHA256 Credential=AKID/20261122/us-east-1/sqs/aws4_request,SignedHeaders=host,Signature=00", want: "sqs"},
		"presigned":         {query: "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + url.QueryEscape("AKID/20261122/us-east-1/s3/aws4_request"), want: "s3"},
		"bearer":            {authorization: "Bearer AWS4-HMAC-SHA256 Credential=AKID/20261122/us-east-1/sqs/aws4_request"},
		"no credential":     {authorization: "AWS4-HMAC-SHA256 SignedHeaders=host"},
		"another end":       {authorization: "AWS4-HMAC-SHA256 Credential=AKID/20261122/us-east-1/sqs/other"},
		"no service":        {authorization: "AWS4-HMAC-SHA256 Credential=AKID/20261122/us-east-1//aws4_request"},
		"too many parts":    {authorization: "AWS4-HMAC-SHA256 Credential=a/b/c/d/sqs/aws4_request"},
		"header counts":     {authorization: "Bearer x", query: "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a%2Fb%2Fc%2Fs3%2Faws4_request"},
		"query of no kind":  {query: "X-Amz-Credential=AKID%2F20261122%2Fus-east-1%2Fs3%2Faws4_request"},
		"query is not one":  {query: "%zz&X-Amz-Credential=a%2Fb%2Fc%2Fs3%2Faws4_request"},
		"nothing of a kind": {},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://box/", nil)
		require.NoError(t, err)
		r.URL.RawQuery = c.query
		if c.authorization != "" {
			r.Header.Set("Authorization", c.authorization)
		}
		service, ok := SignedFor(r)
		assert.Equal(t, c.want, service, name)
		assert.Equal(t, c.want != "", ok, name)
	}
}

func FuzzSignedFor(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=AKID/20261122/us-east-1/sqs/aws4_request, SignedHeaders=host", "")
	f.Add("", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a%2Fb%2Fc%2Fs3%2Faws4_request")
	f.Fuzz(func(t *testing.T, authorization, query string) {
		r := &http.Request{Header: http.Header{}, URL: &url.URL{RawQuery: query}}
		if authorization != "" {
			r.Header["Authorization"] = []string{authorization}
		}
		if service, ok := SignedFor(r); ok == (service == "") {
			t.Fatalf("%q %v", service, ok)
		}
	})
}

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

func TestHead_WithoutTheBody_RefusesWhatNoBodyCanMakeRight(t *testing.T) {
	authorization := func(old, replacement string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), old, replacement, 1))
		}
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		skew   time.Duration
		want   Reason
	}{
		"not signed":           {change: func(r *http.Request) { r.Header.Del("Authorization") }, want: Missing},
		"another scheme":       {change: func(r *http.Request) { r.SetBasicAuth("a", "b") }, want: Incomplete},
		"another service":      {change: authorization("/dynamodb/", "/s3/"), want: Incomplete},
		"target is not signed": {change: authorization(";x-amz-target", ""), want: Incomplete},
		"unknown key":          {change: authorization(access, "AKIDOTHER"), want: UnknownKey},
		"date of another day":  {change: authorization("20261122", "20261121"), want: Mismatch},
		"too old":              {change: func(*http.Request) {}, skew: 6 * time.Minute, want: Skewed},
		"too new":              {change: func(*http.Request) {}, skew: -6 * time.Minute, want: Skewed},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t)
			c.change(r)
			_, err := verifierAt(signedAt.Add(c.skew)).Head(r)
			var refused *Error
			require.ErrorAs(t, err, &refused)
			assert.Equal(t, c.want, refused.Reason, refused.Message)
		})
	}
}

func TestComplete_AfterHead_FindsWhatVerifyFinds(t *testing.T) {
	v := verifierAt(signedAt)
	want, err := v.Verify(request(t), []byte(body))
	require.NoError(t, err)
	given, err := v.Head(request(t))
	require.NoError(t, err)
	got, err := v.Complete(request(t), given, []byte(body))
	require.NoError(t, err)
	assert.Equal(t, want, got)

	_, err = v.Complete(request(t), given, []byte(`{"TableName":"other"}`))
	assertReason(t, Mismatch, err)
	other := request(t)
	other.Header.Set("X-Amz-Target", "DynamoDB_20120810.DeleteTable")
	given, err = v.Head(other)
	require.NoError(t, err, "only the body tells")
	_, err = v.Complete(other, given, []byte(body))
	assertReason(t, Mismatch, err)
}

func TestHead_RequestSaysWhichBodyIsSigned_ChecksTheSignature(t *testing.T) {
	signed := func(claimed string) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://box/", bytes.NewReader([]byte(body)))
		require.NoError(t, err)
		r.Header.Set(HeaderContentSHA256, claimed)
		Sign(r, Credentials{AccessKeyID: access, SecretAccessKey: secret}, "us-east-1", "dynamodb", claimed, signedAt)
		return r
	}
	v := verifierAt(signedAt)
	hash := HashPayload([]byte(body))
	given, err := v.Head(signed(hash))
	require.NoError(t, err)
	assert.Equal(t, hash, given.Payload)
	_, err = v.Complete(signed(hash), given, []byte(body))
	require.NoError(t, err)
	_, err = v.Complete(signed(hash), given, []byte("another"))
	assertReason(t, Mismatch, err)

	forged := signed(hash)
	forged.Header.Set("X-Amz-Target", "DynamoDB_20120810.DeleteTable")
	_, err = v.Head(forged)
	assertReason(t, Incomplete, err)
	forged = signed(hash)
	forged.URL.Path = "/other"
	_, err = v.Head(forged)
	assertReason(t, Mismatch, err)
}

func assertReason(t *testing.T, want Reason, err error) {
	t.Helper()
	var refused *Error
	require.ErrorAs(t, err, &refused)
	assert.Equal(t, want, refused.Reason, refused.Message)
}

// TestHead_SignedTransferEncoding: curl signs all headers that it sends itself, and Go's server takes this one out of the header.
func TestHead_SignedTransferEncoding(t *testing.T) {
	signed := request(t)
	signed.Header.Del(HeaderSecurityToken)
	signed.TransferEncoding = []string{"chunked"}
	scope := Scope{Date: signedAt.Format(dateFormat), Region: "us-east-1", Service: "dynamodb"}
	headers := []string{"host", "transfer-encoding", "x-amz-date", "x-amz-target"}
	text := strings.Join([]string{"POST", "/", "", "host:" + signed.Host, "transfer-encoding:chunked",
		"x-amz-date:" + signed.Header.Get(HeaderDate), "x-amz-target:" + signed.Header.Get("X-Amz-Target"), "", strings.Join(headers, ";"), HashPayload([]byte(body))}, "\n")
	signed.Header.Set("Authorization", algorithm+" Credential="+access+"/"+scope.String()+", SignedHeaders="+strings.Join(headers, ";")+
		", Signature="+sign(scope.Key(secret), scope, signed.Header.Get(HeaderDate), text))
	given, err := verifierAt(signedAt).Head(signed)
	require.NoError(t, err)
	_, err = verifierAt(signedAt).Complete(signed, given, []byte(body))
	require.NoError(t, err)

	signed.TransferEncoding = nil
	_, err = verifierAt(signedAt).Head(signed)
	assertReason(t, Mismatch, err)
}

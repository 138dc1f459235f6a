package sigv2_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/sigv2"
)

const (
	id     = "AKIAIOSFODNN7EXAMPLE"
	secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

var keys = sigv4.OneKey(id, secret)

// S3 user guide, "Signing and authenticating REST requests", query string request authentication: the example of the page.
func TestVerify_TheExampleOfAWS(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "/photos/puppy.jpg?AWSAccessKeyId="+id+"&Signature=NpgCjnDzrM%2BWFzoENXmpNDUsSn8%3D&Expires=1175139620", nil)
	r.Host = "johnsmith.us-west-1.s3.amazonaws.com"
	got, err := sigv2.Verify(r, "/johnsmith/photos/puppy.jpg", keys, time.Unix(1175139000, 0))
	require.NoError(t, err)
	assert.Equal(t, id, got.AccessKeyID)
	assert.Empty(t, got.Query)
	_, err = sigv2.Verify(r, "/johnsmith/photos/puppy.jpg", keys, time.Unix(1175139621, 0))
	requireReason(t, err, sigv4.Expired)
}

// What boto3 1.43 makes of get_object with a response header, by its HmacV1QueryAuth.
func link(method, path, resource, query string, expires time.Time, headers ...string) *http.Request {
	when := strconv.FormatInt(expires.Unix(), 10)
	text := method + "\n\n\n" + when + "\n" + strings.Join(headers, "")
	signature := sigv2.Sign(secret, text+path+resource)
	r := httptest.NewRequest(method, path+"?"+query+"&AWSAccessKeyId="+id+"&Signature="+url.QueryEscape(signature)+"&Expires="+when, nil)
	return r
}

var now = time.Unix(1_800_000_000, 0)

func TestVerify_ParametersAndHoistedHeadersAreSigned(t *testing.T) {
	r := link(http.MethodGet, "/b/k%20x", "?response-content-type=text/a b&versionId=1", "versionId=1&response-content-type=text%2Fa%20b&x-amz-security-token=tok%2Fen", now.Add(time.Hour), "x-amz-security-token:tok/en\n")
	got, err := sigv2.Verify(r, "/b/k%20x", keys, now)
	require.NoError(t, err)
	assert.Equal(t, "versionId=1&response-content-type=text%2Fa%20b", got.Query)
	assert.Equal(t, http.Header{"X-Amz-Security-Token": {"tok/en"}}, got.Header)
	// Of the same link with another method, path, value or token, none is signed.
	for _, change := range []func(*http.Request){
		func(r *http.Request) { r.Method = http.MethodPut },
		func(r *http.Request) {
			r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "versionId=1", "versionId=2", 1)
		},
		func(r *http.Request) { r.URL.RawQuery = strings.Replace(r.URL.RawQuery, "tok", "kot", 1) },
		func(r *http.Request) { r.URL.RawQuery += "&acl" },
		func(r *http.Request) { r.Header.Set("X-Amz-Copy-Source", "/b/other") },
		func(r *http.Request) { r.Header.Set("Content-Type", "text/html") },
		func(r *http.Request) { r.URL.RawQuery += "&x-amz-acl=public-read" },
	} {
		changed := r.Clone(t.Context())
		change(changed)
		_, err := sigv2.Verify(changed, "/b/k%20x", keys, now)
		requireReason(t, err, sigv4.Mismatch)
	}
	_, err = sigv2.Verify(r, "/b/other", keys, now)
	requireReason(t, err, sigv4.Mismatch)
}

func TestVerify_WhatItCannotSign_IsRefused(t *testing.T) {
	for query, want := range map[string]sigv4.Reason{
		// They would make another operation of the request, and version 2 does not sign them.
		"attributes": sigv4.Incomplete, "legal-hold": sigv4.Incomplete, "retention": sigv4.Incomplete, "encryption": sigv4.Incomplete,
		"ownershipControls": sigv4.Incomplete, "publicAccessBlock": sigv4.Incomplete, "session": sigv4.Incomplete, "x-id=GetObject": sigv4.Incomplete,
		"anything=1": sigv4.Incomplete, "Prefix=a": sigv4.Incomplete, "%61cl": sigv4.Incomplete,
		"X-Amz-Algorithm=AWS4-HMAC-SHA256": sigv4.Incomplete, "X-Amz-Signature=1": sigv4.Incomplete,
		"prefix=a&prefix=b": sigv4.Incomplete, "Signature=x": sigv4.Incomplete, "prefix=%zz": sigv4.Incomplete,
		"x-amz-meta-a=%0d%0ab": sigv4.Incomplete, "x-amz-a%20b=1": sigv4.Incomplete,
	} {
		r := link(http.MethodGet, "/b/k", "", query, now.Add(time.Hour))
		_, err := sigv2.Verify(r, "/b/k", keys, now)
		requireReason(t, err, want, query)
	}
	r := link(http.MethodGet, "/b", "", "prefix=a%2Fb&max-keys=1", now.Add(time.Hour))
	got, err := sigv2.Verify(r, "/b", keys, now)
	require.NoError(t, err)
	assert.Equal(t, "prefix=a%2Fb&max-keys=1", got.Query)
	r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=x")
	_, err = sigv2.Verify(r, "/b", keys, now)
	requireReason(t, err, sigv4.Incomplete)
	r = link(http.MethodGet, "/b", "", "", now.Add(8*24*time.Hour))
	_, err = sigv2.Verify(r, "/b", keys, now)
	requireReason(t, err, sigv4.Missing, "a link is valid for seven days at most")
	r = link(http.MethodGet, "/b", "", "", now.Add(time.Hour))
	_, err = sigv2.Verify(r, "/b", sigv4.OneKey("other", secret), now)
	requireReason(t, err, sigv4.UnknownKey)
}

// boto3 1.43, list_objects_v2.
func TestVerify_BucketIsSignedWithASlash(t *testing.T) {
	r := link(http.MethodGet, "/b", "/", "list-type=2", now.Add(time.Hour))
	_, err := sigv2.Verify(r, "/b", keys, now)
	require.NoError(t, err)
	r = link(http.MethodGet, "/b/k", "/", "list-type=2", now.Add(time.Hour))
	_, err = sigv2.Verify(r, "/b/k", keys, now)
	requireReason(t, err, sigv4.Mismatch)
}

func TestVerifyPolicy(t *testing.T) {
	assert.True(t, sigv2.VerifyPolicy(secret, "cG9saWN5", sigv2.Sign(secret, "cG9saWN5")))
	assert.False(t, sigv2.VerifyPolicy(secret, "cG9saWN6", sigv2.Sign(secret, "cG9saWN5")))
	assert.False(t, sigv2.VerifyPolicy(secret, "cG9saWN5", ""))
}

func requireReason(t *testing.T, err error, want sigv4.Reason, about ...any) {
	t.Helper()
	var refused *sigv4.Error
	require.ErrorAs(t, err, &refused, about...)
	assert.Equal(t, want, refused.Reason, append([]any{refused.Message}, about...)...)
}

// What is taken has the right signature, whatever the query looks like, and what is left of it has one meaning.
func FuzzVerify(f *testing.F) {
	for _, query := range []string{"", "acl", "versionId=1&prefix=a", "response-content-type=a+b%20c", "x-amz-acl=private", "a=b;c=d", "%41WSAccessKeyId=x", "Expires=1&Expires=2", "=&==&&"} {
		f.Add(query, "GET", "/b/k")
	}
	f.Fuzz(func(t *testing.T, query, method, path string) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}, Header: http.Header{}}
		_ = sigv2.Presigned(r)
		_, err := sigv2.Verify(r, path, keys, now)
		require.Error(t, err, "nobody has signed %q", query)
		r.URL.RawQuery += "&AWSAccessKeyId=" + id + "&Signature=AAAAAAAAAAAAAAAAAAAAAAAAAAA%3D&Expires=1800000001"
		require.True(t, sigv2.Presigned(r))
		_, err = sigv2.Verify(r, path, keys, now)
		require.Error(t, err, "nobody has signed %q", query)
	})
}

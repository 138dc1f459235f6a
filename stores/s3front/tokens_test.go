package s3front_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/stores/s3front"
)

// list is an answer of versitygw, whose token is a key.
func list(tokens string) string {
	return `<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bkt</Name>` + tokens + `<KeyCount>1</KeyCount><MaxKeys>1</MaxKeys><IsTruncated>true</IsTruncated>` +
		`<Contents><Key>k</Key><Size>` + strings.Repeat("0", 100<<10) + `7</Size></Contents></ListBucketResult>`
}

func TestS3_ContinuationToken_StandsForAKeyOfTheStore(t *testing.T) {
	endpoint, backend, keys := mustOpenWith(t, s3front.Options{Logger: log, Ignorant: true})
	const key = "a b+c&d/é"
	for _, who := range []sigv4.Credentials{keys.Of("f"), storeKey} {
		c := client(endpoint, who)
		backend.answer = list("<NextContinuationToken>a b+c&amp;d/é</NextContinuationToken>")
		page, err := c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bkt"), MaxKeys: aws.Int32(1)})
		require.NoError(t, err)
		require.NoError(t, backend.last(t).refused)
		token := aws.ToString(page.NextContinuationToken)
		require.NotEmpty(t, token)
		assert.NotContains(t, token, "a b", "it is no key that somebody might use as one")
		assert.Nil(t, page.ContinuationToken)
		assert.EqualValues(t, 7, aws.ToInt64(page.Contents[0].Size), "what follows is there to its end")

		backend.answer = list("<StartAfter>s</StartAfter><ContinuationToken>a b+c&amp;d/é</ContinuationToken>")
		page, err = c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bkt"), ContinuationToken: &token})
		require.NoError(t, err)
		require.NoError(t, backend.last(t).refused, "the changed request is signed anew")
		u, err := url.Parse(backend.last(t).uri)
		require.NoError(t, err)
		assert.Equal(t, key, u.Query().Get("continuation-token"))
		assert.Equal(t, token, aws.ToString(page.ContinuationToken))
		assert.Nil(t, page.NextContinuationToken)

		// A link too.
		status, text := mustDo(t, http.DefaultClient, http.MethodGet, linkV2(who, http.MethodGet, endpoint, "/bkt", "list-type=2&continuation-token="+token, ""), "")
		require.Equal(t, http.StatusOK, status, text)
		require.NoError(t, backend.last(t).refused)
		assert.Contains(t, backend.last(t).uri, "continuation-token=a%20b%2Bc%26d%2F%C3%A9")

		// Without a token, versitygw tells start-after as one.
		backend.answer = list("<StartAfter>s</StartAfter><ContinuationToken>s</ContinuationToken>")
		page, err = c.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bkt"), StartAfter: aws.String("s")})
		require.NoError(t, err)
		assert.Nil(t, page.ContinuationToken)
		assert.Equal(t, "s", aws.ToString(page.StartAfter))
	}
}

// What reads an object may have any query: the object comes as it is, whatever is written in it.
func TestS3_ContinuationToken_OfAnObject_IsItsText(t *testing.T) {
	endpoint, backend, keys := mustOpenWith(t, s3front.Options{Logger: log, Ignorant: true})
	backend.answer = list("<NextContinuationToken>key</NextContinuationToken>")
	for _, who := range []sigv4.Credentials{keys.Of("f"), storeKey} {
		status, text := mustDo(t, http.DefaultClient, http.MethodGet, linkV2(who, http.MethodGet, endpoint, "/bkt/key", "list-type=2&continuation-token=x", ""), "")
		require.Equal(t, http.StatusOK, status, text)
		assert.Equal(t, backend.answer, text)
		assert.Contains(t, backend.last(t).uri, "continuation-token=x")
	}
}

func TestS3_ContinuationToken_MadeUp_IsRefused(t *testing.T) {
	endpoint, backend, keys := mustOpenWith(t, s3front.Options{Logger: log, Ignorant: true})
	backend.answer = list("<NextContinuationToken>key</NextContinuationToken>")
	page, err := client(endpoint, storeKey).ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bkt")})
	require.NoError(t, err)
	right := aws.ToString(page.NextContinuationToken)
	before := backend.count()
	for _, who := range []sigv4.Credentials{keys.Of("f"), storeKey} {
		for _, token := range []string{
			"", "key", "aWrongToken2", right + "A", right[:len(right)-1], right[1:], right + "=", right + "\n", strings.ToLower(right),
			base64.RawURLEncoding.EncodeToString(make([]byte, 16)), base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("x", 16) + "key")),
		} {
			_, err := client(endpoint, who).ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bkt"), ContinuationToken: &token})
			require.ErrorContains(t, err, "StatusCode: 400", "%q", token)
			require.ErrorContains(t, err, "api error InvalidArgument: The continuation token provided is incorrect", "%q", token)
		}
	}
	assert.Equal(t, before, backend.count())
	// The operator's list of version 1 is as it was.
	_, err = client(endpoint, storeKey).ListObjects(t.Context(), &s3.ListObjectsInput{Bucket: aws.String("bkt"), Marker: aws.String("key")})
	require.NoError(t, err)
	// What a function may not list, it may not list with a token either.
	_, err = client(endpoint, keys.Of("g")).ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bkt"), ContinuationToken: &right})
	require.ErrorContains(t, err, "AccessDenied")
}

func TestS3_ListOfAnotherStore_IsItsOwn(t *testing.T) {
	endpoint, backend, keys := mustOpen(t)
	backend.answer = list("<NextContinuationToken>its-own</NextContinuationToken>")
	page, err := client(endpoint, keys.Of("f")).ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bkt"), ContinuationToken: aws.String("made-up")})
	require.NoError(t, err)
	assert.Equal(t, "its-own", aws.ToString(page.NextContinuationToken))
	assert.Contains(t, backend.last(t).uri, "continuation-token=made-up")
}

package s3front

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/sigv4"
)

// FuzzForm: whatever a form looks like, nobody has signed it, and what is written of it is what was read.
func FuzzForm(f *testing.F) {
	part := func(name, value string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
	}
	f.Add([]byte(part("key", "k") + part("policy", "e30=") + part("AWSAccessKeyId", "id") + part("signature", "x") + "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\ndata\r\n--b--\r\n"))
	f.Add([]byte("--b\r\n\r\n\r\n--b--"))
	f.Add([]byte("--b--\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		given := &form{boundary: "b"}
		done, err := given.parse(data)
		var answer *s3Error
		if err != nil && !errors.As(err, &answer) {
			t.Fatal(err)
		}
		if !done || err != nil {
			return
		}
		require.True(t, bytes.HasSuffix(data, given.rest))
		require.Error(t, verifyForm(given, sigv4.OneKey("id", "secret"), time.Now()))
		written := given.head()
		second := &form{boundary: "b"}
		done, err = second.parse(append(written, given.rest...))
		require.NoError(t, err, "%q", written)
		require.True(t, done)
		require.Equal(t, given.fields, second.fields)
		require.Equal(t, given.rest, second.rest)
	})
}

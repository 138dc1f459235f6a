package main

import (
	"context"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// bucket has an object after it was looked for a few times.
type bucket struct{ asked []string }

func (b *bucket) HeadObject(_ context.Context, in *s3.HeadObjectInput, _ ...func(*s3.Options)) (*s3.HeadObjectOutput, error) {
	b.asked = append(b.asked, *in.Bucket+"/"+*in.Key)
	if len(b.asked)%2 == 1 {
		return nil, &types.NotFound{}
	}
	return &s3.HeadObjectOutput{}, nil
}

func TestHandle(t *testing.T) {
	const prelude = `{"statusCode":200,"headers":{"Content-Type":"text/plain; charset=utf-8","X-Stream":"yes"},"cookies":["stream=1"]}` + "\x00\x00\x00\x00\x00\x00\x00\x00"
	lines := "chunk 1 of 2\nchunk 2 of 2\n"
	for name, tc := range map[string]struct {
		query map[string]string
		want  string
		err   string
		asked []string
	}{
		"lines":       {query: map[string]string{"chunks": "2"}, want: prelude + lines},
		"default":     {want: prelude + "chunk 1 of 3\nchunk 2 of 3\nchunk 3 of 3\n"},
		"pause":       {query: map[string]string{"chunks": "2", "pause_ms": "60000"}, want: prelude + lines},
		"bytes":       {query: map[string]string{"bytes": "70000"}, want: prelude + strings.Repeat("0123456789abcdef", 70000/16)},
		"bare":        {query: map[string]string{"bytes": "3", "prelude": "no"}, want: "012"},
		"wait":        {query: map[string]string{"chunks": "2", "wait": "b/k"}, want: prelude + lines, asked: []string{"b/k-1", "b/k-1"}},
		"fail":        {query: map[string]string{"chunks": "2", "fail": "error"}, want: prelude + lines, err: "as it was told to"},
		"bad numbers": {query: map[string]string{"chunks": "-1"}, want: `{"statusCode":400,"headers":{"Content-Type":"application/json"}}` + prelude[len(prelude)-8:] + `{"message":"chunks: must be 0 to 1000, got \"-1\""}`},
		"bad name":    {query: map[string]string{"x": "1"}, want: `{"statusCode":400,"headers":{"Content-Type":"application/json"}}` + prelude[len(prelude)-8:] + `{"message":"x: there is no such parameter: chunks, bytes, pause_ms, wait, fail, prelude"}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &bucket{}
				f := &function{objects: func() (objects, error) { return b, nil }}
				r, err := f.handle(t.Context(), events.APIGatewayProxyRequest{QueryStringParameters: tc.query})
				require.NoError(t, err)
				got, err := io.ReadAll(r)
				if tc.err == "" {
					require.NoError(t, err)
				} else {
					assert.ErrorContains(t, err, tc.err)
				}
				assert.Equal(t, tc.want, string(got))
				assert.Equal(t, tc.asked, b.asked)
			})
		})
	}
}

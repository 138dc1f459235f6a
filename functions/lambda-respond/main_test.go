package main

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRespond_Body_IsResult(t *testing.T) {
	cases := []struct{ name, event, want string }{
		{"object", `{"body":"{\"statusCode\": 201, \"body\":\"<x>\"}"}`, `{"statusCode": 201, "body":"<x>"}`},
		{"not JSON", `{"body":"{oops"}`, `{oops`},
		{"base64", `{"body":"WzEsIDJd","isBase64Encoded":true}`, `[1, 2]`},
		{"empty", `{"body":""}`, ``},
		{"none", `{"body":null}`, `null`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := handler{}.Invoke(context.Background(), []byte(c.event))
			require.NoError(t, err)
			assert.Equal(t, c.want, string(got))
		})
	}
}

func TestRespond_BadEvent_IsFunctionError(t *testing.T) {
	for _, event := range []string{`{`, `{"body":"%","isBase64Encoded":true}`} {
		_, err := handler{}.Invoke(context.Background(), []byte(event))
		assert.Error(t, err)
	}
}

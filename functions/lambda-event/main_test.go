package main

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestEvent_AnyEvent_ComesBackByteForByte(t *testing.T) {
	for _, event := range []string{`{"b": 1.0,"a":null, "x":"<é\u0041>"}`, `[1,2]`, `""`} {
		result, err := handler{}.Invoke(context.Background(), []byte(event))
		require.NoError(t, err)
		var answer struct {
			StatusCode int
			Body       string
		}
		require.NoError(t, json.Unmarshal(result, &answer))
		assert.Equal(t, 200, answer.StatusCode)
		assert.Equal(t, event, answer.Body)
	}
}

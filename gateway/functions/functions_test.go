package functions_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/functions"
)

func TestRegistry_Set_ReplacesAll(t *testing.T) {
	var r functions.Registry
	_, ok := r.Function("a")
	assert.False(t, ok)
	a, b := &gateway.Function{Name: "a"}, &gateway.Function{Name: "b"}
	r.Set(map[string]*gateway.Function{"a": a})
	got, ok := r.Function("a")
	assert.True(t, ok)
	assert.Same(t, a, got)
	r.Set(map[string]*gateway.Function{"b": b})
	_, ok = r.Function("a")
	assert.False(t, ok)
	assert.Equal(t, map[string]*gateway.Function{"b": b}, r.All())
}

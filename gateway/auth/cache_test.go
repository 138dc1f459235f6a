package auth

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/gateway"
)

func TestCache_ForgetsTheLeastRecentlyUsed(t *testing.T) {
	now := time.Unix(0, 0)
	key := func(s string) [sha256.Size]byte { return sha256.Sum256([]byte(s)) }
	c := newCache(2)
	one, two, three := &gateway.Caller{Username: "1"}, &gateway.Caller{Username: "2"}, &gateway.Caller{Username: "3"}
	c.put(key("1"), one, now.Add(time.Minute))
	c.put(key("2"), two, now.Add(time.Minute))
	assert.Same(t, one, c.get(key("1"), now))
	c.put(key("3"), three, now.Add(time.Minute))
	assert.Nil(t, c.get(key("2"), now))
	assert.Same(t, one, c.get(key("1"), now))
	assert.Same(t, three, c.get(key("3"), now))
	assert.Nil(t, c.get(key("3"), now.Add(time.Minute)), "its time has passed")
	assert.Len(t, c.entries, 1)
	assert.Equal(t, 1, c.order.Len())
}

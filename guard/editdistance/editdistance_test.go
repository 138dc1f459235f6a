package editdistance_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/guard/editdistance"
)

func TestOf(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "", 3}, {"", "ab", 2}, {"kitten", "sitting", 3}, {"GATWAY", "GATEWAY", 1}, {"ab", "ba", 2}} {
		assert.Equal(t, c.want, editdistance.Of(c.a, c.b), "%s %s", c.a, c.b)
	}
}

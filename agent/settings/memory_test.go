package settings

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestMemoryShare(t *testing.T) {
	for text, want := range map[string]int64{"80%": 800, "1%": 10, "100%": 1000, "off": 0, "512": 512 << 20} {
		s, err := load(map[string]string{"FUNCTION_MEMORY_BUDGET": text})
		assert.NoError(t, err, text)
		assert.Equal(t, want, s.MemoryBudget.Of(1000), text)
	}
	for _, text := range []string{"0", "0%", "101%", "-5", "much", "%", "80 %", "1.5"} {
		_, err := load(map[string]string{"FUNCTION_MEMORY_BUDGET": text})
		assert.ErrorContains(t, err, "FUNCTION_MEMORY_BUDGET: must be a percentage", text)
	}
}

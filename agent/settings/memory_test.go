package settings

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestMemoryShare(t *testing.T) {
	for text, want := range map[string]int64{"80%": 800, "1%": 10, "100%": 1000, "off": 0, "512": 512 << 20} {
		r := &reader{lookup: func(string) (string, bool) { return text, true }}
		assert.Equal(t, want, r.memory("FUNCTION_MEMORY_BUDGET", "80%").Of(1000), text)
		assert.Empty(t, r.errs, text)
	}
	for _, text := range []string{"0", "0%", "101%", "-5", "much", "%", "80 %", "1.5"} {
		r := &reader{lookup: func(string) (string, bool) { return text, true }}
		r.memory("FUNCTION_MEMORY_BUDGET", "80%")
		assert.Len(t, r.errs, 1, text)
	}
}

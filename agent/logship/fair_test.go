package logship

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A function that writes without end, of many containers, while the store is down or there is none, costs nobody else's lines.
func TestShipper_AFlood_CostsTheLinesOfTheOneThatFloods(t *testing.T) {
	for name, url := range map[string]string{"store down": "http://127.0.0.1:1", "no store": ""} {
		t.Run(name, func(t *testing.T) {
			cfg, containers := config(t, url)
			cfg.MaxBytes = 1 << 20
			// The quiet function's are the oldest, one ended and one running.
			text, _ := numbered("quiet", "line", 100)
			for i, container := range []string{"lambda-quiet-1", "lambda-quiet-2"} {
				path := mustAppend(t, cfg, container, text)
				require.NoError(t, os.Chtimes(path, noon, noon.Add(time.Duration(i)*time.Second)))
			}
			containers.end("lambda-quiet-1")
			flood, _ := numbered("loud", "line", 3000)
			for i := range 8 {
				container := fmt.Sprint("lambda-loud-", i)
				path := mustAppend(t, cfg, container, flood)
				require.NoError(t, os.Chtimes(path, noon, noon.Add(time.Hour)))
				if i%2 == 0 {
					containers.end(container)
				}
			}
			require.Greater(t, used(t, cfg), cfg.MaxBytes)
			mustOpen(t, cfg)
			require.Eventually(t, func() bool { return used(t, cfg) <= cfg.MaxBytes }, patience, time.Millisecond)
			for _, container := range []string{"lambda-quiet-1", "lambda-quiet-2"} {
				data, err := os.ReadFile(filepath.Join(cfg.Dir, "functions", container+".log"))
				require.NoError(t, err)
				assert.Equal(t, text, string(data), "%s must be whole", container)
			}
		})
	}
}

func TestShipper_Turns_AreTheFunctions(t *testing.T) {
	cfg, _ := config(t, "http://127.0.0.1:1")
	cfg.BatchBytes = 1 << 20
	s, err := newShipper(cfg)
	require.NoError(t, err)
	line := strings.Repeat("x", 500) + "\n"
	for i := range 20 {
		mustAppend(t, cfg, fmt.Sprintf("lambda-loud-%02d", i), strings.Repeat(line, 400))
	}
	mustAppend(t, cfg, "lambda-quiet-1", line)
	mustAppend(t, cfg, "lambda-zebra-1", line)
	require.NoError(t, s.scan())
	taken := map[string]bool{}
	for range 2 {
		b := s.gather()
		require.NotNil(t, b)
		for f := range b.to {
			taken[f.container] = true
			f.Offset = b.to[f].offset
		}
	}
	assert.True(t, taken["lambda-quiet-1"], "one line waits for one turn of each other function, not of each container")
	assert.True(t, taken["lambda-zebra-1"])
	// And the flood's own containers have theirs.
	for b := s.gather(); b != nil; b = s.gather() {
		for f := range b.to {
			taken[f.container] = true
			f.Offset = b.to[f].offset
		}
	}
	assert.Len(t, taken, 22)
}

func TestDues(t *testing.T) {
	of := func(function string, used int64) *file {
		return &file{origin: origin{job: jobLambda, function: function}, used: used}
	}
	files := []*file{of("a", 100), of("b", 300), of("b", 200), of("c", 10), of("d", 450)}
	for need, want := range map[int64]map[string]int64{
		0:    {},
		50:   {"lambda/b": 50},
		150:  {"lambda/b": 100, "lambda/d": 50},
		750:  {"lambda/b": 400, "lambda/d": 350},
		1050: {"lambda/a": 98, "lambda/b": 498, "lambda/c": 8, "lambda/d": 448},
		5000: {"lambda/a": 100, "lambda/b": 500, "lambda/c": 10, "lambda/d": 450},
	} {
		assert.Equal(t, want, dues(files, need), "%d", need)
	}
}

package app

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestLineBuffer_KeepsEveryLineWhole(t *testing.T) {
	var out bytes.Buffer
	b := newLineBuffer(&out)
	line := strings.Repeat("x", 1000) + "\n"
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				_, _ = b.Write([]byte(line))
			}
		})
	}
	wg.Wait()
	assert.NoError(t, b.Close())
	assert.NoError(t, b.Close(), "again does nothing")
	assert.Equal(t, strings.Repeat(line, 800), out.String())
	n, err := b.Write([]byte("late\n"))
	assert.NoError(t, err)
	assert.Equal(t, 5, n)
	assert.NotContains(t, out.String(), "late")
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestLineBuffer_ReportsTheOutputsError(t *testing.T) {
	b := newLineBuffer(brokenWriter{})
	_, err := b.Write([]byte("line\n"))
	assert.NoError(t, err, "a request does not fail for its log line")
	assert.ErrorContains(t, b.Close(), "disk full")
}

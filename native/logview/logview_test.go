package logview

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// screen is a writer that can be read meanwhile.
type screen struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

func mustAppend(t *testing.T, file, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	f, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(t, err)
	_, err = f.WriteString(text)
	require.NoError(t, err)
	require.NoError(t, f.Close())
}

func TestShow_NamesOfServicesAndFunctions_ChooseTheFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"agent", "gateway", "functions/lambda-lambda-echo-1a2b", "functions/lambda-lambda-echo-two-3c"} {
		mustAppend(t, filepath.Join(dir, name+".log"), "one\ntwo\nthree\n")
	}
	for name, c := range map[string]struct {
		names []string
		want  string
	}{
		"service":   {[]string{"agent"}, "agent | two\nagent | three\n"},
		"function":  {[]string{"lambda-echo"}, "lambda-lambda-echo-1a2b | two\nlambda-lambda-echo-1a2b | three\n"},
		"container": {[]string{"lambda-lambda-echo-two-3c"}, "lambda-lambda-echo-two-3c | two\nlambda-lambda-echo-two-3c | three\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			require.NoError(t, Show(t.Context(), &out, Options{Dir: dir, Names: c.names, Lines: 2}))
			assert.Equal(t, c.want, out.String())
		})
	}
	assert.ErrorContains(t, Show(t.Context(), &bytes.Buffer{}, Options{Dir: dir, Names: []string{"nobody"}, Lines: 2}), "nobody")
}

func TestShow_Follow_PrintsGrowthNewFilesAndReplacedOnes(t *testing.T) {
	dir := t.TempDir()
	agent := filepath.Join(dir, "agent.log")
	mustAppend(t, agent, "first\nhalf")
	ctx, cancel := context.WithCancel(t.Context())
	var out screen
	done := make(chan error, 1)
	go func() { done <- Show(ctx, &out, Options{Dir: dir, Lines: 10, Follow: true}) }()
	wait := func(want string) {
		t.Helper()
		require.Eventually(t, func() bool { return strings.Contains(out.String(), want) }, 30*time.Second, 10*time.Millisecond, want)
	}
	wait("agent | first\n")
	mustAppend(t, agent, " line\n")
	wait("agent | half line\n")
	mustAppend(t, filepath.Join(dir, "functions", "lambda-a-1.log"), "new\n")
	wait("lambda-a-1 | new\n")
	require.NoError(t, os.Rename(agent, agent+".1"))
	mustAppend(t, agent, "after rotation\n")
	wait("agent | after rotation\n")
	cancel()
	require.NoError(t, <-done)
	assert.Equal(t, 1, strings.Count(out.String(), "first"))
}

func TestShow_FreedPartOfAFile_IsSkipped(t *testing.T) {
	dir := t.TempDir()
	mustAppend(t, filepath.Join(dir, "functions", "lambda-a-1.log"), "head\n"+strings.Repeat("\x00", 4096)+"tail\n")
	var out bytes.Buffer
	require.NoError(t, Show(t.Context(), &out, Options{Dir: dir, Lines: 10}))
	assert.Equal(t, "lambda-a-1 | head\nlambda-a-1 | tail\n", out.String())
}

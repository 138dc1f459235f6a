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
		require.Eventually(t, func() bool { return strings.Contains(out.String(), want) }, time.Minute, 10*time.Millisecond, want)
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

const (
	lineInfo  = `{"time":"2026-01-02T03:04:05.1Z","level":"INFO","type":"function","message":"hi","function":"f","request_id":"r","container_name":"lambda-f-1","stream":"stdout"}`
	lineError = `{"time":"2026-01-02T03:04:05Z","level":"ERROR","type":"function","message":"[ERROR] no\nTraceback\rline 6","function":"f","container_name":"lambda-f-2"}`
	lineAgent = `{"time":"2026-01-02T03:04:05.05Z","level":"WARN","msg":"slow","function":"f","error":"no such file","n":3}`
)

func TestShow_IsReadable_InTheOrderOfTime(t *testing.T) {
	dir := t.TempDir()
	mustAppend(t, filepath.Join(dir, "agent.log"), lineAgent+"\npanic: no\n")
	mustAppend(t, filepath.Join(dir, "functions", "lambda-f-1.log"), lineInfo+"\n")
	mustAppend(t, filepath.Join(dir, "functions", "lambda-f-2.log"), lineError+"\n")
	show := func(o Options) string {
		var out bytes.Buffer
		o.Dir, o.Lines = dir, 10
		require.NoError(t, Show(t.Context(), &out, o))
		return out.String()
	}
	assert.Equal(t, "2026-01-02 03:04:05.000 ERROR f  [ERROR] no\n    Traceback\n    line 6\n"+
		"2026-01-02 03:04:05.050 WARN  agent  slow error=\"no such file\" function=f n=3\n"+
		"agent | panic: no\n"+
		"2026-01-02 03:04:05.100 INFO  f  hi\n", show(Options{}))
	assert.Equal(t, "2026-01-02 03:04:05.000 ERROR f  [ERROR] no\n    Traceback\n    line 6\n", show(Options{Names: []string{"f"}, Level: "WARN"}))
	assert.Equal(t, lineError+"\n"+lineInfo+"\n", show(Options{Names: []string{"f"}, JSON: true}))
	_, err := ParseLevel("loud")
	assert.ErrorContains(t, err, "DEBUG, INFO, WARN, ERROR")
}

// Lines are longer, and those wanted rarer, than one look at the end of a file finds.
func TestShow_ReadsBackUntilTheLinesAreThere(t *testing.T) {
	dir := t.TempDir()
	var text strings.Builder
	for n := range 40 {
		level := "INFO"
		if n%10 == 0 {
			level = "ERROR"
		}
		text.WriteString(`{"time":"2026-01-02T03:04:05Z","level":"` + level + `","type":"function","message":"` + strings.Repeat("x", 5000) + "\"}\n")
	}
	mustAppend(t, filepath.Join(dir, "functions", "lambda-a-1.log"), text.String())
	for level, want := range map[string]int{"": 8, "ERROR": 4} {
		var out bytes.Buffer
		require.NoError(t, Show(t.Context(), &out, Options{Dir: dir, Lines: 8, Level: level}))
		assert.Equal(t, want, strings.Count(out.String(), "\n"), level)
	}
}

func TestShow_Function_HasItsFailedStarts(t *testing.T) {
	dir := t.TempDir()
	failed := `{"time":"2026-01-02T03:04:05Z","level":"ERROR","msg":"start failed","function":"hello","error":"no such object"}` + "\n"
	mustAppend(t, filepath.Join(dir, "gateway.log"), `{"time":"2026-01-02T03:04:04Z","level":"INFO","msg":"worker started","function":"hello"}`+"\n"+
		failed+strings.ReplaceAll(failed, "hello", "hello-two")+"start failed hello\n")
	var out bytes.Buffer
	require.NoError(t, Show(t.Context(), &out, Options{Dir: dir, Names: []string{"hello"}, Lines: 5}))
	assert.Equal(t, "2026-01-02 03:04:05.000 ERROR gateway  start failed error=\"no such object\" function=hello\n", out.String())
	assert.ErrorContains(t, Show(t.Context(), &bytes.Buffer{}, Options{Dir: dir, Names: []string{"other"}, Lines: 5}), "no log of other")

	// The agent's, in the function's own file.
	mustAppend(t, filepath.Join(dir, "functions/lambda-hello-starts.log"),
		`{"time":"2026-01-02T03:04:06Z","level":"ERROR","type":"platform.fault","message":"The function could not be started: x","function":"hello"}`+"\n")
	out.Reset()
	require.NoError(t, Show(t.Context(), &out, Options{Dir: dir, Names: []string{"hello"}, Lines: 5}))
	assert.Contains(t, out.String(), "03:04:06.000 ERROR hello  The function could not be started: x\n")
}

package lambdainit_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/edge-serverless-box/esb/agent/lambdainit"
	"github.com/stretchr/testify/require"
)

// patience is how long a test waits for something that must happen.
const patience = 60 * time.Second

// soon is the deadline of an invocation that is to run into it. A busy machine has to get as far as that within it.
const soon = 2 * time.Second

// The test binary is started again as lambda-init ("@init", "@park") and as the function ("@function"): lambda-init waits
// for every child of its process, so it needs one of its own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "@init":
			os.Exit(runInit(os.Args[2:]))
		case "@exec":
			os.Exit(runExec(os.Args[2:]))
		case "@function":
			waitAhead()
			os.Exit(runFunction(os.Args[2], os.Args[3:]))
		case "@park":
			os.Exit(runParked(os.Args[2]))
		case "@overwrite":
			os.Exit(runOverwrite(os.Args[2]))
		case "@extension":
			os.Exit(runExtension(os.Args[2], os.Args[3], os.Args[4]))
		}
	}
	os.Exit(m.Run())
}

func runInit(command []string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if os.Getpid() == 1 { // a pid namespace needs its own /proc
		if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			return fail(err)
		}
		if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
			return fail(err)
		}
	}
	environ := os.Environ()
	var ahead *lambdainit.Ahead
	if socket := os.Getenv(parkVariable); socket != "" {
		call, err := lambdainit.Park(socket)
		if err != nil || call == nil {
			return fail(fmt.Errorf("parked in vain: %w", err))
		}
		command, environ, ahead = call.Args, call.Env, call.Ahead()
	}
	cfg, err := lambdainit.ConfigFromEnv(environ, command)
	if err != nil {
		return fail(err)
	}
	cfg.Ahead = ahead
	s, err := lambdainit.Open(cfg, os.Stdout)
	if err != nil {
		return fail(err)
	}
	addr := os.NewFile(3, "addr")
	_, _ = fmt.Fprintln(addr, s.Addr())
	_ = addr.Close()
	if err := s.Run(context.Background()); err != nil {
		return fail(err)
	}
	return 0
}

// line is a log line of lambda-init.
type line struct {
	Time      time.Time
	Level     string
	Type      string
	Message   string
	Function  string
	RequestID string `json:"request_id"`
	TraceID   string `json:"trace_id"`
	Container string `json:"container_name"`
	Stream    string
	Extension string

	DurationMS float64 `json:"duration_ms"`
	BilledMS   int     `json:"billed_duration_ms"`
	MemoryMB   int     `json:"memory_size_mb"`
	UsedMB     int     `json:"max_memory_used_mb"`
	InitMS     float64 `json:"init_duration_ms"`
}

// box is a lambda-init with a function, as the agent and the gateway see it.
type box struct {
	t      testing.TB
	cmd    *exec.Cmd
	url    string
	client *http.Client
	cgroup string
	ended  chan struct{}

	mu    sync.Mutex
	lines []line
	news  []string
	bump  chan struct{}
}

type boxOption func(*boxSettings)

type boxSettings struct {
	env      []string
	command  []string
	pidSpace bool
	ahead    *lambdainit.Call
	stuck    bool // nobody reads the log
}

func withEnv(env ...string) boxOption {
	return func(s *boxSettings) { s.env = append(s.env, env...) }
}

// withStart sets how the test function begins.
func withStart(args ...string) boxOption {
	return func(s *boxSettings) { s.command = append([]string{os.Args[0], "@function"}, args...) }
}

func withCommand(args ...string) boxOption {
	return func(s *boxSettings) { s.command = args }
}

func withPIDSpace() boxOption { return func(s *boxSettings) { s.pidSpace = true } }

func withStuckLog() boxOption { return func(s *boxSettings) { s.stuck = true } }

// mustOpenBox starts a box on standby with a 10 s init and a 20 s function timeout; env overrides.
func mustOpenBox(t testing.TB, options ...boxOption) *box {
	t.Helper()
	set := boxSettings{command: []string{os.Args[0], "@function", "run"}}
	for _, o := range options {
		o(&set)
	}
	b := &box{t: t, bump: make(chan struct{}), ended: make(chan struct{}), cgroup: t.TempDir(),
		client: &http.Client{Transport: &http.Transport{}, Timeout: patience}}
	b.setCgroup(50<<20, 0)

	socket := filepath.Join(t.TempDir(), "n.sock")
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	require.NoError(t, err)
	addrR, addrW, err := os.Pipe()
	require.NoError(t, err)
	logR, logW, err := os.Pipe()
	require.NoError(t, err)

	b.cmd = exec.Command(os.Args[0], append([]string{"@init"}, set.command...)...)
	b.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "ESB_INIT_NOTIFY="+socket, "ESB_INIT_CGROUP="+b.cgroup, "ESB_INIT_STANDBY=1",
		"ESB_INIT_LISTEN=127.0.0.1:0", "ESB_INIT_RUNTIME_API=127.0.0.1:0", "ESB_INIT_CONTAINER=lambda-test-1",
		"AWS_LAMBDA_FUNCTION_NAME=test", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=128", "AWS_LAMBDA_FUNCTION_TIMEOUT=20",
		"AWS_REGION=eu-central-1", "AWS_ACCOUNT_ID=123456789012")
	b.cmd.Env = append(b.cmd.Env, set.env...)
	called := b.park(set)
	b.cmd.Stdout, b.cmd.Stderr = logW, os.Stderr
	b.cmd.ExtraFiles = []*os.File{addrW}
	if set.pidSpace {
		b.cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS}
	}
	require.NoError(t, b.cmd.Start())
	_ = addrW.Close()
	_ = logW.Close()
	called()

	var readers sync.WaitGroup
	if !set.stuck {
		// One only reads: to lambda-init, a reader that is busy with the lines is one that is stuck.
		lines := make(chan string, 1<<17)
		readers.Go(func() { readLines(logR, lines) })
		readers.Go(func() { b.keep(lines) })
	}
	readers.Go(func() {
		buf := make([]byte, 256)
		for {
			n, err := notify.Read(buf)
			if err != nil {
				return
			}
			b.add(func() { b.news = append(b.news, strings.TrimSpace(string(buf[:n]))) })
		}
	})
	go func() {
		_ = b.cmd.Wait()
		close(b.ended)
	}()
	t.Cleanup(func() {
		b.client.CloseIdleConnections()
		_ = b.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-b.ended:
		case <-time.After(patience):
			_ = b.cmd.Process.Kill()
			<-b.ended
			t.Error("lambda-init did not end")
		}
		_ = notify.Close()
		if set.stuck {
			_ = logR.Close()
		}
		readers.Wait()
		_ = logR.Close()
	})
	addr, err := bufio.NewReader(addrR).ReadString('\n')
	_ = addrR.Close()
	require.NoError(t, err, "lambda-init did not start")
	b.url = "http://" + strings.TrimSpace(addr)
	return b
}

func readLines(r io.Reader, lines chan<- string) {
	defer close(lines)
	for reader := bufio.NewReader(r); ; {
		text, err := reader.ReadString('\n')
		if err != nil {
			return
		}
		lines <- text
	}
}

// keep takes the lines of the log until its end.
func (b *box) keep(lines <-chan string) {
	for text := range lines {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			b.t.Errorf("log line is not JSON: %v: %.200q", err, text)
			continue
		}
		b.add(func() { b.lines = append(b.lines, l) })
	}
}

func (b *box) add(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
	close(b.bump)
	b.bump = make(chan struct{})
}

// wait waits until there holds for what was logged and told to the agent so far.
func (b *box) wait(what string, there func(lines []line, news []string) bool) []line {
	b.t.Helper()
	limit := time.After(patience)
	for {
		b.mu.Lock()
		lines, news, bump := b.lines, b.news, b.bump
		ok := there(lines, news)
		b.mu.Unlock()
		if ok {
			return lines
		}
		select {
		case <-bump:
		case <-limit:
			b.t.Fatalf("waited in vain for %s; log: %+v; told the agent: %v", what, lines, news)
		}
	}
}

// waitReport waits for the REPORT line of a request and returns all lines up to it.
func (b *box) waitReport(id string) []line {
	b.t.Helper()
	// Each line is looked at once: a reader of the log that is busy with lines of before counts as one that is stuck.
	end := 0
	lines := b.wait("the REPORT of "+id, func(lines []line, _ []string) bool {
		for end < len(lines) {
			l := lines[end]
			end++
			if l.Type == "platform.report" && l.RequestID == id {
				return true
			}
		}
		return false
	})
	return lines[:end]
}

func (b *box) waitLine(kind, part string) line {
	b.t.Helper()
	var found line
	b.wait(kind+" "+part, func(lines []line, _ []string) bool {
		for _, l := range lines {
			if l.Type == kind && strings.Contains(l.Message, part) {
				found = l
				return true
			}
		}
		return false
	})
	return found
}

func (b *box) setCgroup(peak, oomKills int) {
	b.t.Helper()
	for name, text := range map[string]string{
		"memory.peak":   fmt.Sprintln(peak),
		"memory.events": fmt.Sprintf("low 0\nhigh 0\nmax 3\noom 1\noom_kill %d\noom_group_kill 0\n", oomKills),
		"memory.max":    fmt.Sprintln(128 << 20),
	} {
		// In place: lambda-init has the files open.
		require.NoError(b.t, os.WriteFile(filepath.Join(b.cgroup, name), []byte(text), 0o600))
	}
}

// result is an answer of the worker endpoint.
type result struct {
	Status int
	Header http.Header
	Body   string
	Err    error
}

func (r result) reply(t testing.TB) reply {
	t.Helper()
	require.NoError(t, r.Err)
	require.Equal(t, http.StatusOK, r.Status, r.Body)
	require.Empty(t, r.Header.Get("X-Amz-Function-Error"), r.Body)
	var v reply
	require.NoError(t, json.Unmarshal([]byte(r.Body), &v), r.Body)
	return v
}

const invocations = "/2015-03-31/functions/function/invocations"

// send posts a request to the worker endpoint; headers are "Name: value".
func (b *box) send(method, path string, body io.Reader, headers ...string) result {
	req, err := http.NewRequest(method, b.url+path, body)
	if err != nil {
		return result{Err: err}
	}
	req.Header.Set("X-Esb-Container-Id", "lambda-test-1")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Set(name, value)
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return result{Err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return result{Status: resp.StatusCode, Header: resp.Header, Body: string(text), Err: err}
}

func (b *box) invoke(id string, o order, headers ...string) result {
	payload, _ := json.Marshal(o)
	return b.send(http.MethodPost, invocations, strings.NewReader(string(payload)), append(headers, "X-Amzn-RequestId: "+id)...)
}

func (b *box) invokeAsync(id string, o order, headers ...string) <-chan result {
	c := make(chan result, 1)
	go func() { c <- b.invoke(id, o, headers...) }()
	return c
}

func (b *box) health() string {
	b.t.Helper()
	r := b.send(http.MethodGet, "/health", nil)
	require.NoError(b.t, r.Err)
	require.Equal(b.t, http.StatusOK, r.Status)
	return strings.TrimSpace(r.Body)
}

// waitGone waits until none of pids is a process any more.
func waitGone(t testing.TB, pids ...int) {
	t.Helper()
	require.Eventually(t, func() bool {
		for _, pid := range pids {
			if syscall.Kill(pid, 0) == nil {
				return false
			}
		}
		return true
	}, patience, 5*time.Millisecond, "processes %v are still there", pids)
}

func deadlineIn(d time.Duration) string {
	return fmt.Sprintf("Lambda-Runtime-Deadline-Ms: %d", time.Now().Add(d).UnixMilli())
}

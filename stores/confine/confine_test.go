package confine_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/stores/confine"
)

const limit = 60 * time.Second

// TestMain plays the copies of the program, and a server that is to be confined.
func TestMain(m *testing.M) {
	switch {
	case confine.Is(os.Args):
		os.Exit(confine.Run(os.Args))
	case len(os.Args) == 3 && os.Args[1] == "serve":
		serve(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

// serve answers with the user, the interfaces and the capabilities that the process has.
func serve(addr string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := &http.Server{Addr: addr, ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		interfaces, _ := net.Interfaces()
		for _, i := range interfaces {
			_, _ = fmt.Fprintln(w, "interface", i.Name)
		}
		status, _ := os.ReadFile("/proc/self/status")
		_, _ = fmt.Fprintf(w, "uid %d\n%s", os.Getuid(), status)
	})}
	go func() { <-ctx.Done(); _ = server.Close() }()
	_ = server.ListenAndServe()
}

func mustStart(t *testing.T) (*exec.Cmd, *confine.Dialer) {
	t.Helper()
	if err := confine.Check(t.Context()); err != nil {
		t.Skip("network namespaces cannot be made here: ", err)
	}
	cmd := exec.Command(os.Args[0], "serve", "127.0.0.1:8081")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	dialer, started, err := confine.Command(cmd)
	require.NoError(t, err)
	err = cmd.Start()
	started()
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		assert.NoError(t, dialer.Close())
	})
	return cmd, dialer
}

func ask(t *testing.T, dialer *confine.Dialer) string {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return dialer.Dial(ctx, addr)
	}}}
	var text []byte
	require.Eventually(t, func() bool {
		res, err := client.Get("http://127.0.0.1:8081/")
		if err != nil {
			return false
		}
		defer func() { _ = res.Body.Close() }()
		text, err = io.ReadAll(res.Body)
		return err == nil
	}, limit, 10*time.Millisecond)
	return string(text)
}

func TestConfined_IsReachedByItsParentAlone(t *testing.T) {
	cmd, dialer := mustStart(t)
	text := ask(t, dialer)
	assert.Equal(t, 1, strings.Count(text, "interface "), text)
	assert.Contains(t, text, "interface lo")
	assert.Contains(t, text, fmt.Sprintf("uid %d\n", os.Getuid()))
	assert.Contains(t, text, "NoNewPrivs:\t1")
	assert.Contains(t, text, "CapAmb:\t0000000000000000")
	assert.Contains(t, text, fmt.Sprintf("Pid:\t%d\n", cmd.Process.Pid), "signals to the process reach the program")
	_, err := net.DialTimeout("tcp", "127.0.0.1:8081", time.Second)
	require.Error(t, err)
}

func TestConfined_NobodyListens_SaysSo(t *testing.T) {
	_, dialer := mustStart(t)
	ask(t, dialer)
	_, err := dialer.Dial(t.Context(), "127.0.0.1:9")
	require.ErrorContains(t, err, "refused")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = dialer.Dial(ctx, "127.0.0.1:8081")
	require.ErrorIs(t, err, context.Canceled)
}

func TestConfined_ProgramEnds_DialerEndsToo(t *testing.T) {
	cmd, dialer := mustStart(t)
	ask(t, dialer)
	require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
	require.NoError(t, cmd.Wait(), "the program itself gets the signal")
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := dialer.Dial(ctx, "127.0.0.1:8081")
		return err != nil && ctx.Err() == nil
	}, limit, 10*time.Millisecond)
}

// An unprivileged user may confine programs too, where the kernel lets it.
func TestConfined_AsAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to become another user")
	}
	program := t.TempDir() + "/test"
	data, err := os.ReadFile(os.Args[0])
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program, data, 0o755))
	for dir := program; dir != "/tmp" && dir != "/"; dir = dir[:max(strings.LastIndexByte(dir, '/'), 1)] {
		require.NoError(t, os.Chmod(dir, 0o755))
	}
	cmd := exec.Command(program, "-test.run", "TestConfined_(IsReached|Program)", "-test.v")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
}

package logship

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// childDir makes the test's program a shipper of that folder, to be killed.
const childDir, childURL = "LOGSHIP_TEST_DIR", "LOGSHIP_TEST_URL"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir, os.Getenv(childURL)))
	}
	os.Exit(m.Run())
}

func child(dir, url string) int {
	s, err := Open(Config{
		Dir: dir, URL: url, BatchBytes: 256 << 10, Interval: 50 * time.Millisecond, MaxBytes: 256 << 20,
		Container: func(string) Container { return Container{Supervised: true, Alive: true} }, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	_ = s.Close() // cannot fail
	return 0
}

func mustStart(t *testing.T, env []string, path string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { stop(cmd, syscall.SIGKILL) })
	return cmd
}

func stop(cmd *exec.Cmd, sig syscall.Signal) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Signal(sig)
		_ = cmd.Wait()
	}
}

// mustVictoriaLogs returns the path of the real store, built as `go tool task build` does.
func mustVictoriaLogs(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	built := filepath.Join(root, ".esb", "bin", "victoria-logs")
	if _, err := os.Stat(built); err == nil {
		return built
	}
	out := filepath.Join(t.TempDir(), "victoria-logs")
	cmd := exec.Command("go", "build", "-o", out, "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs")
	cmd.Dir = filepath.Join(root, "stores", "victorialogs")
	cmd.Env = append(os.Environ(), "GOWORK=off", "CGO_ENABLED=0")
	text, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", text)
	return out
}

// TestShipper_VictoriaLogs_AllLinesOf20WritersArriveThroughAnOutageAndAKill is the acceptance test of issue 3.
func TestShipper_VictoriaLogs_AllLinesOf20WritersArriveThroughAnOutageAndAKill(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs VictoriaLogs")
	}
	const writers, each = 20, 5000
	binary := mustVictoriaLogs(t)
	data, dir := t.TempDir(), t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, functionsDir), 0o755))
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	require.NoError(t, err)
	addr := l.Addr().String()
	require.NoError(t, l.Close())
	start := func() *exec.Cmd {
		store := mustStart(t, nil, binary, "-storageDataPath="+data, "-httpListenAddr="+addr, "-inmemoryDataFlushInterval=1s", "-loggerLevel=ERROR")
		require.Eventually(t, func() bool {
			resp, err := http.Get("http://" + addr + "/health")
			if err != nil {
				return false
			}
			_ = resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		}, patience, 20*time.Millisecond)
		return store
	}
	shipper := func() *exec.Cmd {
		return mustStart(t, []string{childDir + "=" + dir, childURL + "=http://" + addr}, os.Args[0])
	}
	store, ship := start(), shipper()

	// phase is how far the writers may go; each phase has its trouble.
	phases := []chan struct{}{make(chan struct{}), make(chan struct{})}
	var half, writing sync.WaitGroup
	half.Add(writers)
	for w := range writers {
		writing.Go(func() { write(t, dir, w, each, &half, phases) })
	}
	half.Wait() // a third is written
	stop(store, syscall.SIGTERM)
	close(phases[0]) // the second third is written while the store is down
	require.Eventually(t, func() bool { return lines(dir) >= writers*each*2/3 }, patience, 20*time.Millisecond)
	start()
	// Killed as soon as the backlog flows again, so most likely with a batch on its way.
	before := query(t, addr, "* | count() n")["n"]
	require.Eventually(t, func() bool { return query(t, addr, "* | count() n")["n"] != before }, patience, time.Millisecond)
	stop(ship, syscall.SIGKILL)
	close(phases[1])
	shipper()
	writing.Wait()

	const all = writers * each
	found := ""
	if !assert.Eventually(t, func() bool {
		found = query(t, addr, "job:lambda | count_uniq(_msg) n")["n"]
		return found == strconv.Itoa(all)
	}, patience, 250*time.Millisecond) {
		kept, err := os.ReadFile(filepath.Join(dir, offsetsFile))
		t.Fatalf("%s of %d lines are there; shipped according to the offsets: %s %v", found, all, kept, err)
	}
	count, err := strconv.Atoi(query(t, addr, "* | count() n")["n"])
	require.NoError(t, err)
	t.Logf("%d lines, %d of them delivered twice", all, count-all)
	assert.LessOrEqual(t, (count-all)*280, 256<<10+280, "at most one batch (a record has more than 280 bytes)")
	one := query(t, addr, `request_id:="r-7-4999" function:="f7"`)
	assert.Equal(t, `{container_name="lambda-f7-1",job="lambda"}`, one["_stream"])
	assert.Equal(t, "lambda-f7-1", one["container_id"])
	assert.Equal(t, "INFO", one["level"])
	assert.Equal(t, "1-t-7", one["trace_id"])
	assert.Equal(t, one["_msg"], query(t, addr, `trace_id:="1-t-7" request_id:="r-7-4999"`)["_msg"])
}

// write writes as lambda-init does, in three parts.
func write(t *testing.T, dir string, w, each int, half *sync.WaitGroup, phases []chan struct{}) {
	f, err := os.OpenFile(filepath.Join(dir, functionsDir, fmt.Sprintf("lambda-f%d-1.log", w)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if !assert.NoError(t, err) {
		half.Done()
		return
	}
	defer func() { _ = f.Close() }()
	out := bufio.NewWriter(f)
	for i := range each {
		switch i {
		case each / 3:
			_ = out.Flush()
			half.Done()
			<-phases[0]
		case 2*each/3 + 1:
			_ = out.Flush()
			<-phases[1]
		}
		_, _ = fmt.Fprintf(out, `{"time":%q,"level":"INFO","type":"function","message":"writer %d line %d %s","function":"f%d","container_name":"lambda-f%d-1","request_id":"r-%d-%d","trace_id":"1-t-%d","stream":"stdout"}`+"\n",
			time.Now().UTC().Format(time.RFC3339Nano), w, i, strings.Repeat("x", 60), w, w, w, i, w)
	}
	assert.NoError(t, out.Flush())
}

func lines(dir string) (n int) {
	files, _ := filepath.Glob(filepath.Join(dir, functionsDir, "*.log"))
	for _, file := range files {
		data, _ := os.ReadFile(file)
		n += strings.Count(string(data), "\n")
	}
	return n
}

// query returns the first row of a LogsQL query, nothing when there is none.
func query(t *testing.T, addr, text string) map[string]string {
	t.Helper()
	row := map[string]string{}
	resp, err := http.PostForm("http://"+addr+"/select/logsql/query", url.Values{"query": {text}, "limit": {"1"}})
	if !assert.NoError(t, err) {
		return row
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if assert.NoError(t, err) && assert.Equal(t, http.StatusOK, resp.StatusCode, "%s", body) && len(body) > 0 {
		line, _, _ := strings.Cut(string(body), "\n")
		assert.NoError(t, json.Unmarshal([]byte(line), &row))
	}
	return row
}

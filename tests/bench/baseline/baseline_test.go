package baseline

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestMain is the function of the tests, too, where a Runtime API is named.
func TestMain(m *testing.M) {
	if api := os.Getenv("AWS_LAMBDA_RUNTIME_API"); api != "" {
		function("http://" + api + "/2018-06-01/runtime/invocation/")
		return
	}
	os.Exit(m.Run())
}

func function(api string) {
	for {
		event, err := http.Get(api + "next") //nolint:noctx // a test program
		if err != nil {
			return
		}
		body, _ := io.ReadAll(event.Body)
		_ = event.Body.Close()
		answer, err := http.Post(api+event.Header.Get("Lambda-Runtime-Aws-Request-Id")+"/response", "", strings.NewReader(fmt.Sprintf("%d has %s", os.Getpid(), body))) //nolint:noctx // a test program
		if err != nil {
			return
		}
		_ = answer.Body.Close()
	}
}

func TestBare_EachStartAnswersOnce(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	program, err := os.Executable()
	require.NoError(t, err)
	b, err := OpenBare(program, []byte(`{"n":1}`))
	require.NoError(t, err)
	defer b.Close()
	for range 3 {
		answer, took, end, err := b.Start(t.Context())
		require.NoError(t, err)
		assert.Equal(t, `1 has {"n":1}`, string(answer), "it is process 1 of its namespace")
		assert.Positive(t, took)
		require.NoError(t, end())
	}
	_, _, _, err = (&Bare{program: "/nothing/there"}).Start(t.Context())
	assert.ErrorContains(t, err, "/nothing/there")
}

func TestAnybody_NothingOfTheContainerIsLeft(t *testing.T) {
	text, err := anybody([]byte(`{
		"process": {"terminal": true, "args": ["/run/esb/lambda-init"], "env": ["A=b", "ESB_INIT_NOTIFY=/run/x", "ESB_INIT_CGROUP=/sys/y"]},
		"mounts": [{"source": "proc"}, {"source": "/run/esb/b/notify"}, {"source": "/sys/fs/cgroup/memory/x"}, {"source": "/opt/lambda-init"}],
		"linux": {"cgroupsPath": "/esb/one", "namespaces": [{"type": "pid"}, {"type": "network", "path": "/run/n"}, {"type": "user", "path": "/run/u"}]}}`))
	require.NoError(t, err)
	assert.NotContains(t, string(text), "/run/n")
	assert.NotContains(t, string(text), "/run/u")
	assert.NotContains(t, string(text), "/esb/one")
	var config struct {
		Process struct {
			Terminal bool
			Env      []string
		}
		Mounts []struct{ Source string }
		Linux  struct{ UIDMappings []any }
	}
	require.NoError(t, json.Unmarshal(text, &config))
	assert.False(t, config.Process.Terminal)
	assert.Equal(t, []string{"A=b"}, config.Process.Env)
	assert.Len(t, config.Mounts, 2)
	assert.Len(t, config.Linux.UIDMappings, 1)
	_, err = anybody([]byte(`{}`))
	assert.Error(t, err)
}

func TestNginx_OneWayForEachWorker(t *testing.T) {
	n := &Nginx{Addr: "127.0.0.1:1"}
	text := string(n.configuration([]Worker{{"10.0.0.2:27182", "lambda-a"}, {"10.0.0.3:27182", "lambda-b"}}))
	assert.Contains(t, text, "upstream w1 { server 10.0.0.3:27182;")
	assert.Contains(t, text, "location = /1 { proxy_pass http://w1"+InvocationPath)
	assert.Contains(t, text, "X-Esb-Container-Id lambda-b;")
}

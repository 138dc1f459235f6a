package security

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// logsOfBox is where functions post lines.
func logsOfBox(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(box.LogsURL)
	require.NoError(t, err)
	return "http://" + box.Box + ":" + u.Port()
}

// asked is Python that sends requests and wants to know the status alone.
const asked = "ask = lambda *a: request(*a)[0]\n"

func TestHostileFunction_MeetsNoLogStore(t *testing.T) {
	base := logsOfBox(t)
	attempt(t, function, "take the day's logs away: detach a partition of VictoriaLogs, by GET and POST", func(t *testing.T) {
		path := base + "/internal/partition/detach?name=" + time.Now().UTC().Format("20060102")
		require.Equal(t, []any{404.0, 404.0}, inside(t, asked+fmt.Sprintf("result = [ask('GET', %q), ask('POST', %q, b'')]", path, path)))
	})
	attempt(t, function, "read logs of others and of the gateway", func(t *testing.T) {
		require.Equal(t, []any{404.0, 404.0, 404.0}, inside(t, asked+fmt.Sprintf(`
result = [ask('GET', %[1]q + '/select/logsql/query?query=job:=gateway'), ask('POST', %[1]q + '/select/logsql/query', b'query=*'),
          ask('GET', %[1]q + '/insert/%%2e%%2e/select/logsql/query?query=*')]`, base)))
	})
	attempt(t, function, "delete logs, read VictoriaLogs' settings and profiles", func(t *testing.T) {
		require.Equal(t, []any{404.0, 404.0, 404.0, 404.0}, inside(t, asked+fmt.Sprintf(`
result = [ask('POST', %[1]q + '/delete/run_task?filter=*', b''), ask('GET', %[1]q + '/flags'), ask('GET', %[1]q + '/debug/pprof/heap'), ask('GET', %[1]q + '/metrics')]`, base)))
	})
	attempt(t, function, "post lines in the name of another function, the gateway and the platform", func(t *testing.T) {
		require.Equal(t, 200.0, inside(t, asked+fmt.Sprintf(`
line = json.dumps({"when": time.time(), "text": "posted-line", "level": "ERROR", "job": "gateway", "function": "victim", "type": "platform.report",
                   "container_name": "gateway", "container_id": "gateway", "": {"function": "victim"}, "_stream": "{job=\"gateway\"}"})
result = ask('POST', %q + '/insert/jsonline?_stream_fields=function&_msg_field=text&_time_field=when', line.encode())`, base)))
		for _, line := range box.EventuallyLogged(t, `"posted-line"`, func(lines []stack.LogLine) bool { return len(lines) > 0 }) {
			require.Equal(t, "shell", line.Function)
			require.Equal(t, "lambda", line.Job)
			require.Equal(t, "posted", line.Type)
			require.Contains(t, line.Container, "lambda-shell-")
			require.Equal(t, "ERROR", line.Level)
		}
	})
	attempt(t, function, "flood the log store with posted lines", func(t *testing.T) {
		got, ok := inside(t, fmt.Sprintf(`
line = json.dumps({"_msg": "flood " + "x" * 500}) + "\n"
answers = []
while len(answers) < 60 and 429 not in [a[0] for a in answers]:
    answers.append(request('POST', %q + '/insert/jsonline', (line * 1500).encode()))
result = {"lines": 1500 * len(answers), "last": answers[-1][0], "others": [a[2] for a in answers if a[0] not in (200, 429)]}`, base)).(map[string]any)
		require.True(t, ok)
		require.Equal(t, 429.0, got["last"], "%v", got)
		require.Empty(t, got["others"], "a client is told to come later, whatever it sends meanwhile")
	})
}

func TestLocalUser_MeetsNoLogStore(t *testing.T) {
	base := box.LogsURL
	curl := func(t *testing.T, want int, args ...string) {
		t.Helper()
		out, _ := commandAsNobody(t, "curl", append([]string{"-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}"}, args...)...)
		require.Equal(t, fmt.Sprint(want), out)
	}
	attempt(t, localUser, "take the day's logs away, by the log store's port", func(t *testing.T) {
		curl(t, http.StatusNotFound, base+"/internal/partition/detach?name="+time.Now().UTC().Format("20060102"))
		curl(t, http.StatusNotFound, "-X", "POST", base+"/internal/partition/detach?name="+time.Now().UTC().Format("20060102"))
	})
	attempt(t, localUser, "read logs by the log store's port, without and with a guessed password", func(t *testing.T) {
		curl(t, http.StatusUnauthorized, base+"/select/logsql/query?query=*")
		curl(t, http.StatusUnauthorized, "-u", "esb:esb", base+"/select/logsql/query?query=*")
	})
	attempt(t, localUser, "write lines by the log store's port", func(t *testing.T) {
		curl(t, http.StatusUnauthorized, "-d", `{"_msg":"x"}`, base+"/insert/jsonline")
	})
	attempt(t, localUser, "post lines where functions do", func(t *testing.T) {
		curl(t, http.StatusForbidden, "-d", `{"_msg":"x"}`, logsOfBox(t)+"/insert/jsonline")
	})
	attempt(t, localUser, "read the password of the log store", func(t *testing.T) {
		requireClosed(t, box.Home+"/data/logs.password")
	})
	attempt(t, localUser, "reach the log store with a web page: another host's name, another origin, an image", func(t *testing.T) {
		for _, header := range []string{"Host: evil.example", "Origin: https://evil.example", "Sec-Fetch-Site: cross-site"} {
			curl(t, http.StatusForbidden, "-H", header, base+"/select/logsql/query?query=*")
		}
	})
}

package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/stack"
)

func TestLogs_AreFoundByRequestID(t *testing.T) {
	answer := box.Post(t, "/api/burst", token, `{"action":"log","lines":50}`)
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	id := answer.Header.Get("x-amzn-RequestId")
	query := fmt.Sprintf("request_id:=%q job:=lambda", id)
	lines := box.EventuallyLogged(t, query, func(lines []stack.LogLine) bool {
		return len(lines) > 0 && lines[len(lines)-1].Type == "platform.report"
	})
	require.Len(t, lines, 53, "50 lines, START, END and REPORT")
	for i, line := range lines[1:51] {
		assert.Equal(t, fmt.Sprintf("chaos line %d of 50", i+1), line.Message)
	}
	assert.Equal(t, "platform.start", lines[0].Type)
	assert.Equal(t, "platform.end", lines[51].Type)
	report := lines[52]
	assert.Contains(t, report.Message, "REPORT RequestId: "+id)
	assert.NotContains(t, report.Message, "Max Memory Used: 256 MB", "the peak must be measured")
	assert.Equal(t, "burst", report.Function)
	assert.Contains(t, report.Container, "lambda-burst-")
	assert.Equal(t, "INFO", report.Level)
}

func TestLogs_AreFoundByTraceID_InEveryService(t *testing.T) {
	root := "1-6543210f-0123456789abcdef01234567"
	answer, err := box.Do(t.Context(), http.MethodPost, box.HTTPURL+"/api/burst", token, []byte(`{"action":"ok"}`),
		"X-Amzn-Trace-Id", "Root="+root)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	require.Contains(t, answer.Header.Get("X-Amzn-Trace-Id"), root)
	id := answer.Header.Get("x-amzn-RequestId")
	jobs := func(lines []stack.LogLine) map[string]bool {
		found := map[string]bool{}
		for _, line := range lines {
			found[line.Job] = true
		}
		return found
	}
	lines := box.EventuallyLogged(t, fmt.Sprintf("trace_id:=%q", root), func(lines []stack.LogLine) bool {
		return jobs(lines)["lambda"] && jobs(lines)["gateway"]
	})
	for _, line := range lines {
		assert.Equal(t, id, line.RequestID, "%+v", line)
	}
}

func TestLogs_AgentsLinesCarryTheRequestIDOfAColdStart(t *testing.T) {
	// The container that a process which exits has cost, behind RIE, is replaced for this request.
	require.Equal(t, http.StatusBadGateway, box.Post(t, "/api/rie-chaos", token, `{"action":"exit","code":1}`).Status)
	answer := box.Post(t, "/api/rie-chaos", token, `{"action":"ok"}`)
	require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
	box.EventuallyLogged(t, fmt.Sprintf("request_id:=%q job:=agent", answer.Header.Get("x-amzn-RequestId")),
		func(lines []stack.LogLine) bool { return len(lines) > 0 })
}

func TestLogs_OfEveryRuntimeHaveTheirRequest(t *testing.T) {
	for path, function := range map[string]string{
		"/api/hello-python": "lambda-hello-python", "/api/hello-node": "lambda-hello-node",
	} {
		t.Run(function, func(t *testing.T) {
			answer := box.Post(t, path, token, `{"name":"log"}`)
			require.Equal(t, http.StatusOK, answer.Status, "%s", answer.Body)
			id := answer.Header.Get("x-amzn-RequestId")
			lines := box.EventuallyLogged(t, fmt.Sprintf("request_id:=%q job:=lambda", id), func(lines []stack.LogLine) bool {
				return len(lines) > 0 && strings.HasPrefix(lines[len(lines)-1].Message, "REPORT RequestId: "+id)
			})
			assert.Equal(t, function, lines[0].Function)
		})
	}
}

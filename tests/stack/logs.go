package stack

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// LogLine is one line of the box's log, as VictoriaLogs keeps it.
type LogLine struct {
	Time      time.Time `json:"_time"`
	Message   string    `json:"_msg"`
	Job       string    `json:"job"`
	Container string    `json:"container_name"`
	Function  string    `json:"function"`
	Type      string    `json:"type"`
	Level     string    `json:"level"`
	RequestID string    `json:"request_id"`
	TraceID   string    `json:"trace_id"`
}

// Query asks VictoriaLogs in LogsQL for lines, in the order of their time.
func (s *Stack) Query(ctx context.Context, query string) ([]LogLine, error) {
	header := []string{"Content-Type", "application/x-www-form-urlencoded"}
	user, password, err := s.driver.logsPassword()
	if err != nil {
		return nil, fmt.Errorf("query the logs: %w", err)
	}
	if user != "" {
		header = append(header, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	}
	answer, err := s.Do(ctx, http.MethodPost, s.LogsURL+"/select/logsql/query", "", []byte(url.Values{"query": {query}}.Encode()), header...)
	if err != nil {
		return nil, fmt.Errorf("query the logs: %w", err)
	}
	if answer.Status != http.StatusOK {
		return nil, fmt.Errorf("query the logs: %d %s", answer.Status, answer.Body)
	}
	var lines []LogLine
	scan := bufio.NewScanner(bytes.NewReader(answer.Body))
	scan.Buffer(nil, len(answer.Body)+1)
	for scan.Scan() {
		var line LogLine
		if err := json.Unmarshal(scan.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("read a log line: %w: %s", err, scan.Bytes())
		}
		lines = append(lines, line)
	}
	slices.SortStableFunc(lines, func(a, b LogLine) int { return a.Time.Compare(b.Time) })
	return lines, scan.Err()
}

// EventuallyLogged waits until the lines that a query finds satisfy a condition, and returns them: what the box writes
// takes a moment to be found.
func (s *Stack) EventuallyLogged(t testing.TB, query string, condition func([]LogLine) bool) []LogLine {
	t.Helper()
	var lines []LogLine
	deadline := time.Now().Add(waitLimit)
	for {
		var err error
		if lines, err = s.Query(t.Context(), query); err == nil && condition(lines) {
			return lines
		}
		if time.Now().After(deadline) {
			require.NoError(t, err)
			require.Failf(t, "the lines are not in the log", "%s: found %d lines: %+v", query, len(lines), lines[:min(len(lines), 20)])
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// RequireLogged waits until a line of the function's containers has text in it.
func (s *Stack) RequireLogged(t testing.TB, function, text string) {
	t.Helper()
	s.EventuallyLogged(t, fmt.Sprintf("function:=%q", function), func(lines []LogLine) bool {
		return slices.ContainsFunc(lines, func(l LogLine) bool { return strings.Contains(l.Message, text) })
	})
}

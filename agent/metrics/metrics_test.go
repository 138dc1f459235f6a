package metrics

import (
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestServer_AnswersInPrometheusFormat_UntilClosed(t *testing.T) {
	value := int64(0)
	s, err := Open(t.Context(), "127.0.0.1:0", func() []Figure {
		value++
		return []Figure{{"esb_lines_total", Counter, "Lines.", value}, {"esb_backlog_bytes", Gauge, "Bytes.", 7}}
	})
	require.NoError(t, err)
	url := "http://" + s.Addr().String() + "/metrics"
	for _, want := range []string{"1", "2"} {
		resp, err := http.Get(url)
		require.NoError(t, err)
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Contains(t, resp.Header.Get("Content-Type"), "text/plain")
		assert.Equal(t, "# HELP esb_lines_total Lines.\n# TYPE esb_lines_total counter\nesb_lines_total "+want+
			"\n# HELP esb_backlog_bytes Bytes.\n# TYPE esb_backlog_bytes gauge\nesb_backlog_bytes 7\n", string(body))
	}
	_, err = Open(t.Context(), s.Addr().String(), nil)
	assert.ErrorContains(t, err, "AGENT_METRICS_ADDR")
	require.NoError(t, s.Close())
	_, err = http.Get(url)
	assert.Error(t, err)
}

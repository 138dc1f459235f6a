package e2e

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// storeStep is one request to a sample function that uses a store, and what it answers. Members that are not named in want
// may be there.
type storeStep struct {
	body   string
	status int
	want   map[string]any
}

func runSteps(t *testing.T, path string, steps []storeStep) {
	t.Helper()
	for _, step := range steps {
		answer := box.Post(t, path, token, step.body)
		require.Equal(t, step.status, answer.Status, "%s: %s", step.body, answer.Body)
		var got map[string]any
		require.NoError(t, json.Unmarshal(answer.Body, &got), "%s", answer.Body)
		for name, want := range step.want {
			assert.Equal(t, want, got[name], "%s: %s", step.body, name)
		}
	}
}

// The functions hold no endpoint and no key: an AWS SDK as it comes finds the box's stores, whose bucket and table the
// gateway has made of resources.yml.
func TestS3_FunctionPutsGetsListsOverwritesAndDeletes(t *testing.T) {
	const text = "h\u00e9llo \u2713 \\\"quoted\\\"\\n"
	runSteps(t, "/api/s3", []storeStep{
		{`{"action":"get","key":"e2e/one"}`, http.StatusNotFound, nil},
		{`{"action":"overwrite","key":"e2e/one","body":"x"}`, http.StatusNotFound, nil},
		{`{"action":"put","key":"e2e/one","body":"` + text + `"}`, http.StatusOK, map[string]any{"success": true, "bucket": "esb-files"}},
		{`{"action":"put","key":"e2e/two words+ü.txt","body":""}`, http.StatusOK, nil},
		{`{"action":"get","key":"e2e/one"}`, http.StatusOK, map[string]any{"body": "h\u00e9llo \u2713 \"quoted\"\n"}},
		{`{"action":"list","key":"e2e/"}`, http.StatusOK, map[string]any{"keys": []any{"e2e/one", "e2e/two words+ü.txt"}}},
		{`{"action":"overwrite","key":"e2e/one","body":"other"}`, http.StatusOK, nil},
		{`{"action":"get","key":"e2e/one"}`, http.StatusOK, map[string]any{"body": "other"}},
		{`{"action":"delete","key":"e2e/one"}`, http.StatusOK, nil},
		{`{"action":"delete","key":"e2e/two words+ü.txt"}`, http.StatusOK, nil},
		{`{"action":"get","key":"e2e/one"}`, http.StatusNotFound, nil},
		{`{"action":"list","key":"e2e/"}`, http.StatusOK, map[string]any{"keys": []any{}}},
		{`{"action":"get","bucket":"esb-there-is-none","key":"k"}`, http.StatusNotFound, nil},
		{`{"action":"put","bucket":"esb-there-is-none","key":"k"}`, http.StatusForbidden, nil},
	})
}

func TestDynamoDB_FunctionPutsGetsUpdatesAndDeletes(t *testing.T) {
	runSteps(t, "/api/dynamodb", []storeStep{
		{`{"action":"get","id":"e2e"}`, http.StatusNotFound, nil},
		{`{"action":"update","id":"e2e","value":"x"}`, http.StatusNotFound, nil},
		{`{"action":"put","id":"e2e","value":"\u00e9in"}`, http.StatusOK, map[string]any{"success": true, "table": "esb-items"}},
		{`{"action":"get","id":"e2e"}`, http.StatusOK, map[string]any{"value": "\u00e9in"}},
		{`{"action":"update","id":"e2e","value":"zwei"}`, http.StatusOK, map[string]any{"value": "zwei"}},
		{`{"action":"get","id":"e2e"}`, http.StatusOK, map[string]any{"value": "zwei"}},
		{`{"action":"delete","id":"e2e"}`, http.StatusOK, map[string]any{"value": "zwei"}},
		{`{"action":"delete","id":"e2e"}`, http.StatusOK, map[string]any{"value": nil}},
		{`{"action":"get","id":"e2e"}`, http.StatusNotFound, nil},
		{`{"action":"get","table":"esb-there-is-none","id":"e2e"}`, http.StatusNotFound, nil},
		{`{"action":"get","table":"esb-orders","id":"e2e"}`, http.StatusForbidden, nil},
	})
}

func TestReadyz_NamesTheStoresAndTheResources(t *testing.T) {
	answer, err := box.Do(t.Context(), http.MethodGet, box.AdminURL+"/readyz", "", nil)
	require.NoError(t, err)
	var ready struct {
		Dependencies map[string]struct {
			Status string
			Notes  []string
		}
	}
	require.NoError(t, json.Unmarshal(answer.Body, &ready), "%s", answer.Body)
	for _, name := range []string{"s3", "dynamodb", "resources"} {
		require.Contains(t, ready.Dependencies, name)
		assert.Equal(t, "ok", ready.Dependencies[name].Status, name)
	}
	metrics, err := box.Do(t.Context(), http.MethodGet, box.AdminURL+"/metrics", "", nil)
	require.NoError(t, err)
	for _, want := range []string{`esb_resources{status="made",store="dynamodb"} 2`, `esb_resources{status="made",store="s3"} 1`} {
		assert.Contains(t, string(metrics.Body), want, "notes: %v", ready.Dependencies["resources"].Notes)
	}
}

func TestContainerMetrics_TellWhatEachContainerUses(t *testing.T) {
	postEcho(t, "/api/echo")
	const path = "/metrics/containers"
	for url, credentials := range map[string]string{box.AdminURL: "", box.HTTPURL: token, box.HTTPSURL: token} {
		answer, err := box.Do(t.Context(), http.MethodGet, url+path, credentials, nil)
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, answer.Status, "%s: %s", url, answer.Body)
		var got struct {
			Containers []struct {
				Name     string `json:"container_name"`
				ID       string `json:"container_id"`
				Function string
				State    string
				Memory   struct {
					Current uint64 `json:"current_bytes"`
					Peak    uint64 `json:"peak_bytes"`
					Limit   uint64 `json:"limit_bytes"`
				}
				CPU struct {
					Usage float64 `json:"usage_seconds"`
				}
				OOMKills *uint64 `json:"oom_kills"`
			}
		}
		require.NoError(t, json.Unmarshal(answer.Body, &got), "%s", answer.Body)
		found := false
		for _, c := range got.Containers {
			if c.Function != "lambda-echo" || c.State != "RUNNING" {
				continue
			}
			found = true
			assert.True(t, strings.HasPrefix(c.Name, "lambda-lambda-echo-"), c.Name)
			assert.NotEmpty(t, c.ID)
			assert.EqualValues(t, 256<<20, c.Memory.Limit)
			assert.Positive(t, c.Memory.Current)
			assert.Positive(t, c.Memory.Peak)
			assert.Positive(t, c.CPU.Usage)
			assert.NotNil(t, c.OOMKills)
		}
		assert.True(t, found, "the warm container must be listed: %s", answer.Body)
	}
	for _, url := range []string{box.HTTPURL, box.HTTPSURL} {
		answer, err := box.Do(t.Context(), http.MethodGet, url+path, "", nil)
		require.NoError(t, err)
		assert.Equal(t, http.StatusUnauthorized, answer.Status)
	}
}

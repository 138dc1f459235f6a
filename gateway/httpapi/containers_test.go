package httpapi_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/containermetrics"
	"github.com/edge-serverless-box/esb/gateway/httpapi"
)

func TestContainerMetrics_WithATokenAlone(t *testing.T) {
	var failed error
	b := mustOpen(t, returning(`{"statusCode":200}`), func(o *httpapi.Options) {
		o.Containers = func(context.Context) ([]gateway.Container, error) {
			return []gateway.Container{{
				ID: "c1", Name: "lambda-f-1", Function: "f", State: "RUNNING", CreatedAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
				MemoryCurrent: 1, MemoryPeak: 2, MemoryLimit: 3, CPU: 1500 * time.Millisecond, ThrottledPeriods: 4, OOMKills: 5, Processes: 6,
			}}, failed
		}
	})
	const want = `{"containers":[{"container_name":"lambda-f-1","container_id":"c1","function":"f","state":"RUNNING",
		"created_at":"2026-01-02T03:04:05Z","memory":{"current_bytes":1,"peak_bytes":2,"limit_bytes":3},
		"cpu":{"usage_seconds":1.5,"throttled_periods":4},"oom_kills":5,"processes":6}]}`
	bearer := http.Header{"Authorization": {"Bearer " + b.token()}}

	got := b.do("GET", containermetrics.Path, bearer, nil)
	assert.Equal(t, 200, got.status)
	assert.JSONEq(t, want, got.body)

	for name, header := range map[string]http.Header{"nothing": nil, "an API key": {"X-Api-Key": {"key"}}, "a bad token": {"Authorization": {"Bearer x"}}} {
		got = b.do("GET", containermetrics.Path, header, nil)
		assert.Equal(t, 401, got.status, name)
		assert.Equal(t, `{"message":"Unauthorized"}`, got.body, name)
	}
	assert.Equal(t, 404, b.do("POST", containermetrics.Path, bearer, nil).status)

	failed = gateway.Errorf(gateway.CodeUnavailable, "agent at 127.0.0.1:50051: listing containers: refused")
	got = b.do("GET", containermetrics.Path, bearer, nil)
	assert.Equal(t, 503, got.status)
	assert.Equal(t, `{"message":"Service Unavailable"}`, got.body)
}

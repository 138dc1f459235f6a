package codewatch_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/codewatch"
)

// TestWatcher_CodeThatCannotBeLookedAt_SaysWhatKindOfReason: a client of the Invoke API is told whether trying again is of use.
func TestWatcher_CodeThatCannotBeLookedAt_SaysWhatKindOfReason(t *testing.T) {
	status := http.StatusNotFound
	store := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
	defer store.Close()
	s3 := codewatch.NewS3(store.URL, "us-east-1", "key", "secret")
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	dir := t.TempDir()
	require.NoError(t, os.Symlink("/dev/null", filepath.Join(dir, "device")))
	for name, c := range map[string]struct {
		location string
		objects  codewatch.Objects
		status   int
		want     reason.Reason
	}{
		"no object":           {"s3://b/k", s3, http.StatusNotFound, reason.CodeMissing},
		"no leave to read it": {"s3://b/k", s3, http.StatusForbidden, reason.CodeMissing},
		"a store that fails":  {"s3://b/k", s3, http.StatusInternalServerError, reason.StoreAway},
		"a store that is off": {"s3://b/k", codewatch.NewS3(closed.URL, "us-east-1", "key", "secret"), 0, reason.StoreAway},
		"no store at all":     {"s3://b/k", nil, 0, reason.Configuration},
		"no such folder":      {filepath.Join(dir, "nothing"), nil, 0, reason.CodeMissing},
		"neither zip, folder": {filepath.Join(dir, "device"), nil, 0, reason.CodeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			status = c.status
			w, p := mustOpen(t, c.objects, time.Hour)
			w.Set(map[string]*gateway.Function{"f": {Name: "f", Generation: "g", Code: &gateway.FunctionCode{Source: gateway.CodeSource{Location: c.location}}}})
			got := p.get("f")
			assert.Empty(t, got.Code.Source.Version)
			assert.Equal(t, c.want, got.Code.Source.Problem)
		})
	}
}

// TestWatcher_ReasonThatChanges_ReachesThePools, and goes when there is a version.
func TestWatcher_ReasonThatChanges_ReachesThePools(t *testing.T) {
	path := filepath.Join(t.TempDir(), "code")
	w, p := mustOpen(t, nil, 50*time.Millisecond)
	w.Set(map[string]*gateway.Function{"f": {Name: "f", Generation: "g", Code: &gateway.FunctionCode{Source: gateway.CodeSource{Location: path}}}})
	before := p.get("f")
	require.Equal(t, reason.CodeMissing, before.Code.Source.Problem)
	require.NoError(t, os.Symlink("/dev/null", path))
	require.Eventually(t, func() bool { return p.get("f").Code.Source.Problem == reason.CodeInvalid }, patience, 10*time.Millisecond)
	assert.Equal(t, before.Generation, p.get("f").Generation, "no worker is drained for it")
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o755))
	require.Eventually(t, func() bool { return p.get("f").Code.Source.Version != "" }, patience, 10*time.Millisecond)
	assert.Empty(t, p.get("f").Code.Source.Problem)
}

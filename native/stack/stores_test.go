package stack

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native"
)

func TestStoresReady_OneCannotBeStarted_IsNamedWithItsData(t *testing.T) {
	b := mustOpen(t)
	front := func(status int) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		t.Cleanup(server.Close)
		return strings.TrimPrefix(server.URL, "http://")
	}
	b.settings.S3Addrs = []string{front(http.StatusOK)}
	b.settings.DynamoDBAddrs = []string{front(http.StatusInternalServerError)}
	log := filepath.Join(b.settings.ServiceLogDir(native.Stores), "store-db.log")
	require.NoError(t, os.MkdirAll(filepath.Dir(log), 0o700))
	require.NoError(t, os.WriteFile(log, []byte("one\nnot a valid SQLite database\n"), 0o600))

	err := b.ready(t.Context(), native.Stores)
	var missing *missingError
	require.ErrorAs(t, err, &missing)
	assert.True(t, missing.refused)
	assert.ErrorContains(t, err, filepath.Join(b.settings.DataDir, "db"))
	assert.ErrorContains(t, err, "not a valid SQLite database")

	b.settings.DynamoDBAddrs = []string{freeAddr(t)}
	require.ErrorAs(t, b.ready(t.Context(), native.Stores), &missing)
	assert.False(t, missing.refused, "it may be about to listen")
	b.settings.S3Addrs = b.settings.DynamoDBAddrs
	require.Error(t, b.ready(t.Context(), native.Stores))
	assert.NotErrorAs(t, b.ready(t.Context(), native.Stores), &missing, "nothing serves")
}

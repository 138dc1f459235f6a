package app

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// VictoriaLogs' own bound spares the last two days: yesterday goes, and when today alone is too large nothing more is taken.
func TestStores_FloodOfLogs_StaysWithinItsBound(t *testing.T) {
	const maxMB = 16
	b := mustOpen(t, fmt.Sprintf("VICTORIALOGS_MAX_MB=%d", maxMB))
	url := b.logs(t) + "/insert/jsonline?_stream_fields=job&_msg_field=message&_time_field=time"
	used := func() int64 {
		var bytes int64
		_ = filepath.WalkDir(filepath.Join(b.settings.DataDir, "logs"), func(_ string, entry fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // files come and go
			}
			if info, err := entry.Info(); err == nil {
				bytes += info.Sys().(*syscall.Stat_t).Blocks * 512
			}
			return nil
		})
		return bytes
	}
	random := make([]byte, 4096)
	post := func(at time.Time) int {
		var body bytes.Buffer
		for range 128 {
			_, _ = rand.Read(random)
			_, _ = fmt.Fprintf(&body, "{\"time\":%q,\"message\":%q,\"job\":\"lambda\"}\n", at.UTC().Format(time.RFC3339Nano), hex.EncodeToString(random))
		}
		res, err := http.Post(url, "application/stream+json", &body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode
	}
	var most int64
	statuses := map[int]int{}
	flood := func(at time.Time) {
		for range 96 {
			statuses[post(at)]++
			most = max(most, used())
		}
	}
	yesterday := time.Now().Add(-24 * time.Hour)
	flood(yesterday)
	require.Eventually(t, func() bool { return post(time.Now()) == http.StatusOK }, limit, 100*time.Millisecond, "yesterday makes room for today")
	for range 3 {
		flood(time.Now())
	}
	for end := time.Now().Add(15 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		most = max(most, used()) // VictoriaLogs goes on merging what it has
	}
	t.Logf("at most %.1f MB on disk, answers %v", float64(most)/(1<<20), statuses)
	assert.Positive(t, statuses[http.StatusInsufficientStorage])
	// The smallest bound that can be set: what comes within a second is a large part of it.
	assert.Less(t, most, int64(maxMB<<20)*5/4)
}

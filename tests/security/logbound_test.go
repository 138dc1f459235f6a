package security

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/freeport"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// VictoriaLogs' own bound spares the last two days. It is tried on a log store of its own, with the smallest bound.
func TestHostileFunction_FillsNoDisk(t *testing.T) {
	const maxMB, postedMB = 16, 96
	attempt(t, function, fmt.Sprintf("fill the disk with log lines: %d MB of random ones at VICTORIALOGS_MAX_MB=%d", postedMB, maxMB), func(t *testing.T) {
		home := t.TempDir()
		ports, err := freeport.Find(1)
		require.NoError(t, err)
		addr := fmt.Sprintf("127.0.0.1:%d", ports[0])
		stores := exec.Command(filepath.Join(box.BinDir, "stores"), "run", "logs")
		stores.Env = append(os.Environ(), "ESB_HOME="+home, "ESB_BIN_DIR="+box.BinDir, "VICTORIALOGS_ADDR="+addr,
			fmt.Sprintf("VICTORIALOGS_MAX_MB=%d", maxMB), "VICTORIALOGS_PASSWORD=of-this-test")
		stores.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
		require.NoError(t, stores.Start())
		t.Cleanup(func() {
			_ = stores.Process.Signal(syscall.SIGTERM)
			_ = stores.Wait()
		})
		stack.Eventually(t, func() bool {
			res, err := http.Get("http://" + addr + "/health") //nolint:noctx // bound by Eventually
			if err != nil {
				return false
			}
			return res.Body.Close() == nil && res.StatusCode == http.StatusOK
		}, "the log store must serve")

		most, refused := int64(0), 0
		random := make([]byte, 4096)
		for posted := 0; posted < postedMB<<20; {
			var body bytes.Buffer
			for range 128 {
				_, _ = rand.Read(random) // never fails (crypto/rand)
				_, _ = fmt.Fprintf(&body, "{\"message\":%q,\"job\":\"lambda\"}\n", hex.EncodeToString(random))
			}
			posted += body.Len()
			res, err := http.Post("http://esb:of-this-test@"+addr+"/insert/jsonline?_msg_field=message", "application/stream+json", &body) //nolint:noctx // bound by the test
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			if res.StatusCode == http.StatusInsufficientStorage {
				refused++
			}
			most = max(most, onDisk(filepath.Join(home, "data", "logs")))
		}
		// VictoriaLogs goes on merging what it has.
		for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			most = max(most, onDisk(filepath.Join(home, "data", "logs")))
		}
		require.Positive(t, refused)
		require.Less(t, most, int64(maxMB<<20)*5/4, "bytes on disk at most")
	})
}

// onDisk is what a folder takes; files come and go.
func onDisk(dir string) int64 {
	var bytes int64
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // files come and go
		}
		if info, err := entry.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				bytes += st.Blocks * 512
			}
		}
		return nil
	})
	return bytes
}

package security

import (
	"debug/buildinfo"
	"go/version"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// faultless is the first Go release without GO-2026-6617, by which one HTTP/2 client ends a server, and without what was
// found after it; what is known of later ones, .ci/vuln finds.
const faultless = "go1.26.10"

func TestPrograms_AreOfAReleaseWithoutKnownFaults(t *testing.T) {
	attempt(t, client, "use a fault of an old Go release in any program of the box", func(t *testing.T) {
		checked := map[string]bool{}
		entries, err := os.ReadDir(box.BinDir)
		require.NoError(t, err)
		for _, e := range entries {
			// What is no Go program (dynoxide, lock files) has none of its faults.
			info, err := buildinfo.ReadFile(filepath.Join(box.BinDir, e.Name()))
			if err != nil {
				continue
			}
			checked[e.Name()] = true
			assert.GreaterOrEqual(t, version.Compare(info.GoVersion, faultless), 0, "%s is built with %s", e.Name(), info.GoVersion)
		}
		for _, name := range []string{
			"agent", "bridge", "containerd", "containerd-shim-runc-v2", "ctr", "esb-image", "esb-runc", "gateway", "host-local", "lambda-init", "loopback", "registry", "runc",
			"stores", "versitygw", "victoria-logs",
		} {
			assert.True(t, checked[name], "%s is not among the programs", name)
		}
	})
}

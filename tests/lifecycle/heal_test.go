package lifecycle

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/tests/hoststate"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// killAgent ends the agent as a power cut does, and waits for the end of its containerd, which goes with it. Containers live on.
func killAgent(t *testing.T, box *stack.Stack) {
	t.Helper()
	killServices(t, box, "agent")
	stack.Eventually(t, func() bool {
		return !slices.ContainsFunc(mustFindProcesses(t, box), func(p hoststate.Process) bool {
			return slices.Contains([]string{"agent", "containerd"}, filepath.Base(p.Program))
		})
	}, "containerd ends with its agent")
}

// requireNothing looks for what a box has made on the machine. Other boxes may come and go meanwhile.
func requireNothing(t *testing.T, box *stack.Stack) {
	t.Helper()
	for kind, names := range mustRead(t, box) {
		for _, name := range names {
			assert.NotContains(t, name, box.Bridge, kind)
			assert.NotContains(t, name, box.Home, kind)
		}
	}
}

// overwrite puts noise over files, as long as they are.
func overwrite(t *testing.T, files ...string) {
	t.Helper()
	for _, file := range files {
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.NoError(t, os.Chmod(file, 0o600))
		require.NoError(t, os.WriteFile(file, []byte(strings.Repeat("noise", int(info.Size())/5+1))[:info.Size()], 0o600))
	}
}

// cut takes the end of a database away: bbolt doubles a file that has become too small, so the second half of it may be empty yet.
func cut(t *testing.T, database string) {
	t.Helper()
	info, err := os.Stat(database)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(database, info.Size()/3))
}

// below lists what is in a folder.
func below(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, filepath.Join(dir, e.Name()))
	}
	require.NotEmpty(t, out)
	return out
}

func removeAll(t *testing.T, files ...string) {
	t.Helper()
	for _, file := range files {
		require.NoError(t, os.RemoveAll(file))
	}
}

// requireServes invokes functions until they answer: what their images lack is made again meanwhile, which takes a loaded machine longer
// than a request may.
func requireServes(t *testing.T, box *stack.Stack) {
	t.Helper()
	token, err := box.Token(t.Context())
	require.NoError(t, err)
	for path, body := range map[string]string{"/api/echo": `{"message":"x"}`, "/api/chaos": `{"action":"ok"}`} {
		var last string
		stack.Eventually(t, func() bool {
			answer := box.Post(t, path, token, body)
			last = fmt.Sprint(answer.Status, " ", string(answer.Body))
			return answer.Status == http.StatusOK
		}, path+" must serve again")
		t.Log(path, last)
	}
}

// TestUp_ContainerdDamaged_Heals: what a power cut or a bad disk may do to the files of containerd is healed by `up` or by the first
// request, from the image archives, and `down` leaves nothing.
func TestUp_ContainerdDamaged_Heals(t *testing.T) {
	box := mustPrepare(t, stack.Options{Env: []string{
		"S3_ADDR=off", "S3_UI_ADDR=off", "DYNAMODB_ADDR=off", "REGISTRY_ADDR=off", "VICTORIALOGS_ADDR=off",
	}})
	t.Cleanup(func() { _ = box.Down() })
	store := filepath.Join(box.Home, "containerd")
	layers := filepath.Join(store, "io.containerd.snapshotter.v1.overlayfs")
	blobs := filepath.Join(store, "io.containerd.content.v1.content", "blobs", "sha256")
	meta := filepath.Join(store, "io.containerd.metadata.v1.bolt", "meta.db")
	require.NoError(t, box.Up(t.Context()))
	requireServes(t, box)
	for _, c := range []struct {
		name string
		// lives: the containers of before are there when the agent comes back.
		lives, aside bool
		damage       func(*testing.T)
	}{
		{"layers gone", false, false, func(t *testing.T) { removeAll(t, below(t, filepath.Join(layers, "snapshots"))...) }},
		{"list of layers gone", false, true, func(t *testing.T) { removeAll(t, filepath.Join(layers, "metadata.db")) }},
		{"content gone", false, false, func(t *testing.T) { removeAll(t, below(t, blobs)...) }},
		{"content is noise, layers gone", false, false, func(t *testing.T) {
			overwrite(t, below(t, blobs)...)
			removeAll(t, below(t, filepath.Join(layers, "snapshots"))...)
		}},
		{"list of all cut under running containers", true, true, func(t *testing.T) { cut(t, meta) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.lives {
				killAgent(t, box)
			} else {
				require.NoError(t, box.Down())
			}
			_ = os.RemoveAll(filepath.Join(store, "damaged"))
			c.damage(t)
			begin := time.Now()
			out, err := box.Esb(t.Context(), "up")
			require.NoError(t, err, out)
			t.Log("up took", time.Since(begin))
			requireServes(t, box)
			const note = "the store of images was damaged"
			if c.aside {
				assert.Contains(t, out, note)
				assert.NotEmpty(t, below(t, below(t, filepath.Join(store, "damaged"))[0]))
				stack.Eventually(t, func() bool {
					said, err := box.Esb(t.Context(), "admin", "/readyz")
					return err == nil && strings.Contains(said, note)
				}, "readiness says it")
			} else {
				assert.NotContains(t, out, note)
			}
		})
	}
	stack.Eventually(t, func() bool { // what was mended may still be on its way
		said, err := box.Esb(t.Context(), "doctor")
		if err != nil {
			t.Log(said)
		}
		return err == nil && strings.Contains(said, "all is well")
	}, "the doctor must find nothing")
	checkImages(t, box)
	killAll(t, box)
	said, err := box.Esb(t.Context(), "doctor")
	require.Error(t, err)
	assert.Contains(t, said, "containerd-shim-runc-v2")
	said, err = box.Esb(t.Context(), "doctor", "-fix")
	require.NoError(t, err, said)
	requireNothing(t, box)

	// Also when there is no `up` in between, `down` leaves nothing.
	require.NoError(t, box.Up(t.Context()))
	requireServes(t, box)
	killAgent(t, box)
	cut(t, meta)
	said, err = box.Esb(t.Context(), "doctor")
	require.Error(t, err)
	assert.Contains(t, said, "the store of images in "+store+" is damaged")
	require.NoError(t, box.Down())
	requireNothing(t, box)
}

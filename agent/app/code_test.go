package app

import (
	"archive/zip"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/edge-serverless-box/esb/api/codeversion"
	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
)

// mustZip writes a zip file.
func mustZip(t *testing.T, path string, entries ...entry) {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		h.SetMode(fs.FileMode(e.mode))
		out, err := w.CreateHeader(h)
		require.NoError(t, err)
		_, err = out.Write(e.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o644))
}

// local is a source in the version that it has now.
func local(t *testing.T, path string) *agentv1.CodeSource {
	t.Helper()
	version, err := codeversion.Of(t.Context(), path)
	require.NoError(t, err)
	return &agentv1.CodeSource{Location: path, Version: version}
}

// TestAgent_Code runs code that is in no image.
func TestAgent_Code(t *testing.T) {
	s := mustSettings(t)
	dir := t.TempDir()
	fn := filepath.Join(dir, "fn")
	mustBuild(t, "./testdata/fn", fn)
	program, err := os.ReadFile(fn)
	require.NoError(t, err)
	mustArchive(t, filepath.Join(s.ArchivesDir, "provided.tar"), "esb/runtime-provided:latest", fn, "base")
	code, layer := filepath.Join(dir, "code.zip"), filepath.Join(dir, "layer")
	mustZip(t, code, entry{"bootstrap", program, 0o755}, entry{"data", []byte("code 1"), 0o600})
	require.NoError(t, os.Mkdir(layer, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(layer, "data"), []byte("layer"), 0o600))
	s.S3Endpoint = "http://127.0.0.1:1" // nobody listens there
	b := mustStart(t, s)
	want := func() *agentv1.EnsureContainerRequest {
		r := request(supervised, nil)
		r.Image, r.Runtime = "", "provided.al2023"
		r.Code, r.Layers = local(t, code), []*agentv1.CodeSource{local(t, layer)}
		return r
	}

	first := b.ensure(t, want())
	got := invoke(t, first)
	for k, v := range map[string]any{"task": "code 1", "opt": "layer", "write_task": "refused", "write_opt": "refused"} {
		assert.Equal(t, v, got[k], k)
	}
	env, _ := got["env"].(map[string]any)
	assert.Equal(t, "bootstrap", env["_HANDLER"])
	assert.Equal(t, "/var/task", env["LAMBDA_TASK_ROOT"])

	t.Run("a new version is for new containers", func(t *testing.T) {
		old := want()
		mustZip(t, code, entry{"bootstrap", program, 0o755}, entry{"data", []byte("code 2"), 0o600})
		r := want()
		r.Handler = "mine"
		w := b.ensure(t, r)
		got := invoke(t, w)
		assert.Equal(t, "code 2", got["task"])
		assert.Equal(t, "mine", got["env"].(map[string]any)["_HANDLER"])
		assert.Equal(t, "code 1", invoke(t, first)["task"])
		// One that is kept runs on although its file is gone.
		w2 := b.ensure(t, old)
		assert.Equal(t, "code 1", invoke(t, w2)["task"])
		b.destroy(t, w.GetId())
		b.destroy(t, w2.GetId())
	})

	t.Run("what cannot run is refused with the reason", func(t *testing.T) {
		r := want()
		r.Code.Version = codeversion.Content + "0000000000000000000000000000000000000000000000000000000000000000"
		b.refused(t, r, codes.Unavailable, code, "holds another version")
		r = want()
		r.Runtime, r.Handler = "python3.99", "app.handler"
		b.refused(t, r, codes.FailedPrecondition, "runtime python3.99: this box has no base image for it, it has: provided.al2023;")
		plain := filepath.Join(dir, "plain.zip")
		mustZip(t, plain, entry{"bootstrap", program, 0o644})
		r = want()
		r.Code = local(t, plain)
		b.refused(t, r, codes.FailedPrecondition, plain, "is not executable")
		r = want()
		r.Code = &agentv1.CodeSource{Location: "s3://b/k.zip", Version: "etag:1"}
		b.refused(t, r, codes.Unavailable, "S3_ENDPOINT")
		r = want()
		r.Image = "test/fn:1"
		b.refused(t, r, codes.InvalidArgument, "code: excludes image")
	})

	t.Run("mounted code outlives the agent and the cache's limit", func(t *testing.T) {
		b.stop()
		s.CodeCacheMB = 0
		b = mustStart(t, s)
		assert.Equal(t, "code 1", invoke(t, first)["task"])
		// At the start, the tree of "code 2" and whatever else is unused has gone: pruning is the first thing it does.
		assert.Eventually(t, func() bool {
			trees, err := os.ReadDir(filepath.Join(s.Home, "code", "trees"))
			return err == nil && len(trees) == 2
		}, patience, 10*time.Millisecond)
		assert.Equal(t, "code 1", invoke(t, first)["task"])
		b.destroy(t, first.GetId())
	})
}

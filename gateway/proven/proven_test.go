package proven_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/edge-serverless-box/esb/gateway/proven"
)

func proof() pool.Proof {
	return pool.Proof{Digest: "sha256:1", Function: gateway.Function{
		Name: "f", Code: &gateway.FunctionCode{
			Source: gateway.CodeSource{Location: "s3://b/k", Version: "v1"}, Layers: []gateway.CodeSource{{Location: "/l", Version: "l1"}},
			Runtime: "python3.11", Handler: "app.handler",
		},
		PullPolicy: "never", Environment: map[string]string{"A": "b"}, Timeout: 3 * time.Second, MemoryMB: 128, EphemeralStorageMB: 512,
		Interface: gateway.RIE, Entrypoint: []string{"a"}, Command: []string{"b"}, WorkingDirectory: "/w",
		Logging: gateway.Logging{JSON: true, SystemLevel: "WARN"}, Freeze: true, AllowLoops: true,
		Generation: "g", ImageDigest: "sha256:1", BaseGeneration: "base",
	}}
}

func TestStore_OutlivesItsProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "proven.json")
	s := proven.Open(path, slog.New(slog.DiscardHandler))
	_, ok := s.Proof("f")
	assert.False(t, ok)
	kept := proof()
	kept.Function.Scaling.MaxCapacity = 5
	kept.Function.Invoke = []string{"g"}
	s.Keep("f", kept)
	s.Keep("gone", kept)
	s.Forget(func(function string) bool { return function == "gone" })
	require.NoError(t, s.Close())
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())

	s = proven.Open(path, slog.New(slog.DiscardHandler))
	got, ok := s.Proof("f")
	require.True(t, ok)
	assert.Equal(t, proof(), got, "all that a container is made of, and nothing else")
	_, ok = s.Proof("gone")
	assert.False(t, ok)
	require.NoError(t, os.Remove(path))
	s.Keep("f", kept)
	require.NoError(t, s.Close())
	assert.NoFileExists(t, path, "it has not changed")
}

// TestStore_IsWrittenWhileItsProcessLives: it may be killed, or the power cut.
func TestStore_IsWrittenWhileItsProcessLives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "proven.json")
	s := proven.Open(path, slog.New(slog.DiscardHandler))
	s.Keep("f", proof())
	require.Eventually(t, func() bool { _, err := os.Stat(path); return err == nil }, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, s.Close())
}

func TestStore_DamagedFile_IsPutAside(t *testing.T) {
	for _, text := range []string{"", "{", `{"version":9}`, `{"functions":7}`, `{"functions":{"f":{"Function":{"MemoryMB":"x"}}}}`} {
		t.Run(text, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "proven.json")
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			var out bytes.Buffer
			s := proven.Open(path, slog.New(slog.NewTextHandler(&out, nil)))
			_, ok := s.Proof("f")
			assert.False(t, ok)
			assert.Contains(t, out.String(), path)
			assert.FileExists(t, path+".broken")
			s.Keep("f", proof())
			require.NoError(t, s.Close())
			assert.FileExists(t, path)
		})
	}
}

// TestStore_FileThatCannotBeRead_IsKept: no descriptor may be left, or the disk may not answer; what it has may be whole.
func TestStore_FileThatCannotBeRead_IsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "proven.json")
	before := proven.Open(path, slog.New(slog.DiscardHandler))
	before.Keep("f", proof())
	before.Keep("gone", proof())
	require.NoError(t, before.Close())
	// A folder of that name stands for what is in the way, for root too.
	require.NoError(t, os.Rename(path, path+".away"))
	require.NoError(t, os.Symlink(t.TempDir(), path))

	var out bytes.Buffer
	s := proven.Open(path, slog.New(slog.NewTextHandler(&out, nil)))
	_, ok := s.Proof("f")
	assert.False(t, ok)
	newer := proof()
	newer.Function.Generation = "newer"
	s.Keep("g", newer)
	s.Keep("gone", newer)
	s.Forget(func(function string) bool { return function == "gone" })
	assert.NoFileExists(t, path+".broken")
	assert.NoDirExists(t, path+".broken")
	got, ok := s.Proof("g")
	assert.True(t, ok)
	assert.Equal(t, newer, got, "what is seen meanwhile is known")
	require.NoError(t, os.Rename(path+".away", path))
	require.NoError(t, s.Close())
	assert.Equal(t, 1, strings.Count(out.String(), "cannot be read"), out.String())

	s = proven.Open(path, slog.New(slog.DiscardHandler))
	for function, want := range map[string]pool.Proof{"f": proof(), "g": newer} {
		got, ok := s.Proof(function)
		require.True(t, ok, function)
		assert.Equal(t, want, got)
	}
	_, ok = s.Proof("gone")
	assert.False(t, ok)
	require.NoError(t, s.Close())
}

package npm

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func mustPack(t *testing.T, files map[string]string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "p.tgz")
	out, err := os.Create(name)
	require.NoError(t, err)
	zipped := gzip.NewWriter(out)
	archive := tar.NewWriter(zipped)
	for path, content := range files {
		require.NoError(t, archive.WriteHeader(&tar.Header{Name: path, Size: int64(len(content)), Mode: 0o644}))
		_, err := archive.Write([]byte(content))
		require.NoError(t, err)
	}
	require.NoError(t, errors.Join(archive.Close(), zipped.Close(), out.Close()))
	return name
}

func TestExtract_WantedFile_IsExecutable(t *testing.T) {
	dir := t.TempDir()
	pack := mustPack(t, map[string]string{"package/bin/node": "binary", "package/README.md": "text"})
	require.NoError(t, extract(pack, dir, []string{"bin/node"}))
	info, err := os.Stat(filepath.Join(dir, "node"))
	require.NoError(t, err)
	assert.NotZero(t, info.Mode()&0o100)
	assert.NoFileExists(t, filepath.Join(dir, "README.md"))

	assert.ErrorContains(t, extract(pack, dir, []string{"bin/other"}), "bin/other")
}

func TestCheck_OtherContent_IsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(file, []byte("abc"), 0o600))
	// sha512 of "abc", FIPS 180-4.
	p := Package{Name: "p", Version: "1",
		Integrity: "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=="}
	require.NoError(t, p.check(file))
	require.NoError(t, os.WriteFile(file, []byte("abd"), 0o600))
	assert.ErrorContains(t, p.check(file), "p 1: the download's integrity is sha512-")
}

func TestPackage_NoNpm_SaysWhatToDo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	assert.ErrorIs(t, Package{}.Extract(context.Background(), t.TempDir()), ErrNoNpm)
	assert.ErrorIs(t, Install(context.Background(), t.TempDir(), nil, nil), ErrNoNpm)
}

func TestInstall_LockFileIsMissing_SaysWhatNpmSays(t *testing.T) {
	if !Available() {
		t.Skip("npm is not installed on this machine")
	}
	dir := t.TempDir()
	assert.ErrorContains(t, Install(context.Background(), dir, []byte(`{"name":"x","dependencies":{"y":"1.0.0"}}`), []byte(`{}`)), "npm ci")
	assert.NoDirExists(t, filepath.Join(dir, "node_modules"))
}

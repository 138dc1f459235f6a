package secretfile_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/secretfile"
)

func TestOpen_MakesOneSecretForAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "secret")
	const programs = 20
	secrets := make([]string, programs)
	var wg sync.WaitGroup
	for i := range programs {
		wg.Go(func() {
			secret, err := secretfile.Open(path)
			assert.NoError(t, err)
			secrets[i] = secret
		})
	}
	wg.Wait()
	for _, secret := range secrets {
		assert.Len(t, secret, 64)
		assert.Equal(t, secrets[0], secret)
	}
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "no temporary file is left")
}

func TestRead_RefusesWhatOthersMayRead(t *testing.T) {
	for _, mode := range []fs.FileMode{0o644, 0o640, 0o604, 0o620} {
		path := filepath.Join(t.TempDir(), "secret")
		require.NoError(t, os.WriteFile(path, []byte("s3cret\n"), 0o600))
		require.NoError(t, os.Chmod(path, mode))
		_, err := secretfile.Open(path)
		require.ErrorContains(t, err, path)
		assert.ErrorContains(t, err, "chmod 600")
		assert.NotContains(t, err.Error(), "s3cret")
	}
}

func TestCheckGiven_TakesAGroupOfReaders(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	require.ErrorIs(t, secretfile.CheckGiven(path), fs.ErrNotExist)
	require.NoError(t, os.WriteFile(path, []byte("s3cret\n"), 0o600))
	for mode, good := range map[fs.FileMode]bool{0o600: true, 0o400: true, 0o640: true, 0o644: false, 0o660: false, 0o604: false} {
		require.NoError(t, os.Chmod(path, mode))
		if err := secretfile.CheckGiven(path); good {
			assert.NoError(t, err, "%04o", mode)
		} else {
			assert.ErrorContains(t, err, "chmod 600 "+path, "%04o", mode)
		}
	}
}

func TestRead_EmptyOrMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	_, err := secretfile.Read(path)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.WriteFile(path, []byte(" \n"), 0o600))
	_, err = secretfile.Open(path)
	assert.ErrorContains(t, err, "is empty")
}

func TestOpen_SweepsWhatAKilledProgramHasLeft(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, ".secret.123456")
	require.NoError(t, os.WriteFile(left, []byte("hush"), 0o600))
	then := time.Now().Add(-time.Hour)
	require.NoError(t, os.Chtimes(left, then, then))
	_, err := secretfile.Open(filepath.Join(dir, "secret"))
	require.NoError(t, err)
	assert.NoFileExists(t, left)
}

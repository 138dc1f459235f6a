package release

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native"
)

func mustWrite(t *testing.T, file, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
}

// mustMake makes a release whose one program is this test's own, with an image and functions that say something.
func mustMake(t *testing.T, version, says string) Release {
	t.Helper()
	dir := t.TempDir()
	program, err := os.Executable()
	require.NoError(t, err)
	data, err := os.ReadFile(program)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "gateway"), data, 0o755))
	for _, name := range []string{"functions.yml", "routing.yml", "resources.yml", "code/handler.py"} {
		mustWrite(t, filepath.Join(dir, "etc", name), says)
	}
	mustWrite(t, filepath.Join(dir, "images", "one.tar"), says)
	r, err := Make(filepath.Join(dir, "release"), version, Contents{
		Programs: map[string][]string{"gateway": {filepath.Join(dir, "gateway")}},
		Images:   filepath.Join(dir, "images"), Samples: filepath.Join(dir, "etc"), Code: []string{"code"},
	})
	require.NoError(t, err)
	return r
}

func TestMake_SameContent_IsTheSameVersion(t *testing.T) {
	one, again, other := mustMake(t, "", "x"), mustMake(t, "", "x"), mustMake(t, "", "y")
	assert.Equal(t, one.Version, again.Version)
	assert.NotEqual(t, one.Version, other.Version)
	require.NoError(t, one.Verify())
	stamp := func(r Release) string {
		data, err := os.ReadFile(filepath.Join(r.Dir, Stamps, "gateway"))
		require.NoError(t, err)
		return string(data)
	}
	assert.Equal(t, stamp(one), stamp(other), "the same program is not started again for another image")
}

func TestVerify_AnythingElseThanTheChecksumsSay_IsRefused(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"a changed file": func(dir string) error { return os.WriteFile(filepath.Join(dir, Images, "one.tar"), []byte("z"), 0o644) },
		"a missing file": func(dir string) error { return os.Remove(filepath.Join(dir, Samples, "functions.yml")) },
		"a further file": func(dir string) error { return os.WriteFile(filepath.Join(dir, "runc"), []byte("z"), 0o755) },
		"a link":         func(dir string) error { return os.Symlink("/etc/passwd", filepath.Join(dir, "x")) },
		"no checksums":   func(dir string) error { return os.Remove(filepath.Join(dir, checksums)) },
		"another release": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, manifest), []byte(`{"version":"9"}`), 0o644)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := mustMake(t, "", "x")
			require.NoError(t, damage(r.Dir))
			err := r.Verify()
			require.NotEmpty(t, native.Problems(err), "%v", err)
			l := Layout{Prefix: t.TempDir()}
			_, err = l.Fetch(r.Dir)
			require.Error(t, err)
			left, err := os.ReadDir(l.Base())
			require.NoError(t, err)
			assert.Empty(t, left, "nothing of it stays")
		})
	}
}

func TestVerify_ProgramOfAnotherMachine_IsRefused(t *testing.T) {
	r := mustMake(t, "", "x")
	mustWrite(t, filepath.Join(r.Dir, "gateway"), "#!/bin/sh\n")
	sums, err := sum(r.Dir)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(r.Dir, checksums), format(sums), 0o644))
	err = r.Verify()
	require.ErrorContains(t, err, "gateway cannot run on this machine")
	r.Arch = "riscv64"
	require.ErrorContains(t, r.Verify(), "made for riscv64")
}

func TestFetch_FolderAndArchives(t *testing.T) {
	r := mustMake(t, "", "x")
	for _, name := range []string{"r.tar.gz", "r.tar.zst"} {
		t.Run(name, func(t *testing.T) {
			archive := filepath.Join(t.TempDir(), name)
			require.NoError(t, Pack(r.Dir, archive))
			l := Layout{Prefix: t.TempDir()}
			got, err := l.Fetch(archive)
			require.NoError(t, err)
			assert.Equal(t, l.Dir(r.Version), got.Dir)
			require.NoError(t, got.Verify())
			info, err := os.Stat(filepath.Join(got.Dir, "gateway"))
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o755), info.Mode().Perm())
			require.NoError(t, l.Switch(got.Version))
			again, err := l.Fetch(r.Dir)
			require.NoError(t, err, "it is there already")
			assert.Equal(t, got.Dir, again.Dir)

			data, err := os.ReadFile(archive)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(archive, data[:len(data)/2], 0o644))
			_, err = l.Fetch(archive)
			require.Error(t, err)
			versions, err := l.Versions()
			require.NoError(t, err)
			assert.Equal(t, []string{r.Version}, versions)
		})
	}
}

func TestFetch_OneVersionWithTwoContents_IsRefused(t *testing.T) {
	l := Layout{Prefix: t.TempDir()}
	_, err := l.Fetch(mustMake(t, "1.0", "x").Dir)
	require.NoError(t, err)
	_, err = l.Fetch(mustMake(t, "1.0", "y").Dir)
	require.ErrorContains(t, err, "another release 1.0")
}

func TestFetch_DamagedReleaseThatIsNotInUse_MakesRoom(t *testing.T) {
	l, r := Layout{Prefix: t.TempDir()}, mustMake(t, "1.0", "x")
	got, err := l.Fetch(r.Dir)
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(got.Dir, "gateway")))
	got, err = l.Fetch(r.Dir)
	require.NoError(t, err)
	require.NoError(t, got.Verify())
}

func TestFetch_DamagedPresentRelease_IsMendedInItsPlace(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"a changed file": func(dir string) error { return os.WriteFile(filepath.Join(dir, "gateway"), []byte("z"), 0o755) },
		"a missing file": func(dir string) error { return os.Remove(filepath.Join(dir, Samples, "functions.yml")) },
		"no manifest":    func(dir string) error { return os.Remove(filepath.Join(dir, manifest)) },
		"no checksums":   func(dir string) error { return os.Remove(filepath.Join(dir, checksums)) },
		"torn checksums": func(dir string) error { return os.WriteFile(filepath.Join(dir, checksums), []byte("12"), 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			l, r := Layout{Prefix: t.TempDir()}, mustMake(t, "1.0", "x")
			got, err := l.Fetch(r.Dir)
			require.NoError(t, err)
			assert.False(t, got.Mended)
			require.NoError(t, l.Switch("1.0"))
			require.NoError(t, damage(got.Dir))

			got, err = l.Fetch(r.Dir)
			require.NoError(t, err)
			assert.True(t, got.Mended)
			require.NoError(t, got.Verify())
			version, err := l.CurrentVersion()
			require.NoError(t, err)
			assert.Equal(t, "1.0", version)
			left, err := filepath.Glob(filepath.Join(l.Base(), ".new-*"))
			require.NoError(t, err)
			assert.Empty(t, left)
		})
	}
}

func TestFetch_DamagedPresentRelease_AnotherOfItsVersionIsRefused(t *testing.T) {
	l := Layout{Prefix: t.TempDir()}
	got, err := l.Fetch(mustMake(t, "1.0", "x").Dir)
	require.NoError(t, err)
	require.NoError(t, l.Switch("1.0"))
	require.NoError(t, os.Remove(filepath.Join(got.Dir, "gateway")))
	_, err = l.Fetch(mustMake(t, "1.0", "y").Dir)
	require.ErrorContains(t, err, "another release 1.0")
}

func TestCheckVersion(t *testing.T) {
	for _, bad := range []string{"", "current", "previous", "trial.json", "../x", ".new-1", "a b", strings.Repeat("x", 65)} {
		assert.Error(t, CheckVersion(bad), bad)
	}
	assert.NoError(t, CheckVersion("1.2.3-rc+x"))
}

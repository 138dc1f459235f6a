package debian

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestGraph_Closure_FollowsKeptDependencies(t *testing.T) {
	graph := parseGraph([]byte(`python3.11-minimal
  PreDepends: libc6
  Depends: libpython3.11-minimal
  Depends: zlib1g
libpython3.11-minimal
  Depends: libssl3
 |Depends: media-types
  Depends: <mime-support>
    mailcap
zlib1g
  Depends: libc6
libssl3
  Depends: debconf
  Depends: libc6:any
debconf
  Depends: libperl
`))
	keep := func(name string) bool { return strings.HasPrefix(name, "lib") || name == "zlib1g" }
	assert.Equal(t, []string{"libc6", "libpython3.11-minimal", "libssl3", "python3.11-minimal", "zlib1g"},
		graph.Closure(keep, "python3.11-minimal"))
	assert.Equal(t, []string{"libpython3.11-minimal", "libssl3", "python3.11-minimal"},
		graph.Closure(func(name string) bool { return keep(name) && name != "libc6" && name != "zlib1g" }, "python3.11-minimal"))
	assert.Contains(t, graph["libpython3.11-minimal"], "media-types", "alternatives count")
	assert.NotContains(t, graph["libpython3.11-minimal"], "mailcap")
}

func TestUnpack_OldLayout_MovesLibrariesBelowUsr(t *testing.T) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("dpkg-deb is not installed on this machine")
	}
	source := t.TempDir()
	for name, content := range map[string]string{
		"DEBIAN/control":   "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n",
		"lib/x/libold.so":  "old",
		"usr/lib/x/lib.so": "new",
	} {
		path := filepath.Join(source, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	}
	deb := filepath.Join(t.TempDir(), "x_1_all.deb")
	out, err := exec.Command("dpkg-deb", "--build", "--root-owner-group", source, deb).CombinedOutput()
	require.NoError(t, err, string(out))

	root := t.TempDir()
	require.NoError(t, Unpack(context.Background(), deb, root))
	assert.FileExists(t, filepath.Join(root, "usr/lib/x/libold.so"))
	assert.FileExists(t, filepath.Join(root, "usr/lib/x/lib.so"))
	target, err := os.Readlink(filepath.Join(root, "lib"))
	require.NoError(t, err)
	assert.Equal(t, "usr/lib", target)

	require.NoError(t, os.WriteFile(deb, []byte("broken"), 0o600))
	assert.ErrorContains(t, Unpack(context.Background(), deb, t.TempDir()), "x_1_all.deb")
}

func TestLibraries_Interpreter_FindsTransitively(t *testing.T) {
	shell, err := filepath.EvalSymlinks("/bin/sh")
	require.NoError(t, err)
	loader, err := Loader(shell)
	if err != nil {
		t.Skipf("/bin/sh of this machine is not dynamic: %v", err)
	}
	found, err := Libraries("/", map[string]bool{filepath.Base(loader): true}, shell)
	require.NoError(t, err)
	assert.Contains(t, found, "libc.so.6")
	for name, path := range found {
		assert.FileExists(t, path, name)
	}

	_, err = Libraries(t.TempDir(), nil, shell)
	assert.ErrorContains(t, err, "which none of the unpacked packages has")
	_, err = Libraries("/", nil, "/etc/passwd")
	assert.ErrorContains(t, err, "/etc/passwd")
}

func TestNew_NoTools_SaysWhatToDo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := New(nil)
	assert.True(t, errors.Is(err, ErrNoApt))
}

package main

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/functions/imagebuild"
)

func mustRun(t *testing.T, args ...string) {
	t.Helper()
	require.NoError(t, run(context.Background(), args, io.Discard))
}

func mustConfig(t *testing.T, file string) (v1.Config, int) {
	t.Helper()
	archive, err := imagebuild.OpenArchive(file)
	require.NoError(t, err)
	defer func() { _ = archive.Close() }()
	settings, err := archive.ConfigFile()
	require.NoError(t, err)
	layers, err := archive.Layers()
	require.NoError(t, err)
	return settings.Config, len(layers)
}

func TestBuild_BinaryThenOnTop(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	require.NoError(t, os.WriteFile(program, []byte("#!"), 0o600))
	base, top := filepath.Join(dir, "base.tar"), filepath.Join(dir, "top.tar")
	mustRun(t, "build", "-tag", "esb/base:1", "-out", base, "-binary", program, "-env", "A=1=2", "-workdir", "/tmp", "-mkdir", "/data")
	config, layers := mustConfig(t, base)
	assert.Equal(t, v1.Config{Entrypoint: []string{"/var/task/bootstrap"}, Env: []string{"A=1=2"}, WorkingDir: "/tmp"}, config)
	assert.Equal(t, 1, layers)

	mustRun(t, "build", "-tag", "esb/top:1", "-out", top, "-base", base, "-entrypoint", `["/bin/a","b c"]`, "-cmd", "x y",
		"-file", "/bin/a="+program, "-user", "1000", "-label", "l=v")
	config, layers = mustConfig(t, top)
	assert.Equal(t, v1.Config{Entrypoint: []string{"/bin/a", "b c"}, Cmd: []string{"x", "y"}, Env: []string{"A=1=2"},
		WorkingDir: "/tmp", User: "1000", Labels: map[string]string{"l": "v"}}, config)
	assert.Equal(t, 2, layers)
}

func TestRun_BadArguments_SayWhatToDo(t *testing.T) {
	out := filepath.Join(t.TempDir(), "x.tar")
	code := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(code, "app.py"), nil, 0o600))
	cases := []struct {
		args []string
		want string
	}{
		{[]string{"paint"}, `no command "paint"`},
		{[]string{"build-samples"}, "-out is required"},
		{[]string{"build", "-out", out}, "-tag and -out are required"},
		{[]string{"build", "-tag", "x", "-out", out, "-base", "/nothere.tar"}, "-base must be scratch, provided, python, nodejs or an archive"},
		{[]string{"build", "-tag", "x", "-out", out, "-env", "A"}, "-env A: must be name=value"},
		{[]string{"build", "-tag", "x", "-out", out, "-file", "/a"}, "-file /a: must be"},
		{[]string{"build", "-tag", "x", "-out", out, "-binary", "/nothere"}, "no such file"},
		{[]string{"build", "-tag", "X!", "-out", out}, "must be name[:tag]"},
		{[]string{"build", "-tag", "x", "-out", out, "-handler", "a.b", "-cmd", "c"}, "-handler and -cmd exclude each other"},
		{[]string{"build", "-tag", "x", "-out", out, "-base", "python", "-dir", code}, "-base python needs -handler"},
		{[]string{"build", "-tag", "x", "-out", out, "-base", "nodejs", "-dir", code}, "-base nodejs needs -handler"},
		{[]string{"build", "-tag", "x", "-out", out, "-base", "python", "-dir", code, "-handler", "handler"}, "-handler handler: must be module.function"},
		{[]string{"build", "-tag", "x", "-out", out, "-base", "python", "-dir", code, "-handler", "other.handler"}, code + " has none of other.py, other/__init__.py"},
		{[]string{"build", "-tag", "x", "-out", out, "-base", "nodejs", "-dir", code, "-cmd", "src/index.handler"}, "has none of src/index.js, src/index.mjs"},
		{[]string{"build", "-tag", "x", "-out", out, "-base", "python", "-dir", "nodir", "-handler", "a.b"}, "-dir nodir: the code folder cannot be read"},
		{[]string{"build", "-tag", "x", "-out", out, "-dir", filepath.Join(code, "app.py")}, "it is no folder"},
		{[]string{"push", "x.tar"}, "-ref and one archive are required"},
	}
	for _, c := range cases {
		err := run(context.Background(), c.args, io.Discard)
		assert.ErrorContains(t, err, c.want, "%v", c.args)
	}
	assert.NoFileExists(t, out)
	assert.ErrorIs(t, run(context.Background(), nil, io.Discard), flag.ErrHelp)
}

func TestCheck_HandlerThatIsThere_Passes(t *testing.T) {
	code := t.TempDir()
	for _, name := range []string{"app.py", "pkg/deep/mod.py", "native.cpython-311-x86_64-linux-gnu.so", "src/index.mjs", "lib/index.js"} {
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(code, name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(code, name), nil, 0o600))
	}
	for handler, base := range map[string]string{"app.handler": "python", "pkg/deep/mod.handler": "python", "pkg.deep.mod.handler": "python",
		"native.handler": "python", "src/index.get.deep": "nodejs", "lib.handler": "nodejs", "/opt/nodejs/wrap.handler": "nodejs"} {
		r := recipe{base: base, dir: code, handler: handler}
		assert.NoError(t, r.check(slog.New(slog.DiscardHandler)), handler)
	}
	assert.NoError(t, (&recipe{base: "python"}).check(nil), "an image that others are made of")
}

func TestDefaultCache_IsThatOfUp(t *testing.T) {
	repository := t.TempDir()
	cache := filepath.Join(repository, ".esb", "cache", "images")
	require.NoError(t, os.MkdirAll(cache, 0o755))
	deep := filepath.Join(repository, "functions", "mine")
	require.NoError(t, os.MkdirAll(deep, 0o755))
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", "")
	for dir, want := range map[string]string{
		repository:  cache,
		deep:        cache,
		t.TempDir(): filepath.Join(os.Getenv("HOME"), ".cache", "esb-image"),
	} {
		t.Chdir(dir)
		got, err := defaultCache()
		require.NoError(t, err)
		resolved, _ := filepath.EvalSymlinks(want)
		assert.Contains(t, []string{want, resolved}, got, dir)
	}
}

func TestRegistryCredentials_AreThoseOfTheBoxForItsOwnRegistry(t *testing.T) {
	home := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(home, "data"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(home, "data", "registry.password"), []byte("kept\n"), 0o600))
	given := filepath.Join(home, "given")
	require.NoError(t, os.WriteFile(given, []byte("given"), 0o600))
	for name, c := range map[string]struct {
		ref, user, file string
		env             map[string]string
		want            [2]string
	}{
		"the box's":              {ref: "127.0.0.1:5010/a:1", env: map[string]string{"ESB_HOME": home}, want: [2]string{"esb", "kept"}},
		"another machine's":      {ref: "registry.example/a:1", env: map[string]string{"ESB_HOME": home}},
		"no box":                 {ref: "localhost:5010/a:1", env: map[string]string{"ESB_HOME": given}},
		"set":                    {ref: "127.0.0.1:5010/a:1", env: map[string]string{"ESB_HOME": home, "ESB_REGISTRY_PASSWORD": "set", "ESB_REGISTRY_USER": "me"}, want: [2]string{"me", "set"}},
		"a file that is set":     {ref: "127.0.0.1:5010/a:1", env: map[string]string{"ESB_REGISTRY_PASSWORD_FILE": given}, want: [2]string{"esb", "given"}},
		"flags before variables": {ref: "127.0.0.1:5010/a:1", user: "you", file: given, env: map[string]string{"ESB_REGISTRY_PASSWORD": "set"}, want: [2]string{"you", "given"}},
	} {
		user, password, err := registryCredentials(c.ref, c.user, c.file, func(name string) string { return c.env[name] })
		require.NoError(t, err, name)
		assert.Equal(t, c.want, [2]string{user, password}, name)
	}
	_, _, err := registryCredentials("a/b", "", filepath.Join(home, "none"), os.Getenv)
	require.Error(t, err)
}

package main

import (
	"context"
	"flag"
	"io"
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
		{[]string{"push", "x.tar"}, "-ref and one archive are required"},
	}
	for _, c := range cases {
		err := run(context.Background(), c.args, io.Discard)
		assert.ErrorContains(t, err, c.want, "%v", c.args)
	}
	assert.NoFileExists(t, out)
	assert.ErrorIs(t, run(context.Background(), nil, io.Discard), flag.ErrHelp)
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

package release

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mustInstall makes an installation with releases of those versions, the first of which is the present one.
func mustInstall(t *testing.T, versions ...string) Layout {
	t.Helper()
	l := Layout{Prefix: t.TempDir()}
	for _, version := range versions {
		mustWrite(t, filepath.Join(l.Dir(version), manifest), `{"version":"`+version+`"}`)
	}
	require.NoError(t, l.Switch(versions[0]))
	return l
}

func requireVersions(t *testing.T, l Layout, current, previous string) {
	t.Helper()
	is, err := l.CurrentVersion()
	require.NoError(t, err)
	assert.Equal(t, current, is)
	is, err = l.PreviousVersion()
	require.NoError(t, err)
	assert.Equal(t, previous, is)
}

func TestTrial_AcceptAndUndo(t *testing.T) {
	l := mustInstall(t, "1", "2", "3")
	require.NoError(t, l.Undo(), "there is nothing to undo")
	require.NoError(t, l.Try("2"))
	requireVersions(t, l, "2", "")
	require.NoError(t, l.Undo())
	requireVersions(t, l, "1", "")
	_, on := l.Trial()
	assert.False(t, on)

	require.NoError(t, l.Try("2"))
	require.NoError(t, l.Accept())
	requireVersions(t, l, "2", "1")
	require.NoError(t, l.Try("3"))
	require.NoError(t, l.Prune(), "while one is on trial, none goes")
	require.NoError(t, l.Accept())
	requireVersions(t, l, "3", "2")
	require.NoError(t, l.Prune())
	versions, err := l.Versions()
	require.NoError(t, err)
	assert.Equal(t, []string{"2", "3"}, versions)
}

func TestTry_ReleaseThatIsNotThere_ChangesNothing(t *testing.T) {
	l := mustInstall(t, "1")
	require.Error(t, l.Try("2"))
	requireVersions(t, l, "1", "")
	_, on := l.Trial()
	assert.False(t, on)
}

func TestTrial_PowerCutBeforeTheSwitch_IsUndone(t *testing.T) {
	l := mustInstall(t, "1", "2")
	mustWrite(t, l.trialFile(), `{"from":"1","to":"2"}`)
	require.NoError(t, l.Undo())
	requireVersions(t, l, "1", "")
	mustWrite(t, l.trialFile(), "\x00\x00\x00")
	_, on := l.Trial()
	assert.False(t, on, "what a power cut has left of the file")
}

func TestOf_ProgramsOfAnInstallation(t *testing.T) {
	l := mustInstall(t, "1")
	got, ok := Of(filepath.Join(l.Dir("1"), "esb"))
	require.True(t, ok)
	assert.Equal(t, l, got)
	for _, other := range []string{filepath.Join(l.Base(), "2", "esb"), filepath.Join(t.TempDir(), "esb"), "/esb"} {
		_, ok := Of(other)
		assert.False(t, ok, other)
	}
	// An unpacked release is none.
	unpacked := filepath.Join(t.TempDir(), "release")
	mustWrite(t, filepath.Join(unpacked, manifest), `{"version":"1"}`)
	_, ok = Of(filepath.Join(unpacked, "esb"))
	assert.False(t, ok)
	assert.Equal(t, "/opt/esb/current", Layout{}.Current())
}

func TestReadEnv(t *testing.T) {
	file := filepath.Join(t.TempDir(), "esb.env")
	mustWrite(t, file, "# comment\n; another\n\nA=1\n B = x y \nC=\"quoted # text\"\nD='it is'\nE=\nF=a=b\n")
	_, err := ReadEnv(file)
	require.ErrorContains(t, err, "esb.env:5", "a name with a blank is none")
	mustWrite(t, file, "# comment\n; another\n\nA=1\n B= x y \nC=\"quoted # text\"\nD='it is'\nE=\nF=a=b\n")
	env, err := ReadEnv(file)
	require.NoError(t, err)
	assert.Equal(t, []string{"A=1", "B=x y", "C=quoted # text", "D=it is", "E=", "F=a=b"}, env)
	for _, bad := range []string{"A", "A=b\\", "A=\"x\" y", "A=\"x", "export A=1", "1=2", `A=say "x"`} {
		mustWrite(t, file, bad+"\n")
		_, err := ReadEnv(file)
		assert.Error(t, err, bad)
	}
}

func TestEnviron_TheEnvironmentGoesBeforeTheFile_AndTheFileBeforeTheDefaults(t *testing.T) {
	l := Layout{Prefix: t.TempDir()}
	env, err := l.Environ([]string{"A=env"})
	require.NoError(t, err, "there is no file")
	assert.Equal(t, []string{"A=env"}, env)
	mustWrite(t, l.EnvFile(), "A=file\nB=file\nESB_HOME=/srv/esb\nESB_BIN_DIR=\n")
	env, err = l.Environ([]string{"A=env"})
	require.NoError(t, err)
	assert.Equal(t, []string{"B=file", "ESB_HOME=/srv/esb", "ESB_BIN_DIR=", "A=env"}, env)
	getenv := l.Getenv(env)
	assert.Equal(t, "env", getenv("A"))
	assert.Equal(t, "file", getenv("B"))
	assert.Equal(t, "/srv/esb", getenv("ESB_HOME"))
	assert.Equal(t, l.Current(), getenv("ESB_BIN_DIR"), "an empty one is none")
	assert.Equal(t, filepath.Join(l.Config(), "routing.yml"), getenv("ROUTING_CONFIG_PATH"))
}

func TestReplace_WritesInOneStep(t *testing.T) {
	dir := t.TempDir()
	mustWrite(t, filepath.Join(dir, "a"), "new")
	mustWrite(t, filepath.Join(dir, "b"), "old")
	mustWrite(t, filepath.Join(dir, "b.tmp"), "of a broken-off one")
	_, err := Replace(filepath.Join(dir, "a"), filepath.Join(dir, "b"))
	require.NoError(t, err)
	data, err := os.ReadFile(filepath.Join(dir, "b"))
	require.NoError(t, err)
	assert.Equal(t, "new", string(data))
}

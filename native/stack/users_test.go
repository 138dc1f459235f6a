package stack

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/console"
	"github.com/edge-serverless-box/esb/native/settings"
)

// mustPrepare is a stack in a folder that every user may pass, whose files nobody has made yet.
func mustPrepare(t *testing.T, vars map[string]string) *Stack {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("giving files to other users needs root")
	}
	home, err := os.MkdirTemp("", "esb-users-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	require.NoError(t, os.Chmod(home, 0o755))
	all := map[string]string{"ESB_HOME": filepath.Join(home, "state"), "ESB_BIN_DIR": home, "FUNCTIONS_CONFIG_PATH": filepath.Join(home, "functions", "functions.yml")}
	for name, value := range vars {
		all[name] = value
	}
	require.NoError(t, os.MkdirAll(filepath.Join(home, "functions", "hello"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(home, "functions", "functions.yml"), []byte("functions:\n  hello:\n    code: ../hello\n"), 0o644))
	s, err := settings.Load(func(name string) string { return all[name] }, home)
	require.NoError(t, err)
	return New(s, nil, console.New(io.Discard))
}

func TestSettle_TakesOverWhatRanAsRoot(t *testing.T) {
	s := mustPrepare(t, nil)
	home, data := s.settings.Home, s.settings.DataDir
	require.NoError(t, os.MkdirAll(filepath.Join(home, "tls"), 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(data, "s3", "bucket"), 0o755))
	for _, file := range []string{"jwt.key", "tls/ca.key", "data/s3/bucket/object", "function-keys"} {
		require.NoError(t, os.WriteFile(filepath.Join(home, file), []byte("what was there before, 32 bytes long"), 0o600))
	}
	outside := filepath.Join(s.settings.Root, "outside")
	require.NoError(t, os.WriteFile(outside, nil, 0o600))
	require.NoError(t, os.Symlink(outside, filepath.Join(data, "s3", "link")))

	for range 2 { // it can be repeated
		require.NoError(t, s.folders())
		for _, service := range []string{native.Stores, native.Agent, native.Gateway} {
			require.NoError(t, s.settle(service, s.user(service)))
		}
	}
	gateway, stores := int(s.settings.ServiceUID(native.Gateway)), int(s.settings.ServiceUID(native.Stores))
	for path, uid := range map[string]int{
		home: 0, filepath.Join(home, "run"): 0, filepath.Join(home, "function-keys"): 0, outside: 0,
		filepath.Join(home, "gateway"): gateway, filepath.Join(home, "gateway", "jwt.key"): gateway, filepath.Join(home, "gateway", "tls", "ca.key"): gateway,
		filepath.Join(home, "gateway", "function-keys"): gateway, filepath.Join(home, "stores", "function-keys"): stores,
		data: stores, filepath.Join(data, "s3", "bucket", "object"): stores, filepath.Join(data, "s3", "link"): stores,
		filepath.Join(home, "logs", "gateway"): gateway, filepath.Join(home, "logs", "stores"): stores,
	} {
		assert.Equal(t, uid, owner(path), path)
	}
	for path, mode := range map[string]fs.FileMode{home: 0o710, filepath.Join(home, "run"): 0o700, data: 0o700, filepath.Join(home, "logs"): 0o710} {
		info, err := os.Stat(path)
		require.NoError(t, err)
		assert.Equal(t, mode, info.Mode().Perm(), path)
	}
	assert.NoFileExists(t, filepath.Join(home, "jwt.key"))
	for _, copied := range []string{"gateway", "stores"} {
		text, err := os.ReadFile(filepath.Join(home, copied, "function-keys"))
		require.NoError(t, err)
		assert.Equal(t, "what was there before, 32 bytes long\n", string(text))
	}
}

func TestSettle_BrokenOffBefore_GoesOn(t *testing.T) {
	s := mustPrepare(t, nil)
	require.NoError(t, s.folders())
	require.NoError(t, s.settle(native.Gateway, s.user(native.Gateway)))
	mine, before := filepath.Join(s.settings.Home, "gateway", "jwt.key"), filepath.Join(s.settings.Home, "jwt.key")
	// Owned already and not moved yet.
	require.NoError(t, os.WriteFile(before, []byte("before"), 0o600))
	require.NoError(t, os.Chown(before, int(s.settings.ServiceUID(native.Gateway)), int(s.settings.ServiceGID())))
	require.NoError(t, s.settle(native.Gateway, s.user(native.Gateway)))
	text, err := os.ReadFile(mine)
	require.NoError(t, err)
	assert.Equal(t, "before", string(text))
	// What the gateway has by now is not replaced.
	require.NoError(t, os.WriteFile(before, []byte("older"), 0o600))
	require.NoError(t, s.settle(native.Gateway, s.user(native.Gateway)))
	text, err = os.ReadFile(mine)
	require.NoError(t, err)
	assert.Equal(t, "before", string(text))
}

func TestUser_OfTheGateway_ReadsAllOnlyWhereItMust(t *testing.T) {
	s := mustPrepare(t, nil)
	u := s.user(native.Gateway)
	assert.Equal(t, []uintptr{unix.CAP_NET_BIND_SERVICE}, u.Capabilities)
	assert.Equal(t, uint32(1879113729), u.UID)
	all := []uintptr{unix.CAP_NET_BIND_SERVICE, unix.CAP_DAC_READ_SEARCH}

	secret := filepath.Join(s.settings.Root, "functions", "hello", "app.py")
	require.NoError(t, os.WriteFile(secret, nil, 0o600))
	assert.Equal(t, all, s.user(native.Gateway).Capabilities, "code that is closed to it")
	require.NoError(t, os.Chmod(secret, 0o644))
	assert.Len(t, s.user(native.Gateway).Capabilities, 1)

	key := filepath.Join(s.settings.Root, "key.pem")
	require.NoError(t, os.WriteFile(key, nil, 0o600))
	s.environ = []string{"TLS_KEY_FILE=key.pem"}
	assert.Equal(t, all, s.user(native.Gateway).Capabilities, "a key that is closed to it")
	assert.Contains(t, s.env(native.Gateway), "TLS_KEY_FILE="+key)
	require.NoError(t, os.Chown(key, int(u.UID), 0))
	assert.Len(t, s.user(native.Gateway).Capabilities, 1)

	require.NoError(t, os.Chmod(s.settings.Root, 0o700))
	assert.Equal(t, all, s.user(native.Gateway).Capabilities, "a folder on the way that is closed to it")
	assert.Nil(t, s.user(native.Stores), "they cannot get to their data as anybody else")
	assert.Nil(t, s.user(native.Agent))
}

func TestPrintStatus_SaysWhichRuntimesOthersRun(t *testing.T) {
	var out strings.Builder
	status := native.Status{State: native.Healthy}
	require.NoError(t, PrintStatus(&out, status, time.Now()))
	assert.NotContains(t, out.String(), "Runtimes")
	status.Configuration.Substitutes = []string{"nodejs20.x by nodejs24.x (orders)"}
	out.Reset()
	require.NoError(t, PrintStatus(&out, status, time.Now()))
	assert.Contains(t, out.String(), "\nRuntimes that others run: nodejs20.x by nodejs24.x (orders)\n")
}

// TestServiceEnv_BlankRuntimes_AreThoseOfTheBox: blanks are unset for the gateway, too, which would take all that it knows.
func TestServiceEnv_BlankRuntimes_AreThoseOfTheBox(t *testing.T) {
	b := mustOpen(t)
	b.runtimes = "python3.11"
	for value, theirs := range map[string]bool{"": false, "  ": false, "nodejs24.x": true} {
		b.environ = []string{"FUNCTION_RUNTIMES=" + value}
		env := b.serviceEnv(native.Gateway)
		assert.Equal(t, theirs, !slices.Contains(env, "FUNCTION_RUNTIMES=python3.11"), "%q", value)
	}
}

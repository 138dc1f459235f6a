package leftovers

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native/process"
)

func TestOwns_TwoStacksShareTheirBinaries(t *testing.T) {
	s := Scope{Home: "/srv/one", RunDir: "/run/esb/esb0", BinDir: "/src/.esb/bin"}
	for name, c := range map[string]struct {
		process process.Info
		owned   bool
	}{
		"agent by its environment":        {process.Info{Exe: "/src/.esb/bin/agent", Env: []string{"ESB_HOME=/srv/one"}}, true},
		"another stack's agent":           {process.Info{Exe: "/src/.esb/bin/agent", Env: []string{"ESB_HOME=/srv/one2"}}, false},
		"containerd by its configuration": {process.Info{Exe: "/src/.esb/bin/containerd", Args: []string{"containerd", "--config=/srv/one/c.toml"}}, true},
		"shim by its socket":              {process.Info{Exe: "/src/.esb/bin/containerd-shim-runc-v2", Args: []string{"-address", "/run/esb/esb0/c.sock"}}, true},
		"shim of another bridge":          {process.Info{Exe: "/src/.esb/bin/containerd-shim-runc-v2", Args: []string{"-address", "/run/esb/esb01/c.sock"}}, false},
		"the machine's own containerd":    {process.Info{Exe: "/usr/bin/containerd", Env: []string{"ESB_HOME=/srv/one"}}, false},
		"a tool of this repository":       {process.Info{Exe: "/src/.esb/bin/esb", Env: []string{"ESB_HOME=/srv/one"}}, false},
	} {
		assert.Equal(t, c.owned, s.owns(c.process, false), name)
	}
}

func TestOwns_ALinkToARelease_MeansAllReleasesBesideIt(t *testing.T) {
	base := t.TempDir()
	current := filepath.Join(base, "current")
	for _, version := range []string{"1", "2"} {
		require.NoError(t, os.Mkdir(filepath.Join(base, version), 0o755))
	}
	require.NoError(t, os.Symlink("2", current))
	s := Scope{Home: "/srv/one", BinDir: current}
	before := process.Info{Exe: filepath.Join(base, "1", "gateway"), Env: []string{"ESB_HOME=/srv/one"}}
	assert.True(t, s.owns(before, true), "a gateway of the release before")
	assert.False(t, s.owns(before, false), "in a working copy it would be somebody else's")
	before.Exe = "/opt/other/1/gateway"
	assert.False(t, s.owns(before, true))
}

func TestMountPoints_UnescapesNames(t *testing.T) {
	assert.Equal(t, []string{"/srv/with blank", "/"}, mountPoints("1 2 0:3 / /srv/with\\040blank rw - tmpfs x rw\n1 2 0:3 / / rw - ext4 x rw\n"))
}

func TestLeases_OnlyAddressesCount(t *testing.T) {
	home := t.TempDir()
	dir := filepath.Join(home, "network", "leases", "esb-esb0")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	for _, name := range []string{"10.88.0.2", "lock", "last_reserved_ip.0"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
	}
	items, err := leases(Scope{Home: home})
	require.NoError(t, err)
	assert.Equal(t, []Item{{Kind: Lease, Name: "10.88.0.2"}}, items)
}

func TestFind_NothingOfThatStack_FindsNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("listing the firewall's tables needs root")
	}
	items, err := Find(Scope{Home: t.TempDir(), RunDir: t.TempDir(), BinDir: t.TempDir(), Bridge: "esbnone0"})
	require.NoError(t, err)
	assert.Empty(t, items)
}

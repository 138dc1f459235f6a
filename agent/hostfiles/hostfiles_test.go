package hostfiles

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNameservers_SkipsWhatContainersCannotReach(t *testing.T) {
	dir := t.TempDir()
	stub, upstream := filepath.Join(dir, "stub"), filepath.Join(dir, "upstream")
	require.NoError(t, os.WriteFile(stub, []byte("# stub\nnameserver 127.0.0.53\nnameserver ::1\noptions edns0\n"), 0o644))
	require.NoError(t, os.WriteFile(upstream, []byte("search x\nnameserver 192.0.2.1\nnameserver fe80::1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\nnameserver 192.0.2.4\n"), 0o644))

	got, err := Nameservers([]string{filepath.Join(dir, "none"), stub, upstream})
	require.NoError(t, err)
	assert.Equal(t, []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")}, got)

	got, err = Nameservers([]string{stub})
	require.NoError(t, err)
	assert.Empty(t, got)
}

func TestFiles_Text(t *testing.T) {
	assert.Equal(t, "nameserver 192.0.2.1\noptions timeout:2 attempts:2\n", string(ResolvConf([]netip.Addr{netip.MustParseAddr("192.0.2.1")})))
	assert.Equal(t, "127.0.0.1 localhost\n127.0.0.1 sandbox.localdomain sandbox\n10.88.0.9 h\n10.88.0.1 esb.internal\n",
		string(Hosts("h", netip.MustParseAddr("10.88.0.9"), netip.MustParseAddr("10.88.0.1"))))
}

func TestMeminfo_SaysWhatThereIs(t *testing.T) {
	lines := strings.Split(string(Meminfo(512)), "\n")
	assert.Equal(t, "MemTotal:         524288 kB", lines[0])
	assert.Equal(t, "MemAvailable:     524288 kB", lines[2])
	assert.Equal(t, "Buffers:               0 kB", lines[3])
}

package preflight

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native"
)

func mustWrite(t *testing.T, name, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
	return file
}

const hybrid = `30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime shared:5 - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
34 30 0:30 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
35 30 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`

func TestCheckCgroups_V1_NamesTheControllersThatAreMissing(t *testing.T) {
	assert.Empty(t, checkCgroups(mustWrite(t, "mountinfo", hybrid), t.TempDir()))
	errs := checkCgroups(mustWrite(t, "mountinfo", "32 30 0:28 / /x rw - cgroup cgroup rw,memory\n"), t.TempDir())
	require.Len(t, errs, 1)
	assert.ErrorContains(t, errs[0], "cpu, pids, freezer")
}

func TestCheckCgroups_V2_ReadsTheUnifiedTree(t *testing.T) {
	mount := filepath.Dir(mustWrite(t, "cgroup.controllers", "cpuset cpu io memory pids\n"))
	assert.Empty(t, checkCgroups("/none", mount))
	mount = filepath.Dir(mustWrite(t, "cgroup.controllers", "cpu\n"))
	errs := checkCgroups("/none", mount)
	require.Len(t, errs, 1)
	assert.ErrorContains(t, errs[0], "memory, pids")
}

func TestCheckNetwork_AddressesOfThisMachine_AreNamedWithTheSetting(t *testing.T) {
	errs := checkNetwork(Network{Subnet: netip.MustParsePrefix("127.0.0.0/16"), Bridge: "none"})
	require.Len(t, errs, 1)
	assert.ErrorContains(t, errs[0], "127.0.0.1/8 on interface lo")
	assert.ErrorContains(t, errs[0], "ESB_SUBNET")
	errs = checkNetwork(Network{Subnet: netip.MustParsePrefix("10.88.0.0/16"), Bridge: "lo"})
	require.Len(t, errs, 1)
	assert.ErrorContains(t, errs[0], "ESB_BRIDGE")
}

func TestCheckListeners_PortInUse_NamesProcessAndSetting(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	l := []Listener{{Addr: ln.Addr().String(), Setting: "GATEWAY_HTTP_ADDR"}}
	errs := checkListeners(l, nil)
	require.Len(t, errs, 1)
	assert.ErrorContains(t, errs[0], ln.Addr().String()+" is in use")
	assert.ErrorContains(t, errs[0], filepath.Base(os.Args[0])[:10], "the process is this one")
	assert.ErrorContains(t, errs[0], "GATEWAY_HTTP_ADDR")
	assert.Empty(t, checkListeners(l, func(pid int) bool { return pid == os.Getpid() }), "the stack's own processes are not in the way")
	require.NoError(t, ln.Close())
	assert.Empty(t, checkListeners(l, nil))
}

func TestCheckListeners_AddressOfABridgeThatIsStillToCome_IsFree(t *testing.T) {
	assert.Empty(t, checkListeners([]Listener{{Addr: "198.51.100.7:0", Setting: "X"}}, nil))
}

func TestListening_FindsListenersOnly(t *testing.T) {
	table := `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:01BB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1
   1: 0100007F:01BB 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 222 1
   2: 00000000:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1
`
	assert.Equal(t, []string{"111"}, listening(table, 443))
	assert.Equal(t, []string{"333"}, listening(table, 8000))
	assert.Empty(t, listening(table, 80))
}

func TestDisk_TooLittle_SaysHowMuch(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "made", "yet")
	assert.NoError(t, Disk(dir, 1))
	assert.ErrorContains(t, Disk(dir, 1<<60), "ESB_HOME")
}

func TestRun_ReportsAllProblemsAtOnce(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	err = Run(Options{Home: t.TempDir(), FreeBytes: 1 << 60, Listeners: []Listener{{Addr: ln.Addr().String(), Setting: "X"}}})
	if os.Geteuid() != 0 {
		require.Len(t, native.Problems(err), 1, "the others would follow from it")
		assert.ErrorContains(t, err, "root")
		return
	}
	var p *native.Problem
	require.True(t, errors.As(err, &p))
	assert.GreaterOrEqual(t, len(native.Problems(err)), 2)
}

func TestCheckSeccompAndOverlay_KernelWithout_SaysWhatIsMissing(t *testing.T) {
	assert.ErrorContains(t, checkSeccomp("/none"), "SECCOMP")
	assert.NoError(t, checkSeccomp(mustWrite(t, "actions", "kill")))
	assert.NoError(t, checkOverlay(mustWrite(t, "filesystems", "nodev\tproc\nnodev\toverlay\n")))
	assert.ErrorContains(t, checkUserNamespaces("/none"), "CONFIG_USER_NS")
	assert.ErrorContains(t, checkUserNamespaces(mustWrite(t, "none", "0\n")), "max_user_namespaces")
	assert.NoError(t, checkUserNamespaces(mustWrite(t, "some", "96365\n")))
	assert.False(t, hasFilesystem(mustWrite(t, "filesystems", "nodev\toverlayfoo\n"), "overlay"))
}

package cni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/nftables"
	"github.com/edge-serverless-box/esb/guard/netstate"
	"github.com/edge-serverless-box/esb/guard/ownthread"
)

const (
	// limit is for what takes milliseconds on an idle machine.
	limit = 60 * time.Second
	// silence is how long a connection that must not come about is given; each such test has a control that does.
	silence = 500 * time.Millisecond
)

var networks atomic.Int32

// mustConfig returns a configuration with a bridge and subnet of the test's own, or skips the test. What the test
// makes is purged at its end.
func mustConfig(t testing.TB) Config {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("the function network needs root")
	}
	bin := os.Getenv("ESB_BIN_DIR")
	if bin == "" {
		bin = filepath.Join("..", "..", ".esb", "bin")
	}
	bin, err := filepath.Abs(bin)
	require.NoError(t, err)
	if _, err := os.Stat(filepath.Join(bin, "host-local")); err != nil {
		t.Skipf("no CNI plugins in %s: build them, or set ESB_BIN_DIR", bin)
	}
	n := int(networks.Add(1))
	cfg := Config{
		StateDir:  filepath.Join(t.TempDir(), "network"),
		PluginDir: bin,
		Bridge:    fmt.Sprintf("esbt%dn%d", os.Getpid()%1_000_000, n),
		// Another run of the tests at the same time most likely has other subnets.
		Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(192 + os.Getpid()%32), byte(n), 0}), 24),
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	t.Cleanup(func() { assert.NoError(t, Purge(context.Background(), cfg)) })
	return cfg
}

func mustOpen(t *testing.T, cfg Config) *Network {
	t.Helper()
	n, err := Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, n.Close()) })
	return n
}

func mustAttach(t *testing.T, n *Network) Attachment {
	t.Helper()
	a, err := n.Attach(t.Context())
	require.NoError(t, err)
	return a
}

// in runs f on a thread inside a network namespace. Sockets that f makes stay in it.
func in(t *testing.T, path string, f func() error) {
	t.Helper()
	require.NoError(t, ownthread.Do(func() error {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if err == nil {
			err = f()
		}
		return err
	}))
}

// mustServe answers each connection at address, inside the namespace (the test's own when it is empty), with the
// address that it comes from.
func mustServe(t *testing.T, path, address string) netip.AddrPort {
	t.Helper()
	var l net.Listener
	listen := func() (err error) { l, err = net.Listen("tcp4", address); return err }
	if path == "" {
		require.NoError(t, listen())
	} else {
		in(t, path, listen)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, conn.RemoteAddr().String())
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-served })
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// dial connects from inside the namespace (the test's own when it is empty) and returns what the server answers.
func dial(t *testing.T, path string, to netip.AddrPort, timeout time.Duration) (answer string, err error) {
	t.Helper()
	connect := func() error {
		var conn net.Conn
		if conn, err = net.DialTimeout("tcp4", to.String(), timeout); err != nil {
			return nil
		}
		defer func() { _ = conn.Close() }()
		var text []byte
		text, err = io.ReadAll(conn)
		answer = string(text)
		return nil
	}
	if path == "" {
		require.NoError(t, connect())
	} else {
		in(t, path, connect)
	}
	return answer, err
}

func assertReaches(t *testing.T, path string, to netip.AddrPort) {
	t.Helper()
	_, err := dial(t, path, to, limit)
	assert.NoError(t, err)
}

func assertSilent(t *testing.T, path string, to netip.AddrPort) {
	t.Helper()
	_, err := dial(t, path, to, silence)
	assert.Error(t, err, "%s must not be reachable", to)
}

func assertRefused(t *testing.T, path string, to netip.AddrPort) {
	t.Helper()
	_, err := dial(t, path, to, limit)
	assert.ErrorIs(t, err, unix.ECONNREFUSED, "%s must be refused", to)
}

// mustOutside makes a namespace that is to the box what a machine on its LAN is. It routes the function subnet to the
// box, and returns its path, its address, and that of the box in between.
func mustOutside(t *testing.T, subnet netip.Prefix) (path string, outside, box netip.Addr) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "outside")
	users := path + "-users"
	require.NoError(t, pinNamespaces(path, users, DefaultUIDBase))
	t.Cleanup(func() { assert.NoError(t, errors.Join(unpin(users), unpin(path))) })
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer func() { _ = unix.Close(fd) }()
	b := subnet.Addr().As4()
	box = netip.AddrFrom4([4]byte{10, b[1] + 32, b[2], 1})
	outside = box.Next()
	name := fmt.Sprintf("esbo%dn%d", os.Getpid()%1_000_000, b[2])
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(fd)}
	require.NoError(t, netlink.LinkAdd(veth))
	t.Cleanup(func() { assert.NoError(t, netlink.LinkDel(veth)) })
	address := func(a netip.Addr) *netlink.Addr {
		return &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(30, 32)}}
	}
	require.NoError(t, netlink.AddrAdd(veth, address(box)))
	require.NoError(t, netlink.LinkSetUp(veth))
	in(t, path, func() error {
		peer, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(peer, address(outside)); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(peer); err != nil {
			return err
		}
		dst := &net.IPNet{IP: subnet.Addr().AsSlice(), Mask: net.CIDRMask(subnet.Bits(), 32)}
		return netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: box.AsSlice()})
	})
	return path, outside, box
}

func TestFirewall_FunctionReachesWhatItMayAndNothingElse(t *testing.T) {
	cfg := mustConfig(t)
	allowed := mustServe(t, "", "0.0.0.0:0")
	forbidden := mustServe(t, "", "0.0.0.0:0")
	cfg.HostPorts = []uint16{allowed.Port()}
	n := mustOpen(t, cfg)
	a, b := mustAttach(t, n), mustAttach(t, n)
	outsidePath, outside, box := mustOutside(t, cfg.Subnet)
	at := netip.AddrPortFrom

	t.Run("the box's gateway address, on the allowed port alone", func(t *testing.T) {
		assertReaches(t, a.NetnsPath, at(n.Gateway(), allowed.Port()))
		assertRefused(t, a.NetnsPath, at(n.Gateway(), forbidden.Port()))
	})
	t.Run("no other address of the box, whatever the port", func(t *testing.T) {
		assertReaches(t, "", at(box, allowed.Port()))
		assertRefused(t, a.NetnsPath, at(box, allowed.Port()))
		assertRefused(t, a.NetnsPath, at(box, forbidden.Port()))
	})
	t.Run("the box reaches functions", func(t *testing.T) {
		worker := mustServe(t, a.NetnsPath, at(a.IP, agent.SupervisorPort).String())
		assertReaches(t, "", worker)
		t.Run("another function does not", func(t *testing.T) {
			assertSilent(t, b.NetnsPath, worker)
		})
		t.Run("another function does not through the box either", func(t *testing.T) {
			in(t, b.NetnsPath, func() error {
				dst := &net.IPNet{IP: a.IP.AsSlice(), Mask: net.CIDRMask(32, 32)}
				return netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: n.Gateway().AsSlice()})
			})
			assertSilent(t, b.NetnsPath, worker)
		})
		t.Run("the outside does not", func(t *testing.T) {
			assertReaches(t, outsidePath, at(box, allowed.Port()))
			assertSilent(t, outsidePath, worker)
		})
	})
	t.Run("the outside does not reach the gateway address", func(t *testing.T) {
		assertSilent(t, outsidePath, at(n.Gateway(), allowed.Port()))
	})
	t.Run("functions reach the outside with the box's address", func(t *testing.T) {
		server := mustServe(t, outsidePath, at(outside, 0).String())
		answer, err := dial(t, a.NetnsPath, server, limit)
		require.NoError(t, err)
		assert.Equal(t, box.String(), strings.Split(answer, ":")[0])
	})
	t.Run("functions have a loopback and no IPv6 address on the network", func(t *testing.T) {
		assertReaches(t, a.NetnsPath, mustServe(t, a.NetnsPath, "127.0.0.1:0"))
		in(t, a.NetnsPath, func() error {
			link, err := netlink.LinkByName(interfaceName)
			if err != nil {
				return err
			}
			addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
			assert.Empty(t, addrs)
			return err
		})
	})
}

// As `nft flush ruleset` does it, which restarts of a distribution's firewall run.
func TestFirewall_TakenAway_IsThereAgain(t *testing.T) {
	cfg := mustConfig(t)
	n := mustOpen(t, cfg)
	a, b := mustAttach(t, n), mustAttach(t, n)
	outsidePath, outside, box := mustOutside(t, cfg.Subnet)
	server := mustServe(t, outsidePath, netip.AddrPortFrom(outside, 0).String())
	require.NoError(t, nftables.Remove(cfg.Bridge))
	require.Eventually(t, func() bool {
		answer, err := dial(t, a.NetnsPath, server, time.Second)
		return err == nil && strings.Split(answer, ":")[0] == box.String()
	}, limit, 100*time.Millisecond, "functions reach the outside with the box's address")
	assertSilent(t, b.NetnsPath, mustServe(t, a.NetnsPath, netip.AddrPortFrom(a.IP, agent.SupervisorPort).String()))
}

func TestFirewall_DeniedNetworks_AreReachableForNoFunction(t *testing.T) {
	cfg := mustConfig(t)
	path, outside, _ := mustOutside(t, cfg.Subnet)
	server := mustServe(t, path, netip.AddrPortFrom(outside, 0).String())
	// Where a cloud would have its metadata: on the same machine, behind a route of the box.
	metadata := netip.AddrFrom4([4]byte{169, 254, 44, cfg.Subnet.Addr().As4()[2]})
	in(t, path, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(lo, &netlink.Addr{IPNet: &net.IPNet{IP: metadata.AsSlice(), Mask: net.CIDRMask(32, 32)}})
	})
	route := &netlink.Route{Dst: &net.IPNet{IP: metadata.AsSlice(), Mask: net.CIDRMask(32, 32)}, Gw: outside.AsSlice()}
	require.NoError(t, netlink.RouteAdd(route))
	keys := mustServe(t, path, netip.AddrPortFrom(metadata, 0).String())
	n := mustOpen(t, cfg)
	a := mustAttach(t, n)
	assertReaches(t, "", keys)
	assertSilent(t, a.NetnsPath, keys)
	assertReaches(t, a.NetnsPath, server)

	// As after a restart with another setting: a name server in a denied network is reachable, nothing else there.
	cfg.Deny = []netip.Prefix{netip.PrefixFrom(outside, 24).Masked()}
	cfg.DNS = []netip.Addr{outside}
	require.NoError(t, nftables.Apply(cfg.firewall()))
	assertReaches(t, "", server)
	assertSilent(t, a.NetnsPath, server)
	assertReaches(t, a.NetnsPath, mustServe(t, path, netip.AddrPortFrom(outside, 53).String()))
}

// A connection is its opener's, so that one thread of this program can be another user's.
func TestFirewall_LocalUsers_DoNotReachFunctions(t *testing.T) {
	const friend, stranger = 65533, 65534
	cfg := mustConfig(t)
	cfg.Users = []uint32{friend}
	n := mustOpen(t, cfg)
	a := mustAttach(t, n)
	worker := mustServe(t, a.NetnsPath, netip.AddrPortFrom(a.IP, agent.SupervisorPort).String())
	assertReaches(t, "", worker)
	as := func(user int) error {
		return ownthread.Do(func() error {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(user), uintptr(user), uintptr(user)); errno != 0 {
				return errno
			}
			conn, err := net.DialTimeout("tcp4", worker.String(), limit)
			if err == nil {
				_, err = io.ReadAll(conn)
				_ = conn.Close()
			}
			return err
		})
	}
	assert.NoError(t, as(friend))
	assert.ErrorIs(t, as(stranger), unix.ECONNREFUSED)
}

func TestFirewall_NameServerOnTheBox_IsReachable(t *testing.T) {
	cfg := mustConfig(t)
	gateway := cfg.Subnet.Addr().Next()
	cfg.DNS = []netip.Addr{gateway, netip.MustParseAddr("2001:db8::53")}
	n := mustOpen(t, cfg)
	a := mustAttach(t, n)
	// Bound to the gateway address, so that a name server of the machine itself is not in the way.
	server, err := net.ListenPacket("udp4", netip.AddrPortFrom(gateway, 53).String())
	require.NoError(t, err)
	defer func() { _ = server.Close() }()

	in(t, a.NetnsPath, func() error {
		conn, err := net.Dial("udp4", netip.AddrPortFrom(gateway, 53).String())
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		_, err = conn.Write([]byte("question"))
		return err
	})

	require.NoError(t, server.SetReadDeadline(time.Now().Add(limit)))
	got := make([]byte, 64)
	count, from, err := server.ReadFrom(got)
	require.NoError(t, err)
	assert.Equal(t, "question", string(got[:count]))
	assert.Equal(t, a.IP.String(), from.(*net.UDPAddr).IP.String())
}

func TestAttach_ManyAtOnce_EachHasItsOwn(t *testing.T) {
	cfg := mustConfig(t)
	cfg.PoolSize = 2
	n := mustOpen(t, cfg)
	const count = 12
	attachments := make([]Attachment, count)
	group := new(errgroup.Group)
	for i := range attachments {
		group.Go(func() (err error) {
			attachments[i], err = n.Attach(t.Context())
			return err
		})
	}
	require.NoError(t, group.Wait())
	ids, ips := map[string]bool{}, map[netip.Addr]bool{}
	for _, a := range attachments {
		ids[a.ID], ips[a.IP] = true, true
		assert.True(t, isPinned(a.NetnsPath))
		assert.True(t, cfg.Subnet.Contains(a.IP) && a.IP != n.Gateway())
	}
	assert.Len(t, ids, count)
	assert.Len(t, ips, count)
}

func TestDetach_Twice_AtOnce_AndWithoutItsNamespace_Succeeds(t *testing.T) {
	cfg := mustConfig(t)
	n := mustOpen(t, cfg)
	twice, unpinned, held := mustAttach(t, n), mustAttach(t, n), mustAttach(t, n)

	group := new(errgroup.Group)
	for range 4 {
		group.Go(func() error { return n.Detach(t.Context(), twice.ID) })
	}
	require.NoError(t, group.Wait())
	require.NoError(t, n.Detach(t.Context(), twice.ID))

	// After a reboot: the file is there, the mount is not.
	require.NoError(t, unix.Unmount(unpinned.NetnsPath, unix.MNT_DETACH))
	require.NoError(t, n.Detach(t.Context(), unpinned.ID))

	// Something keeps the namespace alive, here a descriptor: the interface has to go all the same.
	fd, err := unix.Open(held.NetnsPath, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	defer func() { _ = unix.Close(fd) }()
	require.NoError(t, unix.Unmount(held.NetnsPath, unix.MNT_DETACH))
	require.NoError(t, n.Detach(t.Context(), held.ID))

	assertNoAttachments(t, cfg)
	assert.Error(t, n.Detach(t.Context(), "../../etc/passwd"))
}

// assertNoAttachments checks the kernel and the files.
func assertNoAttachments(t *testing.T, cfg Config) {
	t.Helper()
	cfg, err := cfg.check()
	require.NoError(t, err)
	left, err := cfg.attachments()
	require.NoError(t, err)
	assert.Empty(t, left)
	leases, err := cfg.leases()
	require.NoError(t, err)
	for addr, owner := range leases {
		_, rests := restingSince(owner)
		assert.True(t, rests, "%s is leased to %q", addr, owner)
	}
	bridge, err := cfg.ownBridge()
	require.NoError(t, err)
	require.NotNil(t, bridge)
	ports, err := bridgePortsOf(bridge)
	require.NoError(t, err)
	assert.Empty(t, ports)
}

func TestAttach_SubnetUsedUp_SaysSoAndLeavesNothing(t *testing.T) {
	cfg := mustConfig(t)
	cfg.Subnet = netip.PrefixFrom(cfg.Subnet.Addr(), 29)
	n := mustOpen(t, cfg)
	var all []Attachment
	for range 5 {
		all = append(all, mustAttach(t, n))
	}
	_, err := n.Attach(t.Context())
	require.Error(t, err)
	assert.Equal(t, agent.CodeExhausted, agent.ErrorCode(err))
	assert.Contains(t, err.Error(), cfg.Subnet.String())
	assert.Contains(t, err.Error(), "ESB_SUBNET")

	require.NoError(t, n.Detach(t.Context(), all[0].ID))
	all[0] = mustAttach(t, n)
	for _, a := range all {
		require.NoError(t, n.Detach(t.Context(), a.ID))
	}
	assertNoAttachments(t, cfg)
}

func TestAttach_CallerLeavesWhileThePluginRuns_LeavesNothing(t *testing.T) {
	cfg := mustConfig(t)
	// The address is leased when the plugin hangs, and it is killed before it can give that back.
	plugins, started := t.TempDir(), filepath.Join(t.TempDir(), "started")
	script := fmt.Sprintf("#!/bin/sh\nif [ $CNI_COMMAND != ADD ]; then exec %[1]s/bridge; fi\n%[1]s/bridge >/dev/null\n: >%[2]s\nexec sleep 600\n", cfg.PluginDir, started)
	require.NoError(t, os.WriteFile(filepath.Join(plugins, "bridge"), []byte(script), 0o755))
	require.NoError(t, os.Symlink(filepath.Join(cfg.PluginDir, "host-local"), filepath.Join(plugins, "host-local")))
	cfg.PluginDir = plugins
	n := mustOpen(t, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		defer cancel()
		for ctx.Err() == nil {
			if _, err := os.Stat(started); err == nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()

	_, err := n.Attach(ctx)

	assert.Equal(t, agent.CodeCanceled, agent.ErrorCode(err))
	assertNoAttachments(t, cfg)
}

func TestReconcile_AfterACrash_KeepsTheLiveAndReleasesTheRest(t *testing.T) {
	cfg := mustConfig(t)
	cfg.PoolSize = 2
	crashed, err := Open(t.Context(), cfg)
	require.NoError(t, err)
	live, dead, rebooted := mustAttach(t, crashed), mustAttach(t, crashed), mustAttach(t, crashed)
	require.Eventually(t, func() bool { return !crashed.pool.short() }, limit, time.Millisecond)
	// A crash: the goroutine is gone, what it prepared is not released.
	crashed.pool.close()
	require.NoError(t, unix.Unmount(rebooted.NetnsPath, unix.MNT_DETACH))
	// Far from those that are leased one after the other. The crash came before the lease had its owner's name.
	b := cfg.Subnet.Addr().As4()
	b[3] = 200
	torn := filepath.Join(crashed.cfg.leaseDir(), netip.AddrFrom4(b).String())
	require.NoError(t, os.WriteFile(torn, nil, 0o600))

	n := mustOpen(t, cfg)
	mine := mustAttach(t, n)
	require.NoError(t, n.Reconcile(t.Context(), []string{live.ID}))

	for _, gone := range []Attachment{dead, rebooted} {
		assert.NoFileExists(t, gone.NetnsPath)
	}
	assert.NoFileExists(t, torn)
	worker := mustServe(t, live.NetnsPath, netip.AddrPortFrom(live.IP, agent.SupervisorPort).String())
	assertReaches(t, "", worker)
	assert.True(t, isPinned(mine.NetnsPath))

	for _, a := range []Attachment{live, mine} {
		require.NoError(t, n.Detach(t.Context(), a.ID))
	}
	require.NoError(t, n.Close())
	assertNoAttachments(t, cfg)
}

func TestClose_KeepsWhatWasHandedOutAndReleasesThePrepared(t *testing.T) {
	cfg := mustConfig(t)
	cfg.PoolSize = 2
	n := mustOpen(t, cfg)
	a := mustAttach(t, n)
	worker := mustServe(t, a.NetnsPath, netip.AddrPortFrom(a.IP, agent.SupervisorPort).String())
	require.NoError(t, n.Close())

	left, err := n.cfg.attachments()
	require.NoError(t, err)
	assert.Equal(t, map[string]struct{}{a.ID: {}}, left)
	assertReaches(t, "", worker)
	_, err = n.Attach(t.Context())
	assert.Equal(t, agent.CodeUnavailable, agent.ErrorCode(err))
	require.NoError(t, n.Detach(t.Context(), a.ID), "containers are also destroyed while the agent stops")
}

func TestPurge_AfterACrash_LeavesTheMachineAsItWas(t *testing.T) {
	cfg := mustConfig(t)
	cfg.PoolSize = 1
	before := mustObserve(t, cfg)
	crashed, err := Open(t.Context(), cfg)
	require.NoError(t, err)
	for range 3 {
		mustAttach(t, crashed)
	}
	crashed.pool.close()
	require.NotEqual(t, before, mustObserve(t, cfg))

	require.NoError(t, Purge(t.Context(), cfg))
	assert.Equal(t, before, mustObserve(t, cfg))
	assert.NoDirExists(t, cfg.StateDir)
	assert.NoError(t, Purge(t.Context(), cfg), "a second Purge is harmless")
}

// mustObserve lists what belongs to cfg's network: other tests and stacks may run on this machine at the same time.
func mustObserve(t *testing.T, cfg Config) []string {
	t.Helper()
	seen := []string{}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, cfg.StateDir) {
			seen = append(seen, line)
		}
	}
	links, err := netstate.Links()
	require.NoError(t, err)
	master := -1
	for _, l := range links {
		if l.Attrs().Name == cfg.Bridge {
			master = l.Attrs().Index
			seen = append(seen, l.Attrs().Name)
		}
	}
	for _, l := range links {
		if l.Attrs().MasterIndex == master {
			seen = append(seen, l.Attrs().Name)
		}
	}
	for _, table := range mustTables(t) {
		if strings.HasSuffix(table, cfg.Bridge) {
			seen = append(seen, table)
		}
	}
	return seen
}

func TestOpen_Conflicts_NameWhatIsInTheWayAndTheSetting(t *testing.T) {
	cfg := mustConfig(t)
	mustOpen(t, cfg)
	other := cfg
	other.StateDir = filepath.Join(t.TempDir(), "other")
	foreign := mustConfig(t)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = foreign.Bridge
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	require.NoError(t, netlink.LinkAdd(bridge))
	t.Cleanup(func() { assert.NoError(t, netlink.LinkDel(bridge)) })
	overlap := mustConfig(t)
	overlap.Subnet = netip.PrefixFrom(cfg.Subnet.Addr(), 25)
	routed := mustConfig(t)
	dst := &net.IPNet{IP: routed.Subnet.Addr().AsSlice(), Mask: net.CIDRMask(23, 32)}
	dst.IP = dst.IP.Mask(dst.Mask)
	lo, err := netlink.LinkByName("lo")
	require.NoError(t, err)
	route := &netlink.Route{Dst: dst, LinkIndex: lo.Attrs().Index, Scope: netlink.SCOPE_LINK}
	require.NoError(t, netlink.RouteAdd(route))
	t.Cleanup(func() { assert.NoError(t, netlink.RouteDel(route)) })

	for name, c := range map[string]struct {
		cfg  Config
		says []string
	}{
		"another stack's bridge":         {other, []string{cfg.Bridge, "another esb stack", "ESB_BRIDGE"}},
		"a bridge that is not esb's":     {foreign, []string{foreign.Bridge, "not made by esb", "ESB_BRIDGE"}},
		"another interface's address":    {overlap, []string{overlap.Subnet.String(), "interface " + cfg.Bridge, "ESB_SUBNET"}},
		"a route of another interface":   {routed, []string{routed.Subnet.String(), dst.String(), "interface lo", "ESB_SUBNET"}},
		"an interface that is no bridge": {withBridge(other, "lo"), []string{"lo", "ESB_BRIDGE"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(t.Context(), c.cfg)
			require.Error(t, err)
			for _, s := range c.says {
				assert.Contains(t, err.Error(), s)
			}
		})
	}
	t.Run("Purge leaves the others alone", func(t *testing.T) {
		require.NoError(t, Purge(t.Context(), other))
		require.NoError(t, Purge(t.Context(), foreign))
		for _, name := range []string{cfg.Bridge, foreign.Bridge} {
			_, err := netlink.LinkByName(name)
			assert.NoError(t, err)
		}
		assert.Contains(t, mustTables(t), "esb_"+cfg.Bridge)
	})
}

func TestOpen_SubnetChanged_MovesAnUnusedBridgeAndKeepsAUsedOne(t *testing.T) {
	cfg := mustConfig(t)
	n := mustOpen(t, cfg)
	a := mustAttach(t, n)
	moved := cfg
	moved.Subnet = mustConfig(t).Subnet

	_, err := Open(t.Context(), moved)
	require.ErrorContains(t, err, cfg.Subnet.String())
	assert.ErrorContains(t, err, "ESB_SUBNET")

	require.NoError(t, n.Detach(t.Context(), a.ID))
	b := mustAttach(t, mustOpen(t, moved))
	assert.True(t, moved.Subnet.Contains(b.IP))
}

func withBridge(cfg Config, name string) Config {
	cfg.Bridge = name
	return cfg
}

func TestCheck_BadSettings_NameTheVariable(t *testing.T) {
	good := Config{StateDir: "/tmp/x", Bridge: "esb0", Subnet: netip.MustParsePrefix("10.88.0.0/16")}
	_, err := good.check()
	require.NoError(t, err)
	subnet := func(s string) func(*Config) { return func(c *Config) { c.Subnet = netip.MustParsePrefix(s) } }
	for name, c := range map[string]struct {
		change   func(*Config)
		variable string
	}{
		"no subnet":             {func(c *Config) { c.Subnet = netip.Prefix{} }, "ESB_SUBNET"},
		"IPv6":                  {subnet("fd00::/64"), "ESB_SUBNET"},
		"too small":             {subnet("10.88.0.0/30"), "ESB_SUBNET"},
		"too large":             {subnet("0.0.0.0/0"), "ESB_SUBNET"},
		"an address in it":      {subnet("10.88.0.1/16"), "ESB_SUBNET"},
		"loopback":              {subnet("127.10.0.0/16"), "ESB_SUBNET"},
		"multicast":             {subnet("224.1.0.0/16"), "ESB_SUBNET"},
		"no bridge":             {func(c *Config) { c.Bridge = "" }, "ESB_BRIDGE"},
		"bridge name too long":  {func(c *Config) { c.Bridge = "sixteencharacter" }, "ESB_BRIDGE"},
		"bridge name with path": {func(c *Config) { c.Bridge = "../x" }, "ESB_BRIDGE"},
		"MTU too small":         {func(c *Config) { c.MTU = 100 }, "ESB_MTU"},
		"negative pool":         {func(c *Config) { c.PoolSize = -1 }, "NETWORK_POOL_SIZE"},
	} {
		t.Run(name, func(t *testing.T) {
			bad := good
			c.change(&bad)
			_, err := bad.check()
			assert.ErrorContains(t, err, c.variable)
		})
	}
}

func TestOpen_PluginMissing_NamesItAndTheSetting(t *testing.T) {
	cfg := mustConfig(t)
	cfg.PluginDir = t.TempDir()
	_, err := Open(t.Context(), cfg)
	require.ErrorContains(t, err, `"bridge"`)
	assert.ErrorContains(t, err, "ESB_BIN_DIR")
}

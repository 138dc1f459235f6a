// Package hostfiles makes files that function containers see in place of the machine's: /etc/resolv.conf and /etc/hosts,
// through which they find names, and /proc/meminfo.
package hostfiles

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
)

// BoxName is the name of the box in every function container: 127.0.0.1 there is the container itself.
const BoxName = "esb.internal"

// maxNameservers is how many the C library's resolver reads (resolv.conf(5), MAXNS).
const maxNameservers = 3

// ResolvConfs are where a host keeps its nameservers; systemd-resolved puts the real ones behind its stub, which
// listens on the host's loopback only, into the second.
func ResolvConfs() []string {
	return []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}
}

// Nameservers returns the first nameservers found in files that containers can reach too: not loopback ones. No
// nameserver at all is no error: the machine may have no network.
func Nameservers(files []string) ([]netip.Addr, error) {
	for _, name := range files {
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the host's nameservers: %w", err)
		}
		var found []netip.Addr
		lines := bufio.NewScanner(strings.NewReader(string(b)))
		for lines.Scan() {
			f := strings.Fields(lines.Text())
			if len(f) < 2 || f[0] != "nameserver" {
				continue
			}
			// The function network is IPv4: an IPv6 nameserver cannot be reached from it.
			if a, err := netip.ParseAddr(f[1]); err == nil && a.Is4() && !a.IsLoopback() && !a.IsUnspecified() {
				found = append(found, a)
			}
		}
		if len(found) > 0 {
			return found[:min(len(found), maxNameservers)], nil
		}
	}
	return nil, nil
}

// ResolvConf returns the text of a container's /etc/resolv.conf.
func ResolvConf(dns []netip.Addr) []byte {
	var b strings.Builder
	for _, a := range dns {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	b.WriteString("options timeout:2 attempts:2\n")
	return []byte(b.String())
}

// Hosts returns the text of a container's /etc/hosts. AWS's extensions know their own sandbox as sandbox.localdomain
// (Telemetry API: destinations).
func Hosts(hostname string, ip, box netip.Addr) []byte {
	return fmt.Appendf(nil, "127.0.0.1 localhost\n127.0.0.1 sandbox.localdomain sandbox\n%s %s\n%s %s\n", ip, hostname, box, BoxName)
}

// Meminfo returns the text of a container's /proc/meminfo: how much memory there is for it. All of it is said to be free,
// which is what it begins with; what it uses is in its cgroup.
func Meminfo(memoryMB int) []byte {
	var b strings.Builder
	for _, name := range []string{
		"MemTotal", "MemFree", "MemAvailable", "Buffers", "Cached", "SwapCached", "Active", "Inactive", "Active(anon)", "Inactive(anon)",
		"Active(file)", "Inactive(file)", "Unevictable", "Mlocked", "SwapTotal", "SwapFree", "Dirty", "Writeback", "AnonPages", "Mapped",
		"Shmem", "KReclaimable", "Slab", "SReclaimable", "SUnreclaim", "KernelStack", "PageTables", "CommitLimit", "Committed_AS",
	} {
		kb := 0
		switch name {
		case "MemTotal", "MemFree", "MemAvailable", "CommitLimit":
			kb = memoryMB << 10
		}
		fmt.Fprintf(&b, "%-15s %8d kB\n", name+":", kb)
	}
	return []byte(b.String())
}

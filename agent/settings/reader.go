package settings

import (
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/edge-serverless-box/esb/guard/setting"
)

// reader reads what is the agent's alone, too.
type reader struct{ *setting.Reader }

// folders reads absolute paths, separated by commas.
func (r reader) folders(name string) []string {
	paths := r.List(name)
	for i, p := range paths {
		if !filepath.IsAbs(p) {
			r.Fail(name, p, "must be absolute paths, separated by commas")
		}
		paths[i] = filepath.Clean(p)
	}
	return paths
}

// nameservers reads addresses that containers can reach.
func (r reader) nameservers(name string) []netip.Addr {
	var out []netip.Addr
	for _, v := range r.List(name) {
		a, err := netip.ParseAddr(v)
		if err != nil || !a.Is4() || a.IsLoopback() {
			r.Fail(name, v, "must be IPv4 addresses that containers can reach, separated by commas")
			continue
		}
		out = append(out, a)
	}
	return out
}

// networks reads networks; an address alone is one of its own.
func (r reader) networks(name string) []netip.Prefix {
	var out []netip.Prefix
	for _, v := range r.List(name) {
		p, err := netip.ParsePrefix(v)
		if a, addrErr := netip.ParseAddr(v); addrErr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err != nil || !p.Addr().Is4() || p.Masked() != p {
			r.Fail(name, v, "must be IPv4 networks such as 192.168.1.0/24, separated by commas")
			continue
		}
		out = append(out, p)
	}
	return out
}

// loopback reads the address of a listener without credentials, empty for "off".
func (r reader) loopback(name string) string {
	v := r.Text(name)
	if v == setting.Off {
		return ""
	}
	if !setting.Loopback(v) {
		r.Fail(name, v, "must be off or host:port on loopback, such as 127.0.0.1:9444")
	}
	return v
}

// functionLogsAddr reads where functions post lines, empty when they may not.
func (r reader) functionLogsAddr(s Settings) string {
	if !s.Subnet.IsValid() {
		return ""
	}
	box := setting.Box(s.Subnet)
	v := r.Text("FUNCTION_LOGS_ADDR", netip.AddrPortFrom(box, 9428).String())
	if v == setting.Off || s.VictoriaLogsURL == "" {
		return ""
	}
	if addr, err := netip.ParseAddrPort(v); err != nil || addr.Addr() != box || addr.Port() == 0 {
		r.Fail("FUNCTION_LOGS_ADDR", v, "must be off or a port of the box's address on the function network, such as "+box.String()+":9428")
	}
	return v
}

// check finds settings that do not go together, or not with what the agent starts.
func (r reader) check(s Settings) {
	if s.VictoriaLogsUser == "" && s.VictoriaLogsPassword != "" {
		r.Problemf("VICTORIALOGS_USER: is missing beside VICTORIALOGS_PASSWORD: set both or neither")
	}
	if strings.ContainsAny(s.Home, unmountable) {
		r.Fail("ESB_HOME", s.Home, "must be a path without ':', ',' and '\\': overlayfs takes them for separators")
	}
	if strings.ContainsRune(s.BinDir, ':') {
		r.Fail("ESB_BIN_DIR", s.BinDir, "must be a path without ':': containerd gets it in PATH")
	}
	if s.ContainerdAddress != "" && !filepath.IsAbs(s.ContainerdAddress) {
		r.Fail("CONTAINERD_ADDRESS", s.ContainerdAddress, "must be the absolute path of containerd's socket")
	}
	some := s.TLSCert != "" || s.TLSKey != "" || s.TLSCA != ""
	if some && !s.TLS() {
		r.Problemf("AGENT_TLS_CERT, AGENT_TLS_KEY and AGENT_TLS_CA: set all three or none")
	}
	// An agent that strangers could reach.
	if s.GRPCAddr != "" && !setting.Loopback(s.GRPCAddr) && !s.TLS() {
		r.Fail("AGENT_GRPC_ADDR", s.GRPCAddr,
			"is not a loopback address, so clients must prove who they are: set AGENT_TLS_CERT, AGENT_TLS_KEY and AGENT_TLS_CA, or use 127.0.0.1")
	}
}

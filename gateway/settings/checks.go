package settings

import (
	"net"
	"os"
	"strings"

	"github.com/edge-serverless-box/esb/guard/setting"
)

func (r reader) checkTLSFiles(s Settings) {
	switch {
	case s.TLSCertFile != "" && s.TLSKeyFile == "":
		r.Problemf("TLS_KEY_FILE: is missing: TLS_CERT_FILE is set and needs its key; set both or neither")
	case s.TLSCertFile == "" && s.TLSKeyFile != "":
		r.Problemf("TLS_CERT_FILE: is missing: TLS_KEY_FILE is set and needs its certificate; set both or neither")
	}
}

func (r reader) checkAgent(s Settings) {
	files := []struct{ name, path string }{
		{"AGENT_TLS_CERT", s.AgentTLS.CertFile},
		{"AGENT_TLS_KEY", s.AgentTLS.KeyFile},
		{"AGENT_TLS_CA", s.AgentTLS.CAFile},
	}
	var set, missing []string
	for _, f := range files {
		if f.path != "" {
			set = append(set, f.name)
		} else {
			missing = append(missing, f.name)
		}
	}
	switch {
	case len(set) > 0 && len(missing) > 0:
		r.Problemf("%s: missing beside %s: mutual TLS with the agent needs all three or none",
			strings.Join(missing, ", "), strings.Join(set, ", "))
	case len(set) == 0 && s.AgentAddr != "" && !setting.Loopback(s.AgentAddr):
		r.Problemf("AGENT_GRPC_ADDR: %q is not on loopback and so needs mutual TLS: set AGENT_TLS_CERT, AGENT_TLS_KEY and AGENT_TLS_CA",
			s.AgentAddr)
	}
}

// checkNATS finds settings of a cluster that there is none for, and files that cannot be read.
func (r reader) checkNATS(a Async) {
	for _, f := range []struct{ name, path string }{
		{"ESB_NATS_CREDENTIALS", a.NATSCredentials}, {"ESB_NATS_CA", a.NATSTLS.CAFile},
		{"ESB_NATS_CERT", a.NATSTLS.CertFile}, {"ESB_NATS_KEY", a.NATSTLS.KeyFile},
	} {
		if f.path == "" {
			continue
		}
		if a.NATSURL == "" && !r.Failed("ESB_NATS_URL") {
			r.Problemf("%s: is for a NATS cluster: set ESB_NATS_URL too", f.name)
			continue
		}
		if file, err := os.Open(f.path); err != nil {
			r.Problemf("%s: %v", f.name, err)
		} else {
			_ = file.Close()
		}
	}
	if (a.NATSTLS.CertFile == "") != (a.NATSTLS.KeyFile == "") {
		r.Problemf("ESB_NATS_CERT, ESB_NATS_KEY: set both or neither")
	}
	if a.NATSURL == "" && a.NATSReplicas > 1 && !r.Failed("ESB_NATS_URL") {
		r.Problemf("ESB_NATS_REPLICAS: is for a NATS cluster: set ESB_NATS_URL too")
	}
}

// checkListeners finds two listeners on one address; port 0 means any free port and never clashes.
func (r reader) checkListeners(s Settings) {
	if len(s.HTTPSAddrs)+len(s.HTTPAddrs) == 0 && !r.Failed("GATEWAY_HTTPS_ADDR", "GATEWAY_HTTP_ADDR") {
		r.Problemf("GATEWAY_HTTPS_ADDR, GATEWAY_HTTP_ADDR: both are off: clients need one of them")
	}
	owner := make(map[string]string)
	claim := func(name, addr string) {
		if _, port, err := net.SplitHostPort(addr); err != nil || port == "0" {
			return
		}
		if other, taken := owner[addr]; taken {
			r.Problemf("%s: %q is listed already by %s: give each listener an address of its own", name, addr, other)
			return
		}
		owner[addr] = name
	}
	for _, addr := range s.HTTPSAddrs {
		claim("GATEWAY_HTTPS_ADDR", addr)
	}
	for _, addr := range s.HTTPAddrs {
		claim("GATEWAY_HTTP_ADDR", addr)
	}
	if s.AdminAddr != "" {
		claim("GATEWAY_ADMIN_ADDR", s.AdminAddr)
	}
}

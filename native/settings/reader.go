package settings

import (
	"strings"

	"github.com/edge-serverless-box/esb/guard/credentials"
	"github.com/edge-serverless-box/esb/guard/setting"
)

// reader reads what is the native way's alone, too.
type reader struct {
	*setting.Reader
	// arch is the machine's architecture.
	arch string
}

// secrets notes which of the variables nobody has set, and says whether all of them are.
func (r reader) secrets(s *Settings, names ...string) (own bool) {
	own = true
	permitted := r.Bool("ESB_ALLOW_INSECURE_DEFAULTS")
	for _, name := range names {
		value, inFile := r.Text(name), r.Set(name+"_FILE")
		if value == "" && inFile {
			continue // the gateway reads it
		}
		if value == "" {
			s.MadeSecrets = append(s.MadeSecrets, name)
			own = false
		}
		for part := range strings.SplitSeq(value, ",") {
			_, secret, _ := strings.Cut(part, ":") // of an access key
			known := credentials.WellKnown(value) || credentials.WellKnown(secret)
			s.WellKnown = s.WellKnown || known && !permitted
		}
	}
	return own
}

// check finds settings that do not go together, or not with what is started.
func (r reader) check(s Settings) {
	if strings.ContainsAny(s.Home, `:,\`) {
		r.Fail("ESB_HOME", s.Home, "must be a path without ':', ',' and '\\': layers of images cannot be mounted below such a one")
	}
	if strings.ContainsRune(s.BinDir, ':') {
		r.Fail("ESB_BIN_DIR", s.BinDir, "must be a path without ':', because it goes into PATH")
	}
	if len(s.HTTPSAddrs)+len(s.HTTPAddrs) == 0 && !r.Failed("GATEWAY_HTTPS_ADDR", "GATEWAY_HTTP_ADDR") {
		r.Problemf("GATEWAY_HTTPS_ADDR, GATEWAY_HTTP_ADDR: only one of them may be off")
	}
	if n := count(s.AgentTLS.Cert, s.AgentTLS.Key, s.AgentTLS.CA); n != 0 && n != 3 {
		r.Problemf("AGENT_TLS_CERT, AGENT_TLS_KEY, AGENT_TLS_CA: set all three or none")
	}
}

package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/guard/credentials"
	"github.com/edge-serverless-box/esb/guard/secretfile"
	"github.com/edge-serverless-box/esb/guard/setting"
)

// Least lengths of secrets where other machines can try them: what a person may choose and nobody guesses over a network.
const (
	minAPIKey   = 16
	minAuthPass = 12
)

// defaultHTTPS offers the gateway to the network when somebody has set all of its secrets: who does that means to.
func (r reader) defaultHTTPS(subnet netip.Prefix) string {
	for _, name := range []string{credentials.APIKey, credentials.Password, credentials.LambdaKeys} {
		if !r.Set(name) {
			return setting.LocalAddrs(subnet, 443)
		}
	}
	return ":443"
}

// keepSecrets takes the secrets that nobody has set from the file in Home, and makes those that are not there yet.
func (s *Settings) keepSecrets(r reader) {
	var names []string
	for _, name := range []string{credentials.APIKey, credentials.Password, credentials.LambdaKeys} {
		if !r.Set(name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return
	}
	kept, _, err := credentials.Keep(filepath.Join(s.Home, credentials.File), names...)
	if err != nil {
		r.Problemf("%s: not set, and %v", strings.Join(names, ", "), err)
		return
	}
	for _, name := range names {
		switch name {
		case credentials.APIKey:
			s.APIKey = setting.Secret(kept[name])
		case credentials.Password:
			s.AuthPass = setting.Secret(kept[name])
		case credentials.LambdaKeys:
			s.LambdaAccessKeys = r.accessKeys(name, kept[name])
		}
	}
}

// checkSecrets refuses secrets that everybody knows wherever more than this machine's own programs come in, functions
// too, and short ones where other machines do. What is not set yet is nobody's fault.
func (r reader) checkSecrets(s Settings) {
	if s.AllowInsecureDefaults {
		return
	}
	if s.AdminAddr != "" && !setting.Loopback(s.AdminAddr) && !r.Failed("GATEWAY_ADMIN_ADDR") {
		r.Problemf("GATEWAY_ADMIN_ADDR: %q is not on loopback, and its token can be read on the way to it: listen on 127.0.0.1 and put a proxy with TLS in front, or set ESB_ALLOW_INSECURE_DEFAULTS=true", s.AdminAddr)
	}
	var known, short []string
	for _, secret := range []struct {
		name  string
		value setting.Secret
		least int
	}{{credentials.APIKey, s.APIKey, minAPIKey}, {credentials.Password, s.AuthPass, minAuthPass}} {
		switch {
		case secret.value == "":
		case credentials.WellKnown(string(secret.value)):
			known = append(known, secret.name)
		case len(secret.value) < secret.least:
			short = append(short, fmt.Sprintf("%s: has %d characters and must have at least %d", secret.name, len(secret.value), secret.least))
		}
	}
	if s.AuthPass != "" && string(s.AuthPass) == s.AuthUser {
		short = append(short, "AUTH_PASS: is the user's name")
	}
	for _, secret := range s.LambdaAccessKeys { // their length is checked wherever they listen
		if credentials.WellKnown(string(secret)) && !slices.Contains(known, credentials.LambdaKeys) {
			known = append(known, credentials.LambdaKeys)
		}
	}
	if reached := s.listeners(func(addr string) bool { return !setting.Loopback(addr) }); len(known) > 0 && reached != "" {
		r.Problemf("%s: everybody knows this value, which is refused because more than this machine's own programs reach %s: unset it (the box then makes one of its own), set one of yours, or listen on 127.0.0.1 alone",
			strings.Join(known, ", "), reached)
	}
	if reached := s.listeners(func(addr string) bool { return !setting.Local(addr, s.Subnet) }); reached != "" {
		for _, problem := range short {
			r.Problemf("%s, because other machines reach %s: unset it (the box then makes one of its own), or set a better one", problem, reached)
		}
	}
}

// checkSecretFiles refuses files of secrets that everybody on the machine may read. One that is not there is for whoever
// reads it to complain about.
func (r reader) checkSecretFiles(s Settings) {
	for _, f := range []struct{ name, path string }{
		{"TLS_KEY_FILE", s.TLSKeyFile}, {"AGENT_TLS_KEY", s.AgentTLS.KeyFile},
		{"ESB_NATS_CREDENTIALS", s.Async.NATSCredentials}, {"ESB_NATS_KEY", s.Async.NATSTLS.KeyFile},
	} {
		if f.path == "" {
			continue
		}
		if err := secretfile.CheckGiven(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.Problemf("%s: %v", f.name, err)
		}
	}
}

// listeners names those that are of a kind.
func (s Settings) listeners(kind func(addr string) bool) string {
	var all []string
	for _, addr := range s.HTTPSAddrs {
		if kind(addr) {
			all = append(all, fmt.Sprintf("GATEWAY_HTTPS_ADDR %q", addr))
		}
	}
	for _, addr := range s.HTTPAddrs {
		if kind(addr) {
			all = append(all, fmt.Sprintf("GATEWAY_HTTP_ADDR %q", addr))
		}
	}
	return strings.Join(all, ", ")
}

package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/guard/credentials"
	"github.com/edge-serverless-box/esb/guard/secretfile"
)

// Least lengths of secrets where other machines can try them: what a person may choose and nobody guesses over a network.
const (
	minAPIKey   = 16
	minAuthPass = 12
)

// localAddrs are the addresses of what this box and its functions use.
func localAddrs(subnet netip.Prefix, port uint16) string {
	addrs := fmt.Sprintf("127.0.0.1:%d", port)
	if subnet.IsValid() {
		addrs += "," + netip.AddrPortFrom(subnet.Addr().Next(), port).String()
	}
	return addrs
}

// fromFiles are the secrets that a file may hold, which NAME_FILE names: a variable shows in `docker inspect`, and in /proc.
var fromFiles = []string{credentials.APIKey, credentials.Password, credentials.LambdaKeys, "JWT_SECRET_KEY"}

// readFiles puts the secrets of files in the place of variables that are not set.
func (l *loader) readFiles() {
	read, getenv := make(map[string]string), l.getenv
	for _, name := range fromFiles {
		file := getenv(name + "_FILE")
		if file == "" || getenv(name) != "" {
			continue
		}
		data, err := os.ReadFile(file)
		if err != nil {
			l.problemf("%s_FILE: %v", name, err)
			continue
		}
		// Editors end a file with a line break.
		if read[name] = strings.TrimRight(string(data), "\r\n"); read[name] == "" {
			l.problemf("%s_FILE: there is nothing in %s", name, file)
		}
	}
	l.getenv = func(name string) string {
		if value, ok := read[name]; ok {
			return value
		}
		return getenv(name)
	}
}

// defaultHTTPS offers the gateway to the network when somebody has set all of its secrets: who does that means to.
func (l *loader) defaultHTTPS(subnet netip.Prefix) string {
	for _, name := range []string{credentials.APIKey, credentials.Password, credentials.LambdaKeys} {
		if l.getenv(name) == "" {
			return localAddrs(subnet, 443)
		}
	}
	return ":443"
}

// keepSecrets takes the secrets that nobody has set from the file in Home, and makes those that are not there yet.
func (s *Settings) keepSecrets(l *loader) error {
	var names []string
	for _, name := range []string{credentials.APIKey, credentials.Password, credentials.LambdaKeys} {
		if l.getenv(name) == "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	kept, _, err := credentials.Keep(filepath.Join(s.Home, credentials.File), names...)
	if err != nil {
		return fmt.Errorf("%s: not set, and %w", strings.Join(names, ", "), err)
	}
	for _, name := range names {
		switch name {
		case credentials.APIKey:
			s.APIKey = Secret(kept[name])
		case credentials.Password:
			s.AuthPass = Secret(kept[name])
		case credentials.LambdaKeys:
			s.LambdaAccessKeys = l.accessKeys(name, kept[name])
		}
	}
	return nil
}

// checkSecrets refuses secrets that everybody knows wherever more than this machine's own programs come in, functions
// too, and short ones where other machines do. What is not set yet is nobody's fault.
func (l *loader) checkSecrets(s Settings) {
	if s.AllowInsecureDefaults {
		return
	}
	if s.AdminAddr != "" && !loopback(s.AdminAddr) && !l.failed("GATEWAY_ADMIN_ADDR") {
		l.problemf("GATEWAY_ADMIN_ADDR: %q is not on loopback, and its token can be read on the way to it: listen on 127.0.0.1 and put a proxy with TLS in front, or set ESB_ALLOW_INSECURE_DEFAULTS=true", s.AdminAddr)
	}
	var known, short []string
	for _, secret := range []struct {
		name  string
		value Secret
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
	if reached := s.listeners(func(addr string) bool { return !loopback(addr) }); len(known) > 0 && reached != "" {
		l.problemf("%s: everybody knows this value, which is refused because more than this machine's own programs reach %s: unset it (the box then makes one of its own), set one of yours, or listen on 127.0.0.1 alone",
			strings.Join(known, ", "), reached)
	}
	if reached := s.listeners(func(addr string) bool { return !s.local(addr) }); reached != "" {
		for _, problem := range short {
			l.problemf("%s, because other machines reach %s: unset it (the box then makes one of its own), or set a better one", problem, reached)
		}
	}
}

// checkSecretFiles refuses files of secrets that everybody on the machine may read. One that is not there is for whoever
// reads it to complain about.
func (l *loader) checkSecretFiles(s Settings) {
	for _, f := range []struct{ name, path string }{
		{"TLS_KEY_FILE", s.TLSKeyFile}, {"AGENT_TLS_KEY", s.AgentTLS.KeyFile},
		{"ESB_NATS_CREDENTIALS", s.Async.NATSCredentials}, {"ESB_NATS_KEY", s.Async.NATSTLS.KeyFile},
	} {
		if f.path == "" {
			continue
		}
		if err := secretfile.CheckGiven(f.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.problemf("%s: %v", f.name, err)
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

package settings

import (
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
)

var (
	regionPattern    = regexp.MustCompile(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)
	accountPattern   = regexp.MustCompile(`^[0-9]{12}$`)
	accessKeyPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{3,128}$`)
	prefixPattern    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)
	// pathPattern has no {}, so that the path cannot be taken for a route template.
	pathPattern = regexp.MustCompile(`^(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+$`)
)

// minJWTSecret is the least length of an HS256 key (RFC 7518, 3.2: at least the size of the hash).
const minJWTSecret = 32

// minAccessSecret is the least length of an access key's secret; AWS's have 40 characters.
const minAccessSecret = 16

// loader reads variables and collects what is wrong with them.
type loader struct {
	getenv   func(string) string
	problems []string
}

func (l *loader) problemf(format string, args ...any) {
	l.problems = append(l.problems, fmt.Sprintf(format, args...))
}

// failed says whether one of the variables has a problem already.
func (l *loader) failed(names ...string) bool {
	return slices.ContainsFunc(l.problems, func(p string) bool {
		return slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(p, name+":") })
	})
}

func (l *loader) text(name, def string) string {
	if v := l.getenv(name); v != "" {
		return v
	}
	return def
}

func (l *loader) matching(name, def string, pattern *regexp.Regexp, want string) string {
	v := l.text(name, def)
	if !pattern.MatchString(v) {
		l.problemf("%s: must be %s, got %q", name, want, v)
	}
	return v
}

// runtimes reads names of runtimes; nil for none.
func (l *loader) runtimes(name string) []string {
	v := l.getenv(name)
	if v == "" {
		return nil
	}
	var names []string
	for part := range strings.SplitSeq(v, ",") {
		part = strings.TrimSpace(part)
		if !runtimePattern.MatchString(part) {
			l.problemf("%s: must be names of runtimes such as nodejs24.x,python3.11, got %q", name, v)
			return nil
		}
		names = append(names, part)
	}
	return names
}

var runtimePattern = regexp.MustCompile(`^(?:python3\.[0-9]{1,2}|nodejs[0-9]{1,2}\.x|provided\.al2|provided\.al2023)$`)

func (l *loader) urlPath(name, def string) string {
	return l.matching(name, def, pathPattern, "a URL path such as "+def+", without a slash at its end")
}

func (l *loader) onOff(name string, def bool) bool {
	switch v := l.getenv(name); v {
	case "":
		return def
	case "on":
		return true
	case Off:
		return false
	default:
		l.problemf("%s: must be on or off, got %q", name, v)
		return def
	}
}

func (l *loader) boolean(name string, def bool) bool {
	v := l.getenv(name)
	if v == "" {
		return def
	}
	switch strings.ToLower(v) {
	case "true", "1":
		return true
	case "false", "0":
		return false
	}
	l.problemf("%s: must be true or false, got %q", name, v)
	return def
}

func (l *loader) integer(name string, def, least, most int) int {
	v := l.getenv(name)
	if v == "" {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < least || n > most {
		l.problemf("%s: must be a whole number from %d to %d, got %q", name, least, most, v)
		return def
	}
	return n
}

// duration reads a number of units, decimals allowed.
func (l *loader) duration(name string, unit time.Duration, def, least, most float64) time.Duration {
	n := def
	if v := l.getenv(name); v != "" {
		parsed, err := strconv.ParseFloat(v, 64)
		if err != nil || math.IsNaN(parsed) || parsed < least || parsed > most {
			l.problemf("%s: must be a number of %s from %s to %s, got %q", name, unitName(unit), number(least), number(most), v)
		} else {
			n = parsed
		}
	}
	return time.Duration(n * float64(unit))
}

func unitName(unit time.Duration) string {
	switch unit {
	case time.Minute:
		return "minutes"
	case 24 * time.Hour:
		return "days"
	}
	return "seconds"
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func (l *loader) addr(name, def string) string {
	v := l.text(name, def)
	if !validAddr(v) {
		l.problemf("%s: must be host:port, such as %s, got %q", name, def, v)
		return ""
	}
	return v
}

func (l *loader) addrOrOff(name, def string) string {
	v := l.text(name, def)
	if v == Off {
		return ""
	}
	if !validAddr(v) {
		l.problemf("%s: must be host:port, such as %s, or off, got %q", name, def, v)
		return ""
	}
	return v
}

func (l *loader) addrs(name, def string) []string {
	v := l.text(name, def)
	if v == Off {
		return nil
	}
	var addrs []string
	for part := range strings.SplitSeq(v, ",") {
		part = strings.TrimSpace(part)
		if !validAddr(part) {
			_, port, _ := net.SplitHostPort(def[:strings.IndexByte(def+",", ',')])
			l.problemf("%s: must be a comma separated list of host:port, such as 127.0.0.1:%s, or off, got %q", name, port, part)
			continue
		}
		addrs = append(addrs, part)
	}
	return addrs
}

func validAddr(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || strings.ContainsAny(host, " \t/") {
		return false
	}
	_, err = strconv.ParseUint(port, 10, 16)
	return err == nil
}

// store reads the settings of a store that begin with prefix.
func (l *loader) store(prefix, endpoint string) Store {
	return Store{
		Endpoint:  l.endpoint(prefix+"_ENDPOINT", endpoint),
		AccessKey: l.text(prefix+"_ACCESS_KEY", DefaultStoreAccessKey),
		SecretKey: Secret(l.text(prefix+"_SECRET_KEY", DefaultStoreSecretKey)),
	}
}

// endpoint reads the URL of a store, empty for "off". Credentials in it would be shown in errors and are refused.
func (l *loader) endpoint(name, def string) string {
	v := l.text(name, def)
	if v == Off {
		return ""
	}
	u, err := url.Parse(v)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		l.problemf("%s: must be an http or https URL without credentials, such as %s, or off", name, def)
		return ""
	}
	return strings.TrimSuffix(v, "/")
}

// natsURL reads the URLs of a NATS cluster. They may hold a password, so that no message shows them.
func (l *loader) natsURL(name string) Secret {
	v := l.getenv(name)
	if v == "" || v == Off {
		return ""
	}
	for part := range strings.SplitSeq(v, ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) || u.Hostname() == "" || (u.Path != "" && u.Path != "/") {
			l.problemf("%s: must be a comma separated list of URLs such as nats://host:4222 or tls://user:password@host:4222", name)
			return ""
		}
	}
	return Secret(v)
}

func (l *loader) subnet(name, def string) netip.Prefix {
	v := l.text(name, def)
	p, err := netip.ParsePrefix(v)
	if err != nil || !p.Addr().Is4() || p.Bits() < 8 || p.Bits() > 29 {
		l.problemf("%s: must be an IPv4 network from /8 to /29, such as %s, got %q", name, def, v)
		return netip.Prefix{}
	}
	if p != p.Masked() {
		l.problemf("%s: %q has host bits set; the network is %s", name, v, p.Masked())
		return netip.Prefix{}
	}
	return p
}

func (l *loader) level(name string, def slog.Level) slog.Level {
	switch v := l.getenv(name); strings.ToUpper(v) {
	case "":
		return def
	case "DEBUG":
		return slog.LevelDebug
	case "INFO":
		return slog.LevelInfo
	case "WARN", "WARNING":
		return slog.LevelWarn
	case "ERROR":
		return slog.LevelError
	default:
		l.problemf("%s: must be DEBUG, INFO, WARN or ERROR, got %q", name, v)
		return def
	}
}

// accessKeys reads pairs of access key id and secret.
func (l *loader) accessKeys(name, v string) map[string]Secret {
	if v == Off {
		return nil
	}
	keys := make(map[string]Secret)
	for i, pair := range strings.Split(v, ",") {
		id, secret, ok := strings.Cut(strings.TrimSpace(pair), ":")
		switch {
		case !ok || !accessKeyPattern.MatchString(id):
			// The text may be a secret.
			l.problemf("%s: pair %d must be id:secret, with an id of 3 to 128 letters, digits, - and _", name, i+1)
		case len(secret) < minAccessSecret:
			l.problemf("%s: the secret of %s must have at least %d characters, has %d", name, id, minAccessSecret, len(secret))
		case keys[id] != "":
			l.problemf("%s: has %s twice", name, id)
		case strings.HasPrefix(id, functionkeys.Prefix):
			l.problemf("%s: %s begins with %s, as the functions' own keys do: choose another id", name, id, functionkeys.Prefix)
		default:
			keys[id] = Secret(secret)
		}
	}
	return keys
}

func (l *loader) jwtSecret(name string) Secret {
	v := l.getenv(name)
	if v != "" && len(v) < minJWTSecret {
		l.problemf("%s: must be at least %d bytes, has %d", name, minJWTSecret, len(v))
	}
	return Secret(v)
}

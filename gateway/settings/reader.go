package settings

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
)

var (
	accessKeyPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{3,128}$`)
	prefixPattern    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)
	// pathPattern has no {}, so that the path cannot be taken for a route template.
	pathPattern    = regexp.MustCompile(`^(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+$`)
	runtimePattern = regexp.MustCompile(`^(?:python3\.[0-9]{1,2}|nodejs[0-9]{1,2}\.x|provided\.al2|provided\.al2023)$`)
)

// minJWTSecret is the least length of an HS256 key (RFC 7518, 3.2: at least the size of the hash).
const minJWTSecret = 32

// minAccessSecret is the least length of an access key's secret; AWS's have 40 characters.
const minAccessSecret = 16

// reader reads what is the gateway's alone, too.
type reader struct{ *setting.Reader }

// runtimes reads names of runtimes; nil for none.
func (r reader) runtimes(name string) []string {
	names := r.List(name)
	for _, n := range names {
		if !runtimePattern.MatchString(n) {
			r.Fail(name, n, "must be names of runtimes such as nodejs24.x,python3.11")
		}
	}
	return names
}

// store reads the settings of a store that begin with prefix.
func (r reader) store(prefix string) Store {
	return Store{Endpoint: r.URL(prefix + "_ENDPOINT"), AccessKey: r.Text(prefix + "_ACCESS_KEY"), SecretKey: r.Secret(prefix + "_SECRET_KEY")}
}

// natsURL reads the URLs of a NATS cluster. They may hold a password, so that no message shows them.
func (r reader) natsURL(name string) setting.Secret {
	v := string(r.Secret(name))
	if v == "" || v == setting.Off {
		return ""
	}
	for part := range strings.SplitSeq(v, ",") {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) || u.Hostname() == "" || (u.Path != "" && u.Path != "/") {
			r.Problemf("%s: must be a comma separated list of URLs such as nats://host:4222 or tls://user:password@host:4222", name)
			return ""
		}
	}
	return setting.Secret(v)
}

// accessKeys takes pairs of access key id and secret apart.
func (r reader) accessKeys(name, pairs string) map[string]setting.Secret {
	if pairs == "" || pairs == setting.Off {
		return nil
	}
	keys := make(map[string]setting.Secret)
	for i, pair := range strings.Split(pairs, ",") {
		id, secret, ok := strings.Cut(strings.TrimSpace(pair), ":")
		switch {
		case !ok || !accessKeyPattern.MatchString(id):
			// The text may be a secret.
			r.Problemf("%s: pair %d must be id:secret, with an id of 3 to 128 letters, digits, - and _", name, i+1)
		case len(secret) < minAccessSecret:
			r.Problemf("%s: the secret of %s must have at least %d characters, has %d", name, id, minAccessSecret, len(secret))
		case keys[id] != "":
			r.Problemf("%s: has %s twice", name, id)
		case strings.HasPrefix(id, functionkeys.Prefix):
			r.Problemf("%s: %s begins with %s, as the functions' own keys do: choose another id", name, id, functionkeys.Prefix)
		default:
			keys[id] = setting.Secret(secret)
		}
	}
	return keys
}

func (r reader) jwtSecret(name string) setting.Secret {
	v := r.Secret(name)
	if v != "" && len(v) < minJWTSecret {
		r.Problemf("%s: must be at least %d bytes, has %d", name, minJWTSecret, len(v))
	}
	return v
}

package config

import (
	"crypto/subtle"
	"crypto/x509"
	"fmt"
	"net/netip"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/edge-serverless-box/esb/gateway"
)

// Limits and defaults of what guards routes.
const (
	// AWS: TTL of an authorizer's answer, seconds (Authorizer resource, authorizerResultTtlInSeconds).
	defaultAuthorizerCache, maxAuthorizerCache = 300, 3600
	// AWS: an API key has 20 to 128 characters.
	minAPIKey, maxAPIKey = 20, 128
	// AWS: Access-Control-Max-Age, seconds (HTTP API, Cors).
	maxCORSAge = 86400
	// The rate of a throttle, requests a second: one a minute to more than the box can serve.
	minRate, maxRate = 1.0 / 60, 1_000_000
	maxBurst         = 1_000_000
	// Times of issuers, seconds.
	defaultRefresh, minRefresh, maxRefresh = 3600, 10, 7 * 24 * 3600
	defaultGrace, maxGrace                 = 86400, 365 * 24 * 3600
	defaultLeeway, maxLeeway               = 5, 300
)

var (
	accessName   = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	headerName   = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
	corsOrigin   = regexp.MustCompile(`^[a-z][a-z0-9+.-]*://(?:\*|(?:\*\.)?[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?$`)
	identityForm = regexp.MustCompile(`^(?:method\.request\.|\$request\.|\$?)(header|querystring|context)\.(.+)$`)
)

// identityContext are the context variables that an identity source may name.
var identityContext = []string{"httpMethod", "identity.sourceIp", "path", "resourcePath", "routeKey", "stage"}

// tokenAlgorithms are the signatures with a public key.
var tokenAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// access is the part of routing.yml about who may call, while it is read.
type access struct {
	gateway.Access
	issuers     map[string]*gateway.Issuer
	authorizers map[string]*gateway.Authorizer
	// declared are the names of api_keys, issuers and authorizers as they stand, the refused ones too, so that a route with
	// one of those is no second problem.
	declaredKeys, declaredIssuers, declaredAuthorizers []string
	// functions are the functions that authorizers name, looked up when all inline ones are known.
	functions []authorizerFunction
}

type authorizerFunction struct {
	value      value
	name       string
	authorizer *gateway.Authorizer
}

// access reads the keys of the top level.
func (r *routing) readAccess(top *object) {
	a := &r.access
	a.issuers, a.authorizers = make(map[string]*gateway.Issuer), make(map[string]*gateway.Authorizer)
	r.named(top, "api_keys", "a mapping of names to keys", &a.declaredKeys, func(name string, v value) {
		if key, ok := v.apiKey(); ok {
			a.APIKeys = append(a.APIKeys, gateway.APIKey{Name: name, Value: key})
		}
	})
	for i, k := range a.APIKeys {
		for _, other := range a.APIKeys[:i] {
			if subtle.ConstantTimeCompare([]byte(k.Value), []byte(other.Value)) == 1 {
				top.fields["api_keys"].problemf("%s and %s have the same value: give each client a key of its own", other.Name, k.Name)
			}
		}
	}
	r.named(top, "issuers", "a mapping of names to issuers of tokens", &a.declaredIssuers, func(name string, v value) {
		if name == gateway.OwnIssuer {
			v.problemf("%s is the name of the box's own tokens: choose another", name)
			return
		}
		if o, ok := v.object(); ok {
			if i := o.issuer(name); i != nil {
				a.issuers[name] = i
				a.Issuers = append(a.Issuers, i)
			}
		}
	})
	r.named(top, "authorizers", "a mapping of names to Lambda authorizers", &a.declaredAuthorizers, func(name string, v value) {
		if o, ok := v.object(); ok {
			a.authorizers[name] = r.authorizer(o, name, gateway.PayloadV1)
			o.close()
		}
	})
	if v, ok := top.get("cors"); ok {
		a.CORS = v.cors()
	}
	if v, ok := top.get("throttle"); ok {
		a.Throttle = v.throttle("api")
	}
}

// named reads a mapping of names to something.
func (r *routing) named(top *object, key, want string, declared *[]string, read func(name string, v value)) {
	v, ok := top.get(key)
	if !ok {
		return
	}
	if v.node.Kind != yaml.MappingNode {
		v.wrongType(want)
		return
	}
	o, ok := v.object()
	if !ok {
		return
	}
	for _, name := range o.names {
		entry := o.fields[name]
		*declared = append(*declared, name)
		switch {
		case !accessName.MatchString(name):
			entry.problemf("is not a name: 1 to 64 letters, digits, dashes and underscores")
		case entry.null(): // reported by object
		default:
			read(name, entry)
		}
	}
}

// apiKey reads a secret: no message may show it.
func (v value) apiKey() (string, bool) {
	if v.node.Kind != yaml.ScalarNode {
		v.wrongType("a key, best as ${NAME}")
		return "", false
	}
	text, _, ok := v.scalar("a key, best as ${NAME}")
	if !ok {
		return "", false
	}
	if len(text) < minAPIKey || len(text) > maxAPIKey || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		v.problemf("must be %d to %d printable ASCII characters without spaces (AWS's limits); has %d bytes", minAPIKey, maxAPIKey, len(text))
		return "", false
	}
	return text, true
}

// issuer reads an issuer and closes o; nil when it was refused.
func (o *object) issuer(name string) *gateway.Issuer {
	before := len(o.doc.problems)
	i := &gateway.Issuer{Name: name, Algorithms: []string{"RS256", "ES256", "EdDSA"}}
	if v, ok := o.need("issuer", "the claim iss of its tokens, such as https://login.example.com/"); ok {
		i.URL = v.issuerURL()
	}
	if v, ok := o.get("jwks_url"); ok {
		i.JWKSURL = v.issuerURL()
	}
	if v, ok := o.need("audiences", "a list of what the claim aud (or client_id) may be"); ok {
		i.Audiences = v.someTexts("an audience")
	}
	if v, ok := o.get("algorithms"); ok {
		if items, ok := v.nonEmptyList(); ok {
			i.Algorithms = nil
			for _, item := range items {
				if s, ok := item.oneOf(tokenAlgorithms...); ok {
					i.Algorithms = append(i.Algorithms, s)
				}
			}
		}
	}
	seconds := func(key string, def, least, most float64) time.Duration {
		n := def
		if v, ok := o.get(key); ok {
			if given, ok := v.number(least, most, "seconds"); ok {
				n = given
			}
		}
		return time.Duration(n * float64(time.Second))
	}
	i.Refresh = seconds("refresh", defaultRefresh, minRefresh, maxRefresh)
	i.Grace = seconds("grace", defaultGrace, 0, maxGrace)
	i.Leeway = seconds("leeway", defaultLeeway, 0, maxLeeway)
	if v, ok := o.get("grace"); ok && i.Grace < i.Refresh {
		v.problemf("must not be shorter than refresh (%s s): the keys would be too old between two fetches", decimal(i.Refresh.Seconds()))
	}
	if v, ok := o.get("ca_file"); ok {
		if s, ok := v.text("the path of a PEM file"); ok {
			if !filepath.IsAbs(s) {
				s = filepath.Join(filepath.Dir(v.doc.path), s)
			}
			if pem, err := os.ReadFile(s); err != nil {
				v.problemf("cannot be read: %v", err)
			} else if !x509.NewCertPool().AppendCertsFromPEM(pem) {
				v.problemf("%s has no certificate in PEM", s)
			}
			i.CAFile = s
		}
	}
	o.close()
	if len(o.doc.problems) > before {
		return nil
	}
	return i
}

// issuerURL reads an https URL; plain http is for issuers on this machine.
func (v value) issuerURL() string {
	const want = "an https URL (http only for one on this machine)"
	s, ok := v.text(want)
	if !ok {
		return ""
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" ||
		u.Scheme != "https" && (u.Scheme != "http" || !loopbackHost(u.Hostname())) {
		v.problemf("must be %s, got %q", want, s)
		return ""
	}
	return s
}

func loopbackHost(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// auth reads a route's auth into rt.
func (r *routing) auth(v value, rt *gateway.Route) {
	if v.node.Kind != yaml.MappingNode {
		if s, ok := v.oneOf(string(gateway.AuthJWT), string(gateway.AuthAPIKey), string(gateway.AuthNone)); ok {
			rt.Auth = gateway.AuthKind(s)
		}
		return
	}
	o, ok := v.object()
	if !ok {
		return
	}
	var kinds []string
	for _, kind := range []string{"jwt", "api_key", "function", "authorizer"} {
		if o.has(kind) {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) != 1 {
		v.problemf("must have one of the keys jwt, api_key, function and authorizer, has %d of them", len(kinds))
		return
	}
	switch kinds[0] {
	case "jwt":
		rt.Auth = gateway.AuthJWT
		rt.Tokens = r.tokens(o)
	case "api_key":
		rt.Auth = gateway.AuthAPIKey
		if names, ok := o.get("api_key"); ok {
			rt.APIKeys = r.references(names, "an API key", "api_keys", r.access.declaredKeys)
		}
	case "authorizer":
		rt.Auth = gateway.AuthFunction
		if name, ok := o.get("authorizer"); ok {
			if s, ok := name.text("the name of an authorizer"); ok {
				if r.known(name, s, "authorizer", "authorizers", r.access.declaredAuthorizers) {
					rt.Authorizer = r.access.authorizers[s]
				}
			}
		}
	default:
		rt.Auth = gateway.AuthFunction
		rt.Authorizer = r.authorizer(o, strings.Join(rt.Methods, ",")+" "+rt.Path, rt.Payload)
	}
	o.close()
}

// tokens reads whose tokens a route takes.
func (r *routing) tokens(o *object) *gateway.TokenPolicy {
	p := &gateway.TokenPolicy{}
	if v, ok := o.get("jwt"); ok {
		for _, name := range r.references(v, "an issuer", "issuers", append([]string{gateway.OwnIssuer}, r.access.declaredIssuers...)) {
			if name == gateway.OwnIssuer {
				p.Own = true
			} else if i := r.access.issuers[name]; i != nil {
				p.Issuers = append(p.Issuers, i)
			}
		}
	}
	if v, ok := o.get("scopes"); ok {
		p.Scopes = v.someTexts("a scope")
	}
	return p
}

// references reads a name or a list of names that are declared under key.
func (r *routing) references(v value, what, key string, declared []string) []string {
	items := []value{v}
	if v.node.Kind == yaml.SequenceNode {
		var ok bool
		if items, ok = v.nonEmptyList(); !ok {
			return nil
		}
	}
	var names []string
	for _, item := range items {
		s, ok := item.text("the name of " + what)
		if !ok || !r.known(item, s, what, key, declared) {
			continue
		}
		if slices.Contains(names, s) {
			item.problemf("%s is listed twice", s)
			continue
		}
		names = append(names, s)
	}
	return names
}

func (r *routing) known(v value, name, what, key string, declared []string) bool {
	if slices.Contains(declared, name) {
		return true
	}
	if guess := nearest(name, declared); guess != "" {
		v.problemf("there is no %s %s under %s; did you mean %s?", strings.TrimPrefix(what, "an "), name, key, guess)
	} else {
		v.problemf("there is no %s %s under %s", strings.TrimPrefix(what, "an "), name, key)
	}
	return false
}

// authorizer reads a Lambda authorizer; the caller closes o.
func (r *routing) authorizer(o *object, name string, payload gateway.PayloadVersion) *gateway.Authorizer {
	a := &gateway.Authorizer{
		Name: name, Type: gateway.AuthorizerRequest, Payload: payload, Cache: defaultAuthorizerCache * time.Second,
		Identity: []gateway.IdentitySource{{Kind: gateway.IdentityHeader, Name: "Authorization"}},
	}
	if v, ok := o.need("function", "the name of the function that decides"); ok {
		if s, ok := v.text("the name of a function"); ok {
			r.access.functions = append(r.access.functions, authorizerFunction{value: v, name: s, authorizer: a})
		}
	}
	if v, ok := o.get("type"); ok {
		if s, ok := v.oneOf(string(gateway.AuthorizerRequest), string(gateway.AuthorizerToken)); ok {
			a.Type = gateway.AuthorizerType(s)
		}
	}
	token := a.Type == gateway.AuthorizerToken
	if token {
		a.Payload = gateway.PayloadV1
	}
	if v, ok := o.get("cache"); ok {
		if n, ok := v.number(0, maxAuthorizerCache, "seconds"); ok {
			a.Cache = time.Duration(n * float64(time.Second))
		}
	}
	if v, ok := o.get("payload"); ok {
		if s, ok := v.oneOf(string(gateway.PayloadV1), string(gateway.PayloadV2)); ok {
			a.Payload = gateway.PayloadVersion(s)
		}
		if token && a.Payload != gateway.PayloadV1 {
			v.problemf("must be \"1.0\" with type: token, which only REST APIs have")
		}
	}
	if v, ok := o.get("simple"); ok {
		a.Simple, _ = v.boolean()
		if a.Simple && a.Payload != gateway.PayloadV2 {
			v.problemf("true needs payload: \"2.0\": the answer to format 1.0 is always a policy")
		}
	}
	if v, ok := o.get("identity"); ok {
		a.Identity = v.identity()
		if len(a.Identity) == 0 && a.Cache > 0 && v.node.Kind == yaml.SequenceNode && len(v.node.Content) == 0 {
			v.problemf("must not be empty while answers are cached: it is the cache's key; or set cache: 0")
		}
		if token && (len(a.Identity) != 1 || a.Identity[0].Kind != gateway.IdentityHeader) {
			v.problemf("must be one header with type: token")
		}
	}
	if v, ok := o.get("validation"); ok {
		if s, ok := v.text("a regular expression"); ok {
			if _, err := regexp.Compile(s); err != nil {
				v.problemf("is not a regular expression: %v", err)
			}
			a.Validation = s
		}
		if !token {
			v.problemf("is for type: token only")
		}
	}
	return a
}

// identity reads where a request's identity is: "Authorization", "header.X-Tenant", "querystring.key", "context.routeKey",
// or AWS's expressions for the same.
func (v value) identity() []gateway.IdentitySource {
	const want = "a header's name, querystring.<name>, context.<name>, or AWS's expressions for them"
	items := []value{v}
	if v.node.Kind == yaml.SequenceNode {
		items, _ = v.list()
	}
	var sources []gateway.IdentitySource
	for _, item := range items {
		s, ok := item.text(want)
		if !ok {
			continue
		}
		source := gateway.IdentitySource{Kind: gateway.IdentityHeader, Name: s}
		if m := identityForm.FindStringSubmatch(s); m != nil {
			source = gateway.IdentitySource{Kind: gateway.IdentityKind(m[1]), Name: m[2]}
		}
		switch source.Kind {
		case gateway.IdentityHeader:
			if !headerName.MatchString(source.Name) || strings.HasPrefix(s, "$") && source.Name == s {
				item.problemf("must be %s, got %q", want, s)
				continue
			}
			source.Name = textproto.CanonicalMIMEHeaderKey(source.Name)
		case gateway.IdentityContext:
			if !slices.Contains(identityContext, source.Name) {
				item.problemf("names a context variable that is not supported; supported are %s", strings.Join(identityContext, ", "))
				continue
			}
		}
		if slices.Contains(sources, source) {
			item.problemf("is listed twice")
			continue
		}
		sources = append(sources, source)
	}
	return sources
}

// throttle reads a token bucket.
func (v value) throttle(id string) *gateway.Throttle {
	o, ok := v.object()
	if !ok {
		return nil
	}
	t := &gateway.Throttle{ID: id}
	if v, ok := o.need("rate", "requests a second"); ok {
		t.Rate, _ = v.number(minRate, maxRate, "requests a second")
	}
	t.Burst = max(1, int(t.Rate))
	if v, ok := o.get("burst"); ok {
		t.Burst, _ = v.integer(1, maxBurst, "requests")
	}
	o.close()
	return t
}

// throttleID tells the bucket of a route from others, and stays when other parts of the route change.
func throttleID(rt *gateway.Route) string {
	methods := slices.Clone(rt.Methods)
	slices.Sort(methods)
	return fmt.Sprintf("route %s %s", strings.Join(methods, ","), rt.Path)
}

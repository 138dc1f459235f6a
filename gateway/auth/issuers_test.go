package auth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/auth"
)

// patience is for what must happen, however slow the machine.
const patience = 60 * time.Second

// rsaKey is made once: it takes a while.
var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// idp is an OpenID Connect issuer with an HTTP server of its own.
type idp struct {
	t      *testing.T
	server *httptest.Server

	// mu guards what the server says and how often it was asked.
	mu    sync.Mutex
	jwks  any
	asked int
	// private keys by kid.
	keys map[string]jwk.Key
}

func mustIDP(t *testing.T) *idp {
	p := &idp{t: t, keys: make(map[string]jwk.Key)}
	mux := http.NewServeMux()
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked++
		_ = json.NewEncoder(w).Encode(p.jwks)
	})
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": p.server.URL, "jwks_uri": p.server.URL + "/keys"})
	})
	p.server = httptest.NewServer(mux)
	t.Cleanup(p.server.Close)
	return p
}

// publish makes the keys of these ids the issuer's, and makes those that are new.
func (p *idp) publish(ids ...string) {
	p.t.Helper()
	set := jwk.NewSet()
	for _, id := range ids {
		if p.keys[id] == nil {
			var raw any
			var err error
			switch id[:2] {
			case "ES":
				raw, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			case "Ed":
				_, raw, err = ed25519.GenerateKey(rand.Reader)
			default:
				raw = rsaKey()
			}
			require.NoError(p.t, err)
			k, err := jwk.FromRaw(raw)
			require.NoError(p.t, err)
			require.NoError(p.t, k.Set(jwk.KeyIDKey, id))
			p.keys[id] = k
		}
		public, err := p.keys[id].PublicKey()
		require.NoError(p.t, err)
		require.NoError(p.t, set.AddKey(public))
	}
	p.mu.Lock()
	p.jwks = set
	p.mu.Unlock()
}

func (p *idp) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked
}

func (p *idp) spec(change ...func(*gateway.Issuer)) *gateway.Issuer {
	s := &gateway.Issuer{Name: "corp", URL: p.server.URL, JWKSURL: p.server.URL + "/keys", Audiences: []string{"app", "other"},
		Algorithms: []string{"RS256", "ES256", "EdDSA"}, Refresh: time.Hour, Grace: 24 * time.Hour, Leeway: 5 * time.Second}
	for _, c := range change {
		c(s)
	}
	return s
}

// token signs claims over those of a good token; nil removes one.
func (p *idp) token(alg jwa.SignatureAlgorithm, kid string, now time.Time, claims map[string]any) string {
	p.t.Helper()
	token := jwt.New()
	all := map[string]any{"iss": p.server.URL, "aud": "app", "sub": "someone", "exp": now.Add(time.Hour), "iat": now, "scope": "read write"}
	for k, v := range claims {
		all[k] = v
	}
	for k, v := range all {
		if v != nil {
			require.NoError(p.t, token.Set(k, v))
		}
	}
	signed, err := jwt.Sign(token, jwt.WithKey(alg, p.keys[kid]))
	require.NoError(p.t, err)
	return string(signed)
}

// box are Rules with issuers.
type box struct {
	*auth.Rules
	issuers *auth.Issuers
	clock   *lockedClock
}

type lockedClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *lockedClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *lockedClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func mustBox(t *testing.T, dir string, specs ...*gateway.Issuer) *box {
	t.Helper()
	b := &box{clock: &lockedClock{now: time.Now().Truncate(time.Second)}}
	b.issuers = auth.OpenIssuers(auth.IssuersOptions{Dir: dir, Logger: slog.New(slog.DiscardHandler), Now: b.clock.Now})
	t.Cleanup(b.issuers.Close)
	a, err := auth.New(auth.Options{APIKey: "key", User: "user", Password: "pass", Secret: secret, Expires: time.Minute,
		Region: "us-east-1", Issuers: b.issuers, Now: b.clock.Now})
	require.NoError(t, err)
	b.Rules = &auth.Rules{Authenticator: a}
	require.NoError(t, b.reload(specs...))
	return b
}

// reload uses the Rules of other issuers.
func (b *box) reload(specs ...*gateway.Issuer) error {
	rules, err := b.Compile(gateway.Access{Issuers: specs})
	if err != nil {
		return err
	}
	b.Use(rules)
	b.Rules = rules
	return nil
}

func (b *box) admit(spec *gateway.Issuer, token string) (*gateway.Caller, error) {
	route := &gateway.Route{Auth: gateway.AuthJWT, Payload: gateway.PayloadV2, Tokens: &gateway.TokenPolicy{Issuers: []*gateway.Issuer{spec}}}
	return b.Admit(context.Background(), route, authorization("Bearer "+token))
}

func TestIssuers_Tokens(t *testing.T) {
	p := mustIDP(t)
	p.publish("RS-1", "ES-1", "Ed-1")
	spec := p.spec()
	b := mustBox(t, t.TempDir(), spec)
	now := b.clock.Now()
	alone := p.token(jwa.RS256, "RS-1", now, map[string]any{"aud": nil, "client_id": "app", "cognito:groups": []string{"x", "y"}, "cognito:username": "u"})
	caller, err := b.admit(spec, alone)
	require.NoError(t, err)
	assert.Equal(t, "u", caller.Username)
	assert.Equal(t, []string{"read", "write"}, caller.Scopes)
	assert.Contains(t, caller.Claims, gateway.Claim{Name: "cognito:groups", Value: "x,y", HTTP: "[x y]"})

	der, err := x509.MarshalPKIXPublicKey(&rsaKey().PublicKey)
	require.NoError(t, err)
	hmac, err := jwk.FromRaw(der)
	require.NoError(t, err)
	require.NoError(t, hmac.Set(jwk.KeyIDKey, "RS-1"))
	p.keys["hmac"] = hmac
	unsigned, err := jws.Sign([]byte(`{"iss":"`+p.server.URL+`","aud":"app","exp":99999999999}`), jws.WithInsecureNoSignature())
	require.NoError(t, err)
	critical := jws.NewHeaders()
	require.NoError(t, critical.Set("crit", []string{"x"}))
	require.NoError(t, critical.Set("x", true))
	criticalToken, err := jws.Sign([]byte(`{"iss":"`+p.server.URL+`","aud":"app","exp":99999999999}`), jws.WithKey(jwa.RS256, p.keys["RS-1"], jws.WithProtectedHeaders(critical)))
	require.NoError(t, err)
	for _, c := range []struct {
		name, token, want string
		code              gateway.Code
	}{
		{"RSA", p.token(jwa.RS256, "RS-1", now, nil), "", ""},
		{"elliptic curve", p.token(jwa.ES256, "ES-1", now, nil), "", ""},
		{"Ed25519", p.token(jwa.EdDSA, "Ed-1", now, nil), "", ""},
		{"one audience of several", p.token(jwa.RS256, "RS-1", now, map[string]any{"aud": []string{"x", "other"}}), "", ""},
		{"expired within the leeway", p.token(jwa.RS256, "RS-1", now, map[string]any{"exp": now.Add(-4 * time.Second)}), "", ""},
		{"expired", p.token(jwa.RS256, "RS-1", now, map[string]any{"exp": now.Add(-5 * time.Second)}), "the token has expired", gateway.CodeTokenExpired},
		{"never expires", p.token(jwa.RS256, "RS-1", now, map[string]any{"exp": nil}), "the token does not expire", gateway.CodeUnauthorized},
		{"not yet", p.token(jwa.RS256, "RS-1", now, map[string]any{"nbf": now.Add(time.Minute)}), "the token is not valid yet", gateway.CodeUnauthorized},
		{"from the future", p.token(jwa.RS256, "RS-1", now, map[string]any{"iat": now.Add(time.Minute)}), "the token was issued in the future", gateway.CodeUnauthorized},
		{"another issuer", p.token(jwa.RS256, "RS-1", now, map[string]any{"iss": p.server.URL + "/"}), "the token does not have a valid issuer", gateway.CodeUnauthorized},
		{"another audience", p.token(jwa.RS256, "RS-1", now, map[string]any{"aud": "else"}), "the token does not have a valid audience", gateway.CodeUnauthorized},
		{"client_id does not count beside aud", p.token(jwa.RS256, "RS-1", now, map[string]any{"aud": "else", "client_id": "app"}), "the token does not have a valid audience", gateway.CodeUnauthorized},
		{"another client_id", p.token(jwa.RS256, "RS-1", now, map[string]any{"aud": nil, "client_id": "else"}), "the token does not have a valid audience", gateway.CodeUnauthorized},
		{"HMAC with the public key", p.token(jwa.HS256, "hmac", now, nil), "signing method HS256 is invalid", gateway.CodeUnauthorized},
		{"none", string(unsigned), "signing method none is invalid", gateway.CodeUnauthorized},
		{"an algorithm that is not listed", p.token(jwa.RS512, "RS-1", now, nil), "signing method RS512 is invalid", gateway.CodeUnauthorized},
		{"critical header", string(criticalToken), "the token has critical headers", gateway.CodeUnauthorized},
		{"signature changed", p.token(jwa.ES256, "ES-1", now, nil)[:200] + "AAAA", "", gateway.CodeUnauthorized},
		{"rubbish", "a.b.c", "the token is malformed", gateway.CodeUnauthorized},
		{"nothing", "", "the token is malformed", gateway.CodeUnauthorized},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := b.admit(spec, c.token)
			assert.Equal(t, c.code, gateway.ErrorCode(err), "%v", err)
			if c.want != "" {
				var e *gateway.Error
				require.ErrorAs(t, err, &e)
				assert.Equal(t, `Bearer scope="" error="invalid_token" error_description="`+c.want+`"`, e.Challenge)
			}
		})
	}
}

func TestIssuers_AKeyOfAnotherKind_IsNotTried(t *testing.T) {
	p := mustIDP(t)
	p.publish("RS-1", "ES-1")
	spec := p.spec()
	b := mustBox(t, t.TempDir(), spec)
	// The token names the RSA key and is signed with the other one.
	require.NoError(t, p.keys["ES-1"].Set(jwk.KeyIDKey, "RS-1"))
	_, err := b.admit(spec, p.token(jwa.ES256, "ES-1", b.clock.Now(), nil))
	assert.Equal(t, gateway.CodeUnauthorized, gateway.ErrorCode(err))
}

func TestAdmit_Policies(t *testing.T) {
	p := mustIDP(t)
	p.publish("RS-1")
	spec := p.spec()
	b := mustBox(t, t.TempDir(), spec)
	own := mustLogin(t, b.Authenticator)
	theirs := p.token(jwa.RS256, "RS-1", b.clock.Now(), nil)
	list := p.token(jwa.RS256, "RS-1", b.clock.Now(), map[string]any{"scope": nil, "scp": []string{"write"}})
	for _, c := range []struct {
		name   string
		policy *gateway.TokenPolicy
		token  string
		want   gateway.Code
	}{
		{"own only, own token", nil, own, ""},
		{"own only, theirs", nil, theirs, gateway.CodeUnauthorized},
		{"theirs only, own token", &gateway.TokenPolicy{Issuers: []*gateway.Issuer{spec}}, own, gateway.CodeUnauthorized},
		{"both, own token", &gateway.TokenPolicy{Own: true, Issuers: []*gateway.Issuer{spec}}, own, ""},
		{"both, theirs", &gateway.TokenPolicy{Own: true, Issuers: []*gateway.Issuer{spec}}, theirs, ""},
		{"a scope", &gateway.TokenPolicy{Issuers: []*gateway.Issuer{spec}, Scopes: []string{"admin", "read"}}, theirs, ""},
		{"a scope of scp", &gateway.TokenPolicy{Issuers: []*gateway.Issuer{spec}, Scopes: []string{"write"}}, list, ""},
		{"no scope", &gateway.TokenPolicy{Issuers: []*gateway.Issuer{spec}, Scopes: []string{"admin"}}, theirs, gateway.CodeForbidden},
		{"own tokens have no scopes", &gateway.TokenPolicy{Own: true, Scopes: []string{"read"}}, own, gateway.CodeForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			route := &gateway.Route{Auth: gateway.AuthJWT, Tokens: c.policy, Payload: gateway.PayloadV2}
			_, err := b.Admit(context.Background(), route, authorization(c.token))
			assert.Equal(t, c.want, gateway.ErrorCode(err), "%v", err)
			var e *gateway.Error
			if c.want == gateway.CodeForbidden && assert.ErrorAs(t, err, &e) {
				assert.Contains(t, e.Challenge, `error="insufficient_scope"`)
			}
			route.Payload = gateway.PayloadV1
			if _, err = b.Admit(context.Background(), route, authorization(c.token)); err != nil {
				require.ErrorAs(t, err, &e)
				assert.Empty(t, e.Challenge, "REST APIs do not challenge")
			}
		})
	}
	var e *gateway.Error
	_, err := b.Admit(context.Background(), &gateway.Route{Auth: gateway.AuthJWT, Payload: gateway.PayloadV2}, http.Header{})
	require.ErrorAs(t, err, &e)
	assert.Equal(t, "Bearer", e.Challenge)
}

func TestIssuers_Rotation(t *testing.T) {
	p := mustIDP(t)
	p.publish("RS-1")
	spec := p.spec()
	b := mustBox(t, t.TempDir(), spec)
	_, err := b.admit(spec, p.token(jwa.RS256, "RS-1", b.clock.Now(), nil))
	require.NoError(t, err, "the first request waits for the keys")
	old := p.token(jwa.RS256, "RS-1", b.clock.Now(), nil)
	_, err = b.admit(spec, old)
	require.NoError(t, err)

	p.publish("ES-2")
	rotated := p.token(jwa.ES256, "ES-2", b.clock.Now(), nil)
	asked := p.count()
	_, err = b.admit(spec, rotated)
	assert.Equal(t, gateway.CodeUnauthorized, gateway.ErrorCode(err))
	assert.Equal(t, asked, p.count(), "unknown keys do not make the box ask again and again")
	b.clock.add(10 * time.Second)
	_, err = b.admit(spec, rotated)
	require.NoError(t, err)
	assert.Equal(t, asked+1, p.count())
	_, err = b.admit(spec, old)
	assert.Equal(t, gateway.CodeUnauthorized, gateway.ErrorCode(err), "a key that was taken back is no good, cached token or not")
}

func TestIssuers_Offline(t *testing.T) {
	p := mustIDP(t)
	p.publish("RS-1", "ES-1")
	dir := t.TempDir()
	spec := p.spec()
	b := mustBox(t, dir, spec)
	token := p.token(jwa.RS256, "RS-1", b.clock.Now().Add(24*time.Hour), map[string]any{"iat": nil})
	_, err := b.admit(spec, token)
	require.NoError(t, err)
	require.Eventually(t, func() bool { files, _ := filepath.Glob(filepath.Join(dir, "*.json")); return len(files) == 1 }, patience, time.Millisecond)
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	require.NoError(t, err)
	info, err := os.Stat(files[0])
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	p.server.Close()
	b.clock.add(time.Hour)
	_, err = b.admit(spec, token)
	require.NoError(t, err, "without the issuer")

	restarted := mustBox(t, dir, spec)
	_, err = restarted.admit(spec, p.token(jwa.ES256, "ES-1", restarted.clock.Now(), nil))
	require.NoError(t, err, "after a restart without the issuer")
	restarted.clock.add(24*time.Hour + time.Second)
	_, err = restarted.admit(spec, token)
	assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(err), "its grace time is over: %v", err)

	other := p.spec(func(s *gateway.Issuer) { s.Audiences = []string{"new"}; s.Grace = time.Hour })
	require.NoError(t, restarted.reload(other))
	_, err = restarted.admit(spec, token)
	assert.Equal(t, gateway.CodeInternal, gateway.ErrorCode(err), "an issuer of another configuration")
}

func TestIssuers_DamagedFile_IsNoKey(t *testing.T) {
	p := mustIDP(t)
	p.publish("RS-1")
	dir := t.TempDir()
	b := mustBox(t, dir, p.spec())
	_, err := b.admit(p.spec(), "") // not this pointer: unknown, and no panic
	require.Error(t, err)
	var files []string
	require.Eventually(t, func() bool { files, _ = filepath.Glob(filepath.Join(dir, "*.json")); return len(files) == 1 }, patience, time.Millisecond)
	b.issuers.Close()
	for _, content := range []string{"", "{", `{"issuer":"https://evil","jwks":{"keys":[]}}`, `{}`} {
		require.NoError(t, os.WriteFile(files[0], []byte(content), 0o600))
		spec := p.spec()
		again := mustBox(t, dir, spec)
		_, err := again.admit(spec, p.token(jwa.RS256, "RS-1", again.clock.Now(), nil))
		require.NoError(t, err, "fetched again")
		again.issuers.Close()
	}
}

func TestIssuers_BadAnswers_KeepTheKeys(t *testing.T) {
	p := mustIDP(t)
	p.publish("RS-1")
	spec := p.spec()
	b := mustBox(t, t.TempDir(), spec)
	_, err := b.admit(spec, p.token(jwa.RS256, "RS-1", b.clock.Now(), nil))
	require.NoError(t, err)
	small, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // a key that must be refused
	require.NoError(t, err)
	weak, err := jwk.FromRaw(&small.PublicKey)
	require.NoError(t, err)
	secretKey, err := jwk.FromRaw([]byte("0123456789abcdef0123456789abcdef"))
	require.NoError(t, err)
	for _, answer := range []any{"text", map[string]any{"keys": []any{}}, map[string]any{"keys": []any{map[string]any{"kty": "new"}}},
		map[string]any{"keys": []any{weak, secretKey}}} {
		p.mu.Lock()
		p.jwks = answer
		p.mu.Unlock()
		asked := p.count()
		b.clock.add(10 * time.Second)
		require.NoError(t, p.keys["RS-1"].Set(jwk.KeyIDKey, "unknown"))
		_, err = b.admit(spec, p.token(jwa.RS256, "RS-1", b.clock.Now(), nil))
		assert.Equal(t, gateway.CodeUnauthorized, gateway.ErrorCode(err))
		assert.Equal(t, asked+1, p.count())
		require.NoError(t, p.keys["RS-1"].Set(jwk.KeyIDKey, "RS-1"))
		_, err = b.admit(spec, p.token(jwa.RS256, "RS-1", b.clock.Now(), nil))
		require.NoError(t, err)
	}
}

func TestIssuers_Discovery(t *testing.T) {
	p := mustIDP(t)
	p.publish("RS-1")
	spec := p.spec(func(s *gateway.Issuer) { s.JWKSURL = "" })
	b := mustBox(t, t.TempDir(), spec)
	_, err := b.admit(spec, p.token(jwa.RS256, "RS-1", b.clock.Now(), nil))
	require.NoError(t, err)

	wrong := p.spec(func(s *gateway.Issuer) { s.JWKSURL = ""; s.URL += "/" })
	require.NoError(t, b.reload(wrong))
	_, err = b.admit(wrong, p.token(jwa.RS256, "RS-1", b.clock.Now(), map[string]any{"iss": wrong.URL}))
	assert.Equal(t, gateway.CodeUnavailable, gateway.ErrorCode(err), "the document is of another issuer")
}

func TestIssuers_Reload_KeepsTheKeys(t *testing.T) {
	p := mustIDP(t)
	p.publish("RS-1")
	spec := p.spec()
	b := mustBox(t, t.TempDir(), spec)
	token := p.token(jwa.RS256, "RS-1", b.clock.Now(), nil)
	_, err := b.admit(spec, token)
	require.NoError(t, err)
	asked := p.count()
	before, again := *b, p.spec()
	require.NoError(t, b.reload(again))
	_, err = b.admit(again, token)
	require.NoError(t, err)
	assert.Equal(t, asked, p.count())
	require.NoError(t, b.reload())
	_, err = before.admit(spec, token)
	require.NoError(t, err, "a request that was matched before it has the keys of then")
	require.NoError(t, b.reload(p.spec()))
	bad := p.spec(func(s *gateway.Issuer) { s.CAFile = filepath.Join(t.TempDir(), "none.pem") })
	assert.ErrorContains(t, b.reload(bad), "issuer corp: ca_file")
}

func TestAPIKeys(t *testing.T) {
	box, _ := mustNew(t)
	a, err := box.Compile(gateway.Access{APIKeys: []gateway.APIKey{{Name: "one", Value: "value-one"}, {Name: "two", Value: "value-two"}}})
	require.NoError(t, err)
	for _, c := range []struct {
		name  string
		names []string
		keys  []string
		want  string
		code  gateway.Code
	}{
		{"any, the box's", nil, []string{"key"}, "", ""},
		{"any, a named one", nil, []string{"value-two"}, "two", ""},
		{"one of the names", []string{"one", "two"}, []string{"value-one"}, "one", ""},
		{"another name", []string{"one"}, []string{"value-two"}, "", gateway.CodeForbidden},
		{"the box's has no name", []string{"one"}, []string{"key"}, "", gateway.CodeForbidden},
		{"wrong", nil, []string{"value"}, "", gateway.CodeForbidden},
		{"none", nil, nil, "", gateway.CodeForbidden},
		{"two headers", nil, []string{"key", "key"}, "", gateway.CodeForbidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			caller, err := a.Admit(context.Background(), &gateway.Route{Auth: gateway.AuthAPIKey, APIKeys: c.names}, http.Header{"X-Api-Key": c.keys})
			require.Equal(t, c.code, gateway.ErrorCode(err))
			if err == nil {
				assert.Equal(t, &gateway.Caller{Kind: gateway.AuthAPIKey, APIKey: c.keys[0], APIKeyID: c.want}, caller)
			}
		})
	}
	assert.False(t, a.APIKeyValid("value-one"), "named keys do not open the login")
}

package auth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/edge-serverless-box/esb/gateway"
)

// refusal is why a token is refused, in words that its sender may see (RFC 6750, error_description).
type refusal struct {
	description string
	expired     bool
	cause       error
}

func (r *refusal) Error() string {
	if r.cause != nil {
		return r.description + ": " + r.cause.Error()
	}
	return r.description
}

func (r *refusal) Unwrap() error { return r.cause }

func refuse(description string, cause error) error {
	return &refusal{description: description, cause: cause}
}

var errExpired = &refusal{description: "the token has expired", expired: true}

// Admit checks what a route without an authorizer asks for. The caller is nil for AuthNone. ctx bounds the wait for an
// issuer's keys. Its errors have
//
//   - CodeUnauthorized, or CodeTokenExpired, without a good token (AWS: 401), and for a route of an HTTP API the challenge of
//     HTTP APIs;
//   - CodeForbidden without a good API key, or when a token has none of the scopes (AWS: 403);
//   - CodeUnavailable when there are no keys to check the token with.
func (r *Rules) Admit(ctx context.Context, route *gateway.Route, header http.Header) (*gateway.Caller, error) {
	switch route.Auth {
	case gateway.AuthNone:
		return nil, nil
	case gateway.AuthAPIKey:
		return r.apiKeyOf(route.APIKeys, header)
	case gateway.AuthJWT:
	default:
		return nil, gateway.Errorf(gateway.CodeUnauthorized, "auth: the route's kind %q is not known", route.Auth)
	}
	caller, err := r.token(ctx, route.Tokens, header)
	if err != nil {
		var refused *refusal
		if !errors.As(err, &refused) {
			return nil, err
		}
		code := gateway.CodeUnauthorized
		if refused.expired {
			code = gateway.CodeTokenExpired
		}
		e := gateway.Errorf(code, "token refused: %w", err)
		if route.HTTPAPI() {
			e.Challenge = challenge("", "invalid_token", refused.description)
			if len(header["Authorization"]) == 0 {
				e.Challenge = "Bearer"
			}
		}
		return nil, e
	}
	if p := route.Tokens; p != nil && len(p.Scopes) > 0 &&
		!slices.ContainsFunc(p.Scopes, func(s string) bool { return slices.Contains(caller.Scopes, s) }) {
		e := gateway.Errorf(gateway.CodeForbidden, "token has none of the scopes %s", strings.Join(p.Scopes, " "))
		if route.HTTPAPI() {
			e.Challenge = challenge(strings.Join(p.Scopes, " "), "insufficient_scope", "the token has none of the scopes that the route needs")
		}
		return nil, e
	}
	return caller, nil
}

// challenge is WWW-Authenticate of HTTP APIs (section 4 of tests/conformance/rows.yml). Its parts hold no quotes.
func challenge(scope, code, description string) string {
	clean := strings.NewReplacer(`"`, "'", `\`, "/")
	return `Bearer scope="` + clean.Replace(scope) + `" error="` + code + `" error_description="` + clean.Replace(description) + `"`
}

// token finds out whose token it is, by its claim iss, and checks it.
func (r *Rules) token(ctx context.Context, policy *gateway.TokenPolicy, header http.Header) (*gateway.Caller, error) {
	values := header["Authorization"]
	if len(values) != 1 {
		return nil, refuse("there must be one Authorization header", nil)
	}
	token := bearer(values[0])
	if policy == nil {
		return r.verify(token)
	}
	if !compact(token) {
		return nil, refuse("the token is malformed", nil)
	}
	if caller := r.known(policy, token); caller != nil {
		return caller, nil
	}
	var claims struct {
		Issuer string `json:"iss"`
	}
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	if err := decodePart(payload, &claims); err != nil {
		return nil, refuse("the token is malformed", err)
	}
	err := refuse("the token does not have a valid issuer", nil)
	if policy.Own && claims.Issuer == r.issuer {
		return r.verify(token)
	}
	for _, spec := range policy.Issuers {
		if spec.URL != claims.Issuer {
			continue
		}
		var caller *gateway.Caller
		if caller, err = r.issuers.verify(ctx, spec, token); err == nil {
			return caller, nil
		}
	}
	return nil, err
}

// known finds a token among those that were checked for the policy in the last minute, without reading it.
func (r *Rules) known(policy *gateway.TokenPolicy, token string) *gateway.Caller {
	digest, now := sha256.Sum256([]byte(token)), r.now()
	if policy.Own {
		if caller := r.verified.get(digest, now); caller != nil {
			return caller
		}
	}
	for _, spec := range policy.Issuers {
		if s := r.issuers[spec]; s != nil {
			if keys := s.keys.Load(); keys.usable(spec, now) {
				if caller := keys.verified.get(digest, now); caller != nil {
					return caller
				}
			}
		}
	}
	return nil
}

// compact says whether token can be a JWS in compact form; jwx reads others too.
func compact(token string) bool {
	return len(token) <= maxTokenBytes && strings.Count(token, ".") == 2 && !strings.HasPrefix(token, "{")
}

func decodePart(part string, to any) error {
	data, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, to)
}

// verify checks a token of an issuer, or finds it among those that were checked in the last minute.
func (set issuerSet) verify(ctx context.Context, spec *gateway.Issuer, token string) (*gateway.Caller, error) {
	s := set[spec]
	if s == nil {
		return nil, gateway.Errorf(gateway.CodeInternal, "issuer %s is not of this configuration", spec.Name)
	}
	now := s.now()
	digest := sha256.Sum256([]byte(token))
	keys := s.keys.Load()
	usable := keys.usable(spec, now)
	if usable {
		if caller := keys.verified.get(digest, now); caller != nil {
			return caller, nil
		}
	}
	var header struct {
		Algorithm string          `json:"alg"`
		KeyID     string          `json:"kid"`
		Critical  json.RawMessage `json:"crit"`
	}
	part, _, _ := strings.Cut(token, ".")
	if err := decodePart(part, &header); err != nil {
		return nil, refuse("the token is malformed", err)
	}
	if header.Critical != nil {
		return nil, refuse("the token has critical headers", nil) // none is understood here (RFC 7515, 4.1.11)
	}
	// The list has signatures with a public key only: neither "none" nor an HMAC with the public key as its secret passes.
	if !slices.Contains(spec.Algorithms, header.Algorithm) {
		return nil, refuse("signing method "+printable(header.Algorithm)+" is invalid", nil)
	}
	var key any
	if usable {
		key = keys.find(header.KeyID, header.Algorithm)
	}
	if key == nil {
		s.demand(ctx)
		if keys = s.keys.Load(); !keys.usable(spec, s.now()) {
			e := gateway.Errorf(gateway.CodeUnavailable, "issuer %s: there are no keys to check its tokens with: none could be fetched for %v", spec.Name, spec.Grace)
			e.RetryAfter = demandGap
			return nil, e
		}
		if key = keys.find(header.KeyID, header.Algorithm); key == nil {
			return nil, refuse("the key of the token is not known", nil)
		}
	}
	parsed, err := jwt.Parse([]byte(token), jwt.WithKey(jwa.SignatureAlgorithm(header.Algorithm), key), jwt.WithValidate(false))
	if err != nil {
		return nil, refuse("the signature of the token is invalid", err)
	}
	if err := check(spec, parsed, now); err != nil {
		return nil, err
	}
	caller := newCaller(parsed)
	until := now.Add(cacheTTL)
	if end := parsed.Expiration().Add(spec.Leeway); end.Before(until) {
		until = end
	}
	if end := keys.fetched.Add(spec.Grace); end.Before(until) {
		until = end
	}
	keys.verified.put(digest, caller, until)
	return caller, nil
}

// check checks the claims as HTTP APIs do (API Gateway developer guide, Control access to HTTP APIs with JWT authorizers).
func check(spec *gateway.Issuer, token jwt.Token, now time.Time) error {
	if token.Issuer() != spec.URL {
		return refuse("the token does not have a valid issuer", nil)
	}
	if audiences := token.Audience(); len(audiences) > 0 {
		if !slices.ContainsFunc(audiences, func(a string) bool { return slices.Contains(spec.Audiences, a) }) {
			return refuse("the token does not have a valid audience", nil)
		}
	} else {
		client, _ := token.Get("client_id")
		if id, ok := client.(string); !ok || !slices.Contains(spec.Audiences, id) {
			return refuse("the token does not have a valid audience", nil)
		}
	}
	if token.Expiration().IsZero() {
		return refuse("the token does not expire", nil)
	}
	if !now.Before(token.Expiration().Add(spec.Leeway)) {
		return errExpired
	}
	if now.Add(spec.Leeway).Before(token.NotBefore()) {
		return refuse("the token is not valid yet", nil)
	}
	if now.Add(spec.Leeway).Before(token.IssuedAt()) {
		return refuse("the token was issued in the future", nil)
	}
	return nil
}

// newCaller is who a good token is of.
func newCaller(token jwt.Token) *gateway.Caller {
	caller := &gateway.Caller{Kind: gateway.AuthJWT, Claims: claims(token)}
	for _, c := range caller.Claims {
		if c.Name == "cognito:username" {
			caller.Username = c.Value
		}
	}
	// Scopes are in scope, a text with spaces, or in scp, a list or such a text.
	for _, name := range []string{"scope", "scp"} {
		value, _ := token.Get(name)
		switch v := value.(type) {
		case string:
			caller.Scopes = append(caller.Scopes, strings.Fields(v)...)
		case []any:
			for _, s := range v {
				if text, ok := s.(string); ok {
					caller.Scopes = append(caller.Scopes, text)
				}
			}
		}
	}
	return caller
}

// printable shortens what a client sent to what a header may hold.
func printable(s string) string {
	if len(s) > 32 {
		s = s[:32]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, s)
}

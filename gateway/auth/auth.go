// Package auth hands out tokens like Cognito's and checks the credentials of requests (docs/client-authentication.md). It is the
// only package that knows JWT.
package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwt"

	"github.com/edge-serverless-box/esb/gateway"
)

const (
	// minSecretBytes is what HS256 needs to be as strong as its hash (RFC 7518, 3.2).
	minSecretBytes = 32
	// maxTokenBytes refuses tokens early that no header of a legal request can hold.
	maxTokenBytes = 8 << 10
	// clockSkew is allowed between the box and another maker of tokens with the same secret, for iat and nbf. An
	// expired token gets none.
	clockSkew = 5 * time.Second
	// audience is the claim aud (AWS: the app client's id).
	audience = "esbedgeboxclient"
	// tokenUse is the claim token_use: REST authorizers take id tokens.
	tokenUse = "id"
	// cacheSize and cacheTTL bound the cache of verified tokens.
	cacheSize = 4096
	cacheTTL  = time.Minute
)

// userNamespace makes a user's sub the same in each token and on each box.
var userNamespace = uuid.MustParse("6f0d2d57-60a5-4bb0-8d5c-6f2a2f0c4d11")

// Options configure an Authenticator.
type Options struct {
	// APIKey is what x-api-key must hold.
	APIKey string
	// User and Password may log in.
	User     string
	Password string
	// Secret signs tokens, at least 32 bytes.
	Secret []byte
	// Expires is how long a token is good.
	Expires time.Duration
	// Region is named by the claim iss, as Cognito does.
	Region string
	// Issuers check the tokens of others; nil for none.
	Issuers *Issuers
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Authenticator checks API keys, passwords and tokens of the box's own; what a configuration adds to them is in Rules. It is safe
// for concurrent use.
type Authenticator struct {
	apiKey   [sha256.Size]byte
	user     [sha256.Size]byte
	password [sha256.Size]byte
	secret   []byte
	expires  time.Duration
	issuer   string
	now      func() time.Time
	verified *cache
	issuers  *Issuers
	guesses  *guesses
}

// New checks the options. The error names what is wrong, never a secret.
func New(o Options) (*Authenticator, error) {
	if len(o.Secret) < minSecretBytes {
		return nil, fmt.Errorf("auth: the secret that signs tokens has %d bytes, want at least %d", len(o.Secret), minSecretBytes)
	}
	if o.APIKey == "" || o.User == "" || o.Password == "" {
		return nil, fmt.Errorf("auth: API key, user and password must not be empty")
	}
	if o.Expires <= 0 {
		return nil, fmt.Errorf("auth: tokens must be good for more than 0 s, got %v", o.Expires)
	}
	a := &Authenticator{
		// Hashes have one length, so a comparison tells nothing about the length of the secret either.
		apiKey:   sha256.Sum256([]byte(o.APIKey)),
		user:     sha256.Sum256([]byte(o.User)),
		password: sha256.Sum256([]byte(o.Password)),
		secret:   o.Secret,
		expires:  o.Expires,
		issuer:   "https://cognito-idp." + o.Region + ".amazonaws.com/" + o.Region + "_esbedgebox",
		now:      o.Now,
		verified: newCache(cacheSize),
		issuers:  o.Issuers,
		guesses:  newGuesses(),
	}
	if a.now == nil {
		a.now = time.Now
	}
	return a, nil
}

// APIKeyValid says, in constant time, whether key is the API key.
func (a *Authenticator) APIKeyValid(key string) bool {
	return equal(a.apiKey, key)
}

func equal(want [sha256.Size]byte, got string) bool {
	sum := sha256.Sum256([]byte(got))
	return subtle.ConstantTimeCompare(want[:], sum[:]) == 1
}

// Credentials are what a login sends.
type Credentials struct {
	User     string
	Password string
}

// ParseCredentials reads {"AuthParameters":{"USERNAME":..,"PASSWORD":..}}; other members are allowed, as Cognito's
// InitiateAuth has more. Its error has CodeInvalid.
func ParseCredentials(body []byte) (Credentials, error) {
	var request, parameters map[string]json.RawMessage
	if err := json.Unmarshal(body, &request); err != nil {
		return Credentials{}, gateway.Errorf(gateway.CodeInvalid, "login: body is not a JSON object: %w", err)
	}
	if err := json.Unmarshal(request["AuthParameters"], &parameters); err != nil {
		return Credentials{}, gateway.Errorf(gateway.CodeInvalid, "login: AuthParameters is missing or not an object: %w", err)
	}
	var c Credentials
	for _, p := range [...]struct {
		name string
		to   *string
	}{{"USERNAME", &c.User}, {"PASSWORD", &c.Password}} {
		var value *string
		if err := json.Unmarshal(parameters[p.name], &value); err != nil || value == nil {
			return Credentials{}, gateway.Errorf(gateway.CodeInvalid, "login: AuthParameters.%s is missing or not a string", p.name)
		}
		*p.to = *value
	}
	return c, nil
}

// MayLogIn says whether a login from an address is looked at at all: not while too many were wrong. Its error has
// CodeRouteThrottled, and says when to come back.
func (a *Authenticator) MayLogIn(from string) error { return a.guesses.may(from, a.now()) }

// Login answers a right API key and credentials with a token. Its error has CodeUnauthorized for wrong ones, and
// CodeRouteThrottled as MayLogIn has. keyRight says whether the API key is right, of what was looked at.
func (a *Authenticator) Login(from, apiKey string, c Credentials) (token string, keyRight bool, err error) {
	var right bool
	err = a.guesses.try(from, a.now(), func() bool {
		// All are compared, so that the time does not tell which one is wrong.
		key, user, password := equal(a.apiKey, apiKey), equal(a.user, c.User), equal(a.password, c.Password)
		keyRight, right = key, key && user && password
		return right
	})
	switch {
	case err != nil:
		return "", false, err
	case !keyRight:
		return "", false, gateway.Errorf(gateway.CodeUnauthorized, "login: x-api-key is missing or wrong")
	case !right:
		return "", true, gateway.Errorf(gateway.CodeUnauthorized, "login: wrong user or password")
	}
	token, err = a.issue(c.User)
	return token, true, err
}

// issue makes a token with the claims of a Cognito id token.
func (a *Authenticator) issue(user string) (string, error) {
	now := a.now().Truncate(time.Second)
	token, err := jwt.NewBuilder().
		Subject(uuid.NewSHA1(userNamespace, []byte(user)).String()).
		Issuer(a.issuer).
		Audience([]string{audience}).
		IssuedAt(now).
		Expiration(now.Add(a.expires)).
		JwtID(uuid.NewString()).
		Claim("auth_time", now.Unix()).
		Claim("token_use", tokenUse).
		Claim("cognito:username", user).
		Claim("username", user).
		Build()
	if err != nil {
		return "", gateway.Errorf(gateway.CodeInternal, "build token: %w", err)
	}
	token.Options().Enable(jwt.FlattenAudience) // Cognito's aud is a string, not a list
	signed, err := jwt.Sign(token, jwt.WithKey(jwa.HS256, a.secret))
	if err != nil {
		return "", gateway.Errorf(gateway.CodeInternal, "sign token: %w", err)
	}
	return string(signed), nil
}

// Authenticate checks what a route of that kind asks for when the configuration says no more: AuthJWT for a token of the box's
// own.
func (a *Authenticator) Authenticate(kind gateway.AuthKind, header http.Header) (*gateway.Caller, error) {
	return (&Rules{Authenticator: a}).Admit(context.Background(), &gateway.Route{Auth: kind}, header)
}

// bearer takes the scheme away, if there is one: Cognito authorizers take bare tokens too.
func bearer(value string) string {
	if scheme, token, ok := strings.Cut(value, " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return strings.TrimSpace(value)
}

// verify checks a token of the box's own, or finds it in the cache of those that were checked in the last minute.
func (a *Authenticator) verify(token string) (*gateway.Caller, error) {
	if !compact(token) {
		return nil, refuse("the token is malformed", nil)
	}
	now := a.now()
	key := sha256.Sum256([]byte(token))
	if caller := a.verified.get(key, now); caller != nil {
		return caller, nil
	}
	if extended(token) {
		return nil, refuse("the token has critical extensions", nil)
	}
	parsed, err := jwt.Parse([]byte(token),
		jwt.WithKey(jwa.HS256, a.secret), // pins the algorithm
		jwt.WithClock(jwt.ClockFunc(a.now)),
		jwt.WithAcceptableSkew(clockSkew),
		jwt.WithIssuer(a.issuer),
		jwt.WithAudience(audience),
		jwt.WithRequiredClaim(jwt.ExpirationKey),
		jwt.WithClaimValue("token_use", tokenUse),
	)
	if errors.Is(err, jwt.ErrTokenExpired()) {
		return nil, errExpired
	}
	if err != nil {
		return nil, refuse("the token is invalid", err)
	}
	if !now.Before(parsed.Expiration()) {
		return nil, errExpired
	}
	caller := newCaller(parsed)
	until := now.Add(cacheTTL)
	if parsed.Expiration().Before(until) {
		until = parsed.Expiration()
	}
	a.verified.put(key, caller, until)
	return caller, nil
}

// extended says whether the header of a token has extensions that whoever checks it must understand; none is understood
// here (RFC 7515, 4.1.11). A header that cannot be read is for the parser to refuse.
func extended(token string) bool {
	var header struct {
		Critical json.RawMessage `json:"crit"`
	}
	part, _, _ := strings.Cut(token, ".")
	return decodePart(part, &header) == nil && header.Critical != nil
}

// claims lists a token's claims by name, as texts: times in seconds since the epoch, what is not a scalar as JSON.
func claims(token jwt.Token) []gateway.Claim {
	members := token.PrivateClaims()
	list := make([]gateway.Claim, 0, len(members)+8)
	for name, value := range members {
		list = append(list, newClaim(name, value))
	}
	for _, name := range []string{jwt.AudienceKey, jwt.ExpirationKey, jwt.IssuedAtKey, jwt.IssuerKey, jwt.JwtIDKey, jwt.NotBeforeKey, jwt.SubjectKey} {
		if value, ok := token.Get(name); ok {
			list = append(list, newClaim(name, value))
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list
}

// newClaim writes a list of texts as REST APIs do, "a,b", and as HTTP APIs do, "[a b]".
func newClaim(name string, value any) gateway.Claim {
	texts, isList := value.([]string)
	if list, ok := value.([]any); ok {
		isList = true
		for _, v := range list {
			texts = append(texts, claimText(v))
		}
	}
	switch {
	case !isList:
		return gateway.Claim{Name: name, Value: claimText(value)}
	case name == jwt.AudienceKey && len(texts) == 1: // a text in most tokens; jwx makes it a list
		return gateway.Claim{Name: name, Value: texts[0]}
	}
	return gateway.Claim{Name: name, Value: strings.Join(texts, ","), HTTP: "[" + strings.Join(texts, " ") + "]"}
}

func claimText(value any) string {
	switch v := value.(type) {
	case string:
		return v
	case time.Time:
		return strconv.FormatInt(v.Unix(), 10)
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return ""
	}
	return string(text)
}

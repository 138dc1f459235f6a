package auth_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/auth"
)

var secret = []byte("0123456789abcdef0123456789abcdef")

// clock is a time that a test moves.
type clock struct{ now time.Time }

func mustNew(t testing.TB) (*auth.Authenticator, *clock) {
	t.Helper()
	c := &clock{now: time.Date(2026, 11, 22, 12, 0, 0, 5e8, time.UTC)}
	a, err := auth.New(auth.Options{
		APIKey: "key", User: "user", Password: "pass", Secret: secret,
		Expires: 100 * time.Second, Region: "us-east-1", Now: func() time.Time { return c.now },
	})
	require.NoError(t, err)
	return a, c
}

func mustLogin(t testing.TB, a *auth.Authenticator) string {
	t.Helper()
	token, keyRight, err := a.Login("192.0.2.1", "key", auth.Credentials{User: "user", Password: "pass"})
	require.NoError(t, err)
	assert.True(t, keyRight)
	return token
}

func authorization(values ...string) http.Header { return http.Header{"Authorization": values} }

func TestNew_RefusesWhatIsNotSafe(t *testing.T) {
	good := auth.Options{APIKey: "k", User: "u", Password: "p", Secret: secret, Expires: time.Second}
	for name, spoil := range map[string]func(*auth.Options){
		"short secret": func(o *auth.Options) { o.Secret = secret[:31] },
		"no API key":   func(o *auth.Options) { o.APIKey = "" },
		"no user":      func(o *auth.Options) { o.User = "" },
		"no password":  func(o *auth.Options) { o.Password = "" },
		"no time":      func(o *auth.Options) { o.Expires = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			spoil(&o)
			_, err := auth.New(o)
			assert.Error(t, err)
		})
	}
}

func TestParseCredentials(t *testing.T) {
	got, err := auth.ParseCredentials([]byte(`{"AuthFlow":"x","AuthParameters":{"USERNAME":"u","PASSWORD":"","MORE":1}}`))
	require.NoError(t, err)
	assert.Equal(t, auth.Credentials{User: "u"}, got)
	for _, body := range []string{
		``, `x`, `null`, `[]`, `"a"`, `{}`, `{"AuthParameters":null}`, `{"AuthParameters":[]}`, `{"AuthParameters":{}}`,
		`{"AuthParameters":{"USERNAME":"u"}}`, `{"AuthParameters":{"PASSWORD":"p"}}`, `{"AuthParameters":{"USERNAME":1,"PASSWORD":"p"}}`,
		`{"AuthParameters":{"USERNAME":"u","PASSWORD":null}}`, `{"AuthParameters":{"username":"u","password":"p"}}`,
		`{"authparameters":{"USERNAME":"u","PASSWORD":"p"}}`, `{"AuthParameters":{"USERNAME":"u","PASSWORD":"p"}} x`,
	} {
		_, err := auth.ParseCredentials([]byte(body))
		assert.Equal(t, gateway.CodeInvalid, gateway.ErrorCode(err), body)
	}
}

func TestLogin_WrongCredentials(t *testing.T) {
	a, _ := mustNew(t)
	for _, c := range []auth.Credentials{{}, {User: "user"}, {User: "user", Password: "Pass"}, {User: "other", Password: "pass"}} {
		_, keyRight, err := a.Login("192.0.2.1", "key", c)
		assert.True(t, keyRight)
		assert.Equal(t, gateway.CodeUnauthorized, gateway.ErrorCode(err), c)
	}
}

func TestLogin_TokenHasCognitosClaims(t *testing.T) {
	a, c := mustNew(t)
	caller, err := a.Authenticate(gateway.AuthJWT, authorization("Bearer "+mustLogin(t, a)))
	require.NoError(t, err)
	assert.Equal(t, "user", caller.Username)
	claims := map[string]string{}
	for _, claim := range caller.Claims {
		claims[claim.Name] = claim.Value
	}
	for _, name := range []string{"sub", "jti"} {
		assert.NoError(t, uuid.Validate(claims[name]), name)
	}
	sub := claims["sub"]
	delete(claims, "sub")
	delete(claims, "jti")
	issued := "1795348800"
	assert.Equal(t, map[string]string{
		"cognito:username": "user", "username": "user", "token_use": "id", "aud": "esbedgeboxclient",
		"iss": "https://cognito-idp.us-east-1.amazonaws.com/us-east-1_esbedgebox",
		"iat": issued, "auth_time": issued, "exp": "1795348900",
	}, claims)

	c.now = c.now.Add(time.Second)
	again, err := a.Authenticate(gateway.AuthJWT, authorization(mustLogin(t, a)))
	require.NoError(t, err)
	assert.Contains(t, again.Claims, gateway.Claim{Name: "sub", Value: sub}, "a user keeps its sub")
}

func TestAuthenticate_Tokens(t *testing.T) {
	a, c := mustNew(t)
	good := mustLogin(t, a)
	parsed, err := jwt.ParseInsecure([]byte(good))
	require.NoError(t, err)
	sign := func(alg jwa.SignatureAlgorithm, key any, name string, value any) string {
		token, err := parsed.Clone()
		require.NoError(t, err)
		if value != nil {
			require.NoError(t, token.Set(name, value))
		} else if name != "" {
			require.NoError(t, token.Remove(name))
		}
		signed, err := jwt.Sign(token, jwt.WithKey(alg, key))
		require.NoError(t, err)
		return string(signed)
	}
	none, err := jwt.Sign(parsed, jwt.WithInsecureNoSignature())
	require.NoError(t, err)
	extension := jws.NewHeaders()
	require.NoError(t, extension.Set("crit", []string{"x"}))
	require.NoError(t, extension.Set("x", true))
	payload, err := json.Marshal(parsed)
	require.NoError(t, err)
	critical, err := jws.Sign(payload, jws.WithKey(jwa.HS256, secret, jws.WithProtectedHeaders(extension)))
	require.NoError(t, err)
	tests := []struct {
		name   string
		header http.Header
		ok     bool
	}{
		{"bearer", authorization("Bearer " + good), true},
		{"bearer in another case", authorization("bearer  " + good), true},
		{"bare", authorization(good), true},
		{"signed by someone with the secret", authorization(sign(jwa.HS256, secret, "", nil)), true},
		{"issued a moment ahead", authorization(sign(jwa.HS256, secret, "iat", c.now.Add(3*time.Second))), true},
		{"none", http.Header{}, false},
		{"empty", authorization(""), false},
		{"scheme alone", authorization("Bearer "), false},
		{"another scheme", authorization("Basic " + good), false},
		{"two headers", authorization(good, good), false},
		{"rubbish", authorization("a.b.c"), false},
		{"signature cut", authorization(good[:len(good)-4]), false},
		{"signature changed", authorization(good[:strings.LastIndexByte(good, '.')+1] + strings.Repeat("A", 43)), false},
		{"unsigned", authorization(string(none)), false},
		{"another secret", authorization(sign(jwa.HS256, []byte(strings.Repeat("x", 32)), "", nil)), false},
		{"another algorithm", authorization(sign(jwa.HS512, secret, "", nil)), false},
		{"issued far ahead", authorization(sign(jwa.HS256, secret, "iat", c.now.Add(time.Minute))), false},
		{"not yet good", authorization(sign(jwa.HS256, secret, "nbf", c.now.Add(time.Minute))), false},
		{"expired", authorization(sign(jwa.HS256, secret, "exp", c.now.Add(-time.Second))), false},
		{"never expires", authorization(sign(jwa.HS256, secret, "exp", nil)), false},
		{"another issuer", authorization(sign(jwa.HS256, secret, "iss", "https://evil")), false},
		{"another audience", authorization(sign(jwa.HS256, secret, "aud", "else")), false},
		{"an access token", authorization(sign(jwa.HS256, secret, "token_use", "access")), false},
		{"too long", authorization(good + strings.Repeat("A", 9000)), false},
		{"critical extension", authorization(string(critical)), false},
		{"JSON serialisation", authorization(`{"payload":"..","signature":""}`), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			caller, err := a.Authenticate(gateway.AuthJWT, tt.header)
			if tt.ok {
				require.NoError(t, err)
				assert.Equal(t, "user", caller.Username)
				return
			}
			want := gateway.CodeUnauthorized
			if tt.name == "expired" {
				want = gateway.CodeTokenExpired
			}
			assert.Equal(t, want, gateway.ErrorCode(err))
			assert.Nil(t, caller)
		})
	}
}

func TestAuthenticate_CachedTokenExpires(t *testing.T) {
	a, c := mustNew(t)
	token := authorization(mustLogin(t, a))
	first, err := a.Authenticate(gateway.AuthJWT, token)
	require.NoError(t, err)
	c.now = c.now.Add(59 * time.Second)
	second, err := a.Authenticate(gateway.AuthJWT, token)
	require.NoError(t, err)
	assert.Same(t, first, second, "within a minute it is not checked again")
	c.now = c.now.Add(2 * time.Second)
	third, err := a.Authenticate(gateway.AuthJWT, token)
	require.NoError(t, err)
	assert.NotSame(t, first, third, "after a minute it is")
	c.now = c.now.Add(39 * time.Second)
	_, err = a.Authenticate(gateway.AuthJWT, token)
	assert.Equal(t, gateway.CodeTokenExpired, gateway.ErrorCode(err), "at its exp, cached or not")
}

func TestAuthenticate_OtherKinds(t *testing.T) {
	a, _ := mustNew(t)
	caller, err := a.Authenticate(gateway.AuthNone, http.Header{})
	require.NoError(t, err)
	assert.Nil(t, caller)

	caller, err = a.Authenticate(gateway.AuthAPIKey, http.Header{"X-Api-Key": {"key"}})
	require.NoError(t, err)
	assert.Equal(t, &gateway.Caller{Kind: gateway.AuthAPIKey, APIKey: "key"}, caller)

	for _, header := range []http.Header{{}, {"X-Api-Key": {""}}, {"X-Api-Key": {"Key"}}, authorization(mustLogin(t, a))} {
		_, err = a.Authenticate(gateway.AuthAPIKey, header)
		assert.Equal(t, gateway.CodeForbidden, gateway.ErrorCode(err))
	}
	_, err = a.Authenticate("unheard of", http.Header{"X-Api-Key": {"key"}})
	assert.Equal(t, gateway.CodeUnauthorized, gateway.ErrorCode(err), "an unknown kind is closed, not open")
}

// TestAdmit_TokenThatIsKnown_IsNotRead: what was checked a moment ago is looked up by its hash, also where a policy names issuers.
func TestAdmit_TokenThatIsKnown_IsNotRead(t *testing.T) {
	a, _ := mustNew(t)
	rules, err := a.Compile(gateway.Access{})
	require.NoError(t, err)
	header := authorization("Bearer " + mustLogin(t, a))
	for name, policy := range map[string]*gateway.TokenPolicy{"no policy": nil, "policy": {Own: true}} {
		route := &gateway.Route{Auth: gateway.AuthJWT, Tokens: policy}
		_, err := rules.Admit(t.Context(), route, header)
		require.NoError(t, err)
		assert.LessOrEqual(t, testing.AllocsPerRun(100, func() {
			if _, err := rules.Admit(t.Context(), route, header); err != nil {
				t.Error(err)
			}
		}), 1.0, name)
	}
	other := &gateway.Route{Auth: gateway.AuthJWT, Tokens: &gateway.TokenPolicy{}}
	_, err = rules.Admit(t.Context(), other, header)
	assert.Equal(t, gateway.CodeUnauthorized, gateway.ErrorCode(err), "a policy that does not name its issuer")
}

func BenchmarkAdmit(b *testing.B) {
	a, _ := mustNew(b)
	rules, err := a.Compile(gateway.Access{})
	require.NoError(b, err)
	header := authorization("Bearer " + mustLogin(b, a))
	route := &gateway.Route{Auth: gateway.AuthJWT}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := rules.Admit(b.Context(), route, header); err != nil {
			b.Fatal(err)
		}
	}
}

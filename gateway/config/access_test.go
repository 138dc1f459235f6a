package config_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

const guardFunction = "functions:\n  f: {image: esb/f:1}\n  guard: {image: esb/guard:1}\n"

func TestLoad_Access_IsTaken(t *testing.T) {
	c := mustLoad(t, guardFunction, `
api_keys:
  partner: ${PARTNER_KEY}
  mobile: mobile-key-0123456789
issuers:
  corp:
    issuer: https://login.example.com/
    audiences: [app]
  lab:
    issuer: http://127.0.0.1:8080
    jwks_url: http://127.0.0.1:8080/keys
    audiences: [one, two]
    algorithms: [PS256]
    refresh: 60
    grace: 120.5
    leeway: 0
authorizers:
  shared: {function: guard}
cors: {allow_origins: ["https://a.example", "https://*.b.example"], allow_headers: [X-A], expose_headers: [X-B], max_age: 60, allow_credentials: true}
throttle: {rate: 100, burst: 200}
routes:
  - {path: /own, method: GET, function: f}
  - {path: /corp, method: GET, function: f, auth: {jwt: corp}}
  - {path: /both, method: GET, function: f, auth: {jwt: [box, lab], scopes: [read, write]}}
  - {path: /keys, method: GET, function: f, auth: {api_key: [mobile, partner]}}
  - {path: /key, method: GET, function: f, auth: {api_key: mobile}}
  - {path: /shared, method: GET, function: f, auth: {authorizer: shared}}
  - {path: /shared2, method: GET, function: f, auth: {authorizer: shared}}
  - path: /simple
    method: [GET, POST]
    function: f
    payload: "2.0"
    auth: {function: guard, cache: 0, identity: [$request.header.x-a, method.request.querystring.q, context.routeKey, x-b], simple: true}
    cors: true
    throttle: {rate: 0.5}
  - {path: /token, method: GET, function: f, payload: "2.0", auth: {function: guard, type: token, identity: Auth, validation: "^a+$"}, cors: false}
`)
	a := c.Access
	assert.Equal(t, []gateway.APIKey{{Name: "partner", Value: "partner-key-0123456789"}, {Name: "mobile", Value: "mobile-key-0123456789"}}, a.APIKeys)
	corp := &gateway.Issuer{Name: "corp", URL: "https://login.example.com/", Audiences: []string{"app"},
		Algorithms: []string{"RS256", "ES256", "EdDSA"}, Refresh: time.Hour, Grace: 24 * time.Hour, Leeway: 5 * time.Second}
	lab := &gateway.Issuer{Name: "lab", URL: "http://127.0.0.1:8080", JWKSURL: "http://127.0.0.1:8080/keys", Audiences: []string{"one", "two"},
		Algorithms: []string{"PS256"}, Refresh: time.Minute, Grace: 120500 * time.Millisecond}
	assert.Equal(t, []*gateway.Issuer{corp, lab}, a.Issuers)
	assert.Equal(t, &gateway.Throttle{ID: "api", Rate: 100, Burst: 200}, a.Throttle)
	all := &gateway.CORS{AllowOrigins: []string{"https://a.example", "https://*.b.example"}, AllowHeaders: []string{"X-A"}, ExposeHeaders: []string{"X-B"},
		AllowMethods: []string{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}, MaxAge: time.Minute, AllowCredentials: true}
	assert.Equal(t, all, a.CORS)

	byPath := map[string]gateway.Route{}
	for _, r := range c.Routes {
		byPath[r.Path] = r
	}
	assert.Nil(t, byPath["/own"].Tokens)
	assert.Equal(t, all, byPath["/own"].CORS, "the API's rules are those of its routes")
	assert.Equal(t, &gateway.TokenPolicy{Issuers: []*gateway.Issuer{corp}}, byPath["/corp"].Tokens)
	assert.Equal(t, &gateway.TokenPolicy{Own: true, Issuers: []*gateway.Issuer{lab}, Scopes: []string{"read", "write"}}, byPath["/both"].Tokens)
	assert.Equal(t, []string{"mobile", "partner"}, byPath["/keys"].APIKeys)
	assert.Equal(t, gateway.AuthAPIKey, byPath["/key"].Auth)
	assert.Equal(t, []string{"mobile"}, byPath["/key"].APIKeys)
	guard := c.Functions["guard"]
	authorization := []gateway.IdentitySource{{Kind: gateway.IdentityHeader, Name: "Authorization"}}
	assert.Equal(t, &gateway.Authorizer{Name: "shared", Function: guard, Type: gateway.AuthorizerRequest, Cache: 5 * time.Minute,
		Identity: authorization, Payload: gateway.PayloadV1}, byPath["/shared"].Authorizer)
	assert.Same(t, byPath["/shared"].Authorizer, byPath["/shared2"].Authorizer)
	simple := byPath["/simple"]
	assert.Equal(t, &gateway.Authorizer{Name: "GET,POST /simple", Function: guard, Type: gateway.AuthorizerRequest, Payload: gateway.PayloadV2, Simple: true,
		Identity: []gateway.IdentitySource{
			{Kind: gateway.IdentityHeader, Name: "X-A"}, {Kind: gateway.IdentityQuery, Name: "q"},
			{Kind: gateway.IdentityContext, Name: "routeKey"}, {Kind: gateway.IdentityHeader, Name: "X-B"},
		}}, simple.Authorizer)
	assert.Equal(t, &gateway.Throttle{ID: "route GET,POST /simple", Rate: 0.5, Burst: 1}, simple.Throttle)
	assert.Equal(t, &gateway.CORS{AllowOrigins: []string{"*"}, AllowMethods: []string{"GET", "POST"}, MaxAge: -1,
		AllowHeaders: []string{"Content-Type", "X-Amz-Date", "Authorization", "X-Api-Key", "X-Amz-Security-Token"}}, simple.CORS)
	assert.Equal(t, &gateway.Authorizer{Name: "GET /token", Function: guard, Type: gateway.AuthorizerToken, Cache: 5 * time.Minute,
		Identity: []gateway.IdentitySource{{Kind: gateway.IdentityHeader, Name: "Auth"}}, Payload: gateway.PayloadV1, Validation: "^a+$"}, byPath["/token"].Authorizer)
	assert.Nil(t, byPath["/token"].CORS)
}

func TestLoad_BadAccess_NamesFileLineAndKey(t *testing.T) {
	route := func(rest string) string { return "routes:\n  - {path: /a, method: GET, function: f, " + rest + "}\n" }
	for _, c := range []struct{ name, routing, want string }{
		{"unknown auth", route("auth: oauth"), `routing.yml:2: routes[0].auth: must be one of jwt, api_key, none, got "oauth"`},
		{"two kinds", route("auth: {jwt: box, api_key: a}"), `routing.yml:2: routes[0].auth: must have one of the keys jwt, api_key, function and authorizer, has 2 of them`},
		{"unknown key", route("auth: {function: guard, ttl: 3}"), `routing.yml:2: routes[0].auth.ttl: is not a known key; known are cache, function, identity, payload, simple, type, validation`},
		{"unknown issuer", "issuers: {corp: {issuer: https://a.b, audiences: [c]}}\n" + route("auth: {jwt: corpp}"),
			`routing.yml:3: routes[0].auth.jwt: there is no issuer corpp under issuers; did you mean corp?`},
		{"unknown key name", route("auth: {api_key: mobile}"), `routing.yml:2: routes[0].auth.api_key: there is no API key mobile under api_keys`},
		{"unknown authorizer", route("auth: {authorizer: a}"), `routing.yml:2: routes[0].auth.authorizer: there is no authorizer a under authorizers`},
		{"no such function", route("auth: {function: gard}"), `routing.yml:2: routes[0].auth.function: there is no function gard; did you mean guard?`},
		{"cache", route("auth: {function: guard, cache: 3601}"), `routing.yml:2: routes[0].auth.cache: must be 0 to 3600 seconds, got 3601`},
		{"simple with a policy's format", route("auth: {function: guard, simple: true}"), `routing.yml:2: routes[0].auth.simple: true needs payload: "2.0": the answer to format 1.0 is always a policy`},
		{"token with payload 2.0", route(`auth: {function: guard, type: token, payload: "2.0"}`), `routing.yml:2: routes[0].auth.payload: must be "1.0" with type: token, which only REST APIs have`},
		{"token from a query", route(`auth: {function: guard, type: token, identity: querystring.a}`), `routing.yml:2: routes[0].auth.identity: must be one header with type: token`},
		{"no identity but a cache", route(`auth: {function: guard, identity: []}`), `routing.yml:2: routes[0].auth.identity: must not be empty while answers are cached: it is the cache's key; or set cache: 0`},
		{"odd identity", route(`auth: {function: guard, identity: $request.body.a}`),
			`routing.yml:2: routes[0].auth.identity: must be a header's name, querystring.<name>, context.<name>, or AWS's expressions for them, got "$request.body.a"`},
		{"odd context", route(`auth: {function: guard, identity: context.body}`),
			`routing.yml:2: routes[0].auth.identity: names a context variable that is not supported; supported are httpMethod, identity.sourceIp, path, resourcePath, routeKey, stage`},
		{"validation without token", route(`auth: {function: guard, validation: a}`), `routing.yml:2: routes[0].auth.validation: is for type: token only`},
		{"bad expression", route(`auth: {function: guard, type: token, validation: "("}`),
			"routing.yml:2: routes[0].auth.validation: is not a regular expression: error parsing regexp: missing closing ): `(`"},
		{"short API key", "api_keys: {a: secret}\n" + noRoutes, `routing.yml:1: api_keys.a: must be 20 to 128 printable ASCII characters without spaces (AWS's limits); has 6 bytes`},
		{"equal API keys", "api_keys: {a: aaaaaaaaaaaaaaaaaaaaaa, b: aaaaaaaaaaaaaaaaaaaaaa}\n" + noRoutes,
			`routing.yml:1: api_keys: a and b have the same value: give each client a key of its own`},
		{"unset key", "api_keys: {a: \"${UNSET_KEY}\"}\n" + noRoutes, `routing.yml:1: api_keys.a: the environment variable UNSET_KEY is not set`},
		{"list of keys", "api_keys: [a]\n" + noRoutes, `routing.yml:1: api_keys: must be a mapping of names to keys, got a list`},
		{"issuer without audience", "issuers: {a: {issuer: https://a.b}}\n" + noRoutes, `routing.yml:1: issuers.a.audiences: is missing: a list of what the claim aud (or client_id) may be`},
		{"issuer over http", "issuers: {a: {issuer: http://a.b, audiences: [c]}}\n" + noRoutes,
			`routing.yml:1: issuers.a.issuer: must be an https URL (http only for one on this machine), got "http://a.b"`},
		{"HMAC", "issuers: {a: {issuer: https://a.b, audiences: [c], algorithms: [HS256]}}\n" + noRoutes,
			`routing.yml:1: issuers.a.algorithms[0]: must be one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, got "HS256"`},
		{"grace below refresh", "issuers: {a: {issuer: https://a.b, audiences: [c], grace: 60}}\n" + noRoutes,
			`routing.yml:1: issuers.a.grace: must not be shorter than refresh (3600 s): the keys would be too old between two fetches`},
		{"issuer called box", "issuers: {box: {issuer: https://a.b, audiences: [c]}}\n" + noRoutes, `routing.yml:1: issuers.box: box is the name of the box's own tokens: choose another`},
		{"credentials for all", route(`cors: {allow_origins: ["*"], allow_credentials: true}`),
			`routing.yml:2: routes[0].cors.allow_credentials: true does not go with "*" in allow_origins: browsers refuse it; list what is allowed`},
		{"origin with a path", route(`cors: {allow_origins: ["https://a.b/"]}`),
			`routing.yml:2: routes[0].cors.allow_origins[0]: must be an origin such as https://shop.example.com, without a slash at its end, or "*", got "https://a.b/"`},
		{"no origins", route(`cors: {max_age: 3}`), `routing.yml:2: routes[0].cors.allow_origins: is missing: a list of origins such as https://shop.example.com, or ["*"]`},
		{"cors as text", route(`cors: all`), `routing.yml:2: routes[0].cors: must be true or false, got "all"`},
		{"unknown method", route(`cors: {allow_origins: "*", allow_methods: [FETCH]}`),
			`routing.yml:2: routes[0].cors.allow_methods[0]: must be one of DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, or "*", got "FETCH"`},
		{"no rate", route(`throttle: {burst: 3}`), `routing.yml:2: routes[0].throttle.rate: is missing: requests a second`},
		{"no burst", route(`throttle: {rate: 3, burst: 0}`), `routing.yml:2: routes[0].throttle.burst: must be 1 to 1000000 requests, got 0`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, guardFunction, c.routing)
			require.EqualError(t, err, c.want)
		})
	}
}

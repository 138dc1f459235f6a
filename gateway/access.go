package gateway

import "time"

// Access is what routing.yml says for the whole API.
type Access struct {
	// APIKeys beside the one of X_API_KEY, in the order of the file.
	APIKeys []APIKey
	// Issuers of tokens beside the box itself.
	Issuers []*Issuer
	// CORS of requests that no route matches and of the gateway's own public endpoints; routes have theirs. nil is none.
	CORS *CORS
	// Throttle of all routes together, nil for none.
	Throttle *Throttle
}

// APIKey is a named key of the header x-api-key.
type APIKey struct {
	// Name is the key's id in events (AWS: requestContext.identity.apiKeyId).
	Name string
	// Value is the secret, at least 20 characters (AWS: 20 to 128).
	Value string
}

// OwnIssuer names the box itself among the issuers of a route's tokens.
const OwnIssuer = "box"

// TokenPolicy says which tokens a route with AuthJWT takes.
type TokenPolicy struct {
	// Own is true when the box's own tokens are good.
	Own bool
	// Issuers whose tokens are good too.
	Issuers []*Issuer
	// Scopes, of which a token must have at least one; empty asks for none (AWS: authorizationScopes).
	Scopes []string
}

// Issuer is an OpenID Connect issuer whose tokens routes may accept. It is immutable: a reload makes new ones.
type Issuer struct {
	Name string
	// URL is what the claim iss must be, to the letter.
	URL string
	// JWKSURL has the issuer's keys; empty means that the issuer's discovery document says where they are.
	JWKSURL string
	// Audiences, of which the claim aud must have one, or client_id be one where there is no aud (AWS: JWT authorizers).
	Audiences []string
	// Algorithms that may sign, by their names in RFC 7518 and 8037; never "none" and never an HMAC.
	Algorithms []string
	// Refresh is how often the keys are fetched.
	Refresh time.Duration
	// Grace is how long the keys stay good after the last fetch that worked.
	Grace time.Duration
	// Leeway is allowed between the clocks of box and issuer.
	Leeway time.Duration
	// CAFile is a PEM file of the CAs that the issuer's certificate may come from; empty means the system's.
	CAFile string
}

// AuthorizerType is what a Lambda authorizer is given.
type AuthorizerType string

// Types of Lambda authorizers (API Gateway developer guide, Use API Gateway Lambda authorizers).
const (
	// AuthorizerRequest gets the request without its body.
	AuthorizerRequest AuthorizerType = "request"
	// AuthorizerToken gets one header's value only.
	AuthorizerToken AuthorizerType = "token"
)

// IdentitySource is where a request's identity is.
type IdentitySource struct {
	Kind IdentityKind
	// Name of the header, in canonical form, of the query parameter, or of the context variable.
	Name string
}

// IdentityKind is what an identity source looks at.
type IdentityKind string

// Kinds of identity sources.
const (
	IdentityHeader  IdentityKind = "header"
	IdentityQuery   IdentityKind = "querystring"
	IdentityContext IdentityKind = "context"
)

// Authorizer is a function that decides who may call a route. It is immutable: a reload makes new ones. Routes that share
// one share its cached answers too.
type Authorizer struct {
	// Name is that of routing.yml's section authorizers, or made of the route for one that is written there.
	Name     string
	Function *Function
	Type     AuthorizerType
	// Cache is how long an answer is good, 0 for not at all (AWS: 0 to 3600 s, default 300 s).
	Cache time.Duration
	// Identity sources, which must all be there, and together are the key of the cache.
	Identity []IdentitySource
	// Validation is a regular expression that a token must match before the function is asked, empty for none (AWS:
	// identityValidationExpression).
	Validation string
	// Payload is the format of the authorizer's event.
	Payload PayloadVersion
	// Simple is true when the answer is {"isAuthorized": ...} and not a policy.
	Simple bool
}

// CORS is what browsers are told about requests from pages of other origins. It is immutable.
type CORS struct {
	// AllowOrigins are "*", origins such as "https://shop.example.com", or origins with one "*" in them.
	AllowOrigins []string
	// AllowMethods are "*" or methods in upper case.
	AllowMethods []string
	// AllowHeaders are "*" or names of headers.
	AllowHeaders []string
	// ExposeHeaders are "*" or names of headers that a page may read.
	ExposeHeaders []string
	// MaxAge is how long a browser may keep the answer to a preflight; negative means that nothing is said.
	MaxAge time.Duration
	// AllowCredentials lets pages send cookies and the like.
	AllowCredentials bool
}

// Throttle bounds how often something may be called, as a token bucket (AWS: throttling settings).
type Throttle struct {
	// ID tells buckets apart, and stays the same over reloads.
	ID string
	// Rate is the requests a second in the long run.
	Rate float64
	// Burst is how many may come at once.
	Burst int
}

package gateway

import "time"

// Caller is who made a request, as its credentials prove. It is immutable: requests share it.
type Caller struct {
	// Kind is how the caller was authenticated.
	Kind AuthKind
	// Username is the claim cognito:username of a token, empty when there is none.
	Username string
	// Claims of the token, all values as text (AWS: Cognito authorizers pass strings only), nil otherwise.
	Claims []Claim
	// Scopes of the token (claim scope or scp).
	Scopes []string
	// APIKey is the key that was sent, when Kind is AuthAPIKey, or what a Lambda authorizer named as usageIdentifierKey.
	APIKey string
	// APIKeyID is the name of that key, empty when it has none.
	APIKeyID string
	// Principal is the principalId of a Lambda authorizer's answer, empty when it gave none.
	Principal string
	// Context is what a Lambda authorizer tells the function.
	Context []ContextValue
	// AuthorizerLatency is how long the Lambda authorizer took, 0 when its answer was cached.
	AuthorizerLatency time.Duration
}

// Claim is one claim of a token.
type Claim struct {
	Name  string
	Value string
	// HTTP is the value as HTTP APIs write it, "[a b]" for a list; empty when that is Value.
	HTTP string
}

// ContextValue is one member of a Lambda authorizer's context.
type ContextValue struct {
	Name string
	// Text is the value as a text (AWS: REST APIs pass strings only).
	Text string
	// JSON is the value with its type.
	JSON string
}

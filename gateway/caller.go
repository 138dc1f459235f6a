package gateway

// Caller is who made a request, as its credentials prove. It is immutable: requests share it.
type Caller struct {
	// Kind is how the caller was authenticated.
	Kind AuthKind
	// Username is the claim cognito:username of a token, empty otherwise.
	Username string
	// Claims of the token, all values as text (AWS: Cognito authorizers pass strings only), nil otherwise.
	Claims []Claim
	// APIKey is the key that was sent, when Kind is AuthAPIKey.
	APIKey string
}

// Claim is one claim of a token.
type Claim struct {
	Name  string
	Value string
}

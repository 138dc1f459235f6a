package auth

import (
	"crypto/sha256"
	"net/http"
	"slices"

	"github.com/edge-serverless-box/esb/gateway"
)

// namedKey is an API key of routing.yml.
type namedKey struct {
	name string
	hash [sha256.Size]byte
}

// SetAPIKeys makes keys good beside the one of Options.APIKey. They do not open the login.
func (a *Authenticator) SetAPIKeys(keys []gateway.APIKey) {
	named := make([]namedKey, len(keys))
	for i, k := range keys {
		named[i] = namedKey{name: k.Name, hash: sha256.Sum256([]byte(k.Value))}
	}
	a.apiKeys.Store(&named)
}

// APIKeyName returns the name of a key of routing.yml, empty when it is none of them. The time that it takes tells nothing but
// how many keys there are.
func (a *Authenticator) APIKeyName(key string) string {
	named := a.apiKeys.Load()
	if named == nil {
		return ""
	}
	name := ""
	for _, k := range *named {
		if equal(k.hash, key) {
			name = k.name
		}
	}
	return name
}

// apiKeyOf checks x-api-key. Without names every key is good, with names these only.
func (a *Authenticator) apiKeyOf(names []string, header http.Header) (*gateway.Caller, error) {
	values := header["X-Api-Key"]
	if len(values) != 1 {
		return nil, gateway.Errorf(gateway.CodeForbidden, "want one x-api-key header, got %d", len(values))
	}
	key := values[0]
	name, own := a.APIKeyName(key), a.APIKeyValid(key)
	switch {
	case name != "" && (len(names) == 0 || slices.Contains(names, name)):
	case own && len(names) == 0:
		name = ""
	default:
		return nil, gateway.Errorf(gateway.CodeForbidden, "x-api-key is wrong, or not for this route")
	}
	return &gateway.Caller{Kind: gateway.AuthAPIKey, APIKey: key, APIKeyID: name}, nil
}

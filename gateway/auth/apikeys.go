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

// namedKeys are good beside the one of Options.APIKey. They do not open the login.
func namedKeys(keys []gateway.APIKey) []namedKey {
	named := make([]namedKey, len(keys))
	for i, k := range keys {
		named[i] = namedKey{name: k.Name, hash: sha256.Sum256([]byte(k.Value))}
	}
	return named
}

// APIKeyName returns the name of a key of routing.yml, empty when it is none of them. The time that it takes tells nothing but
// how many keys there are.
func (r *Rules) APIKeyName(key string) string {
	name := ""
	for _, k := range r.apiKeys {
		if equal(k.hash, key) {
			name = k.name
		}
	}
	return name
}

// apiKeyOf checks x-api-key. Without names every key is good, with names these only.
func (r *Rules) apiKeyOf(names []string, header http.Header) (*gateway.Caller, error) {
	values := header["X-Api-Key"]
	if len(values) != 1 {
		return nil, gateway.Errorf(gateway.CodeForbidden, "want one x-api-key header, got %d", len(values))
	}
	key := values[0]
	name, own := r.APIKeyName(key), r.APIKeyValid(key)
	switch {
	case name != "" && (len(names) == 0 || slices.Contains(names, name)):
	case own && len(names) == 0:
		name = ""
	default:
		return nil, gateway.Errorf(gateway.CodeForbidden, "x-api-key is wrong, or not for this route")
	}
	return &gateway.Caller{Kind: gateway.AuthAPIKey, APIKey: key, APIKeyID: name}, nil
}

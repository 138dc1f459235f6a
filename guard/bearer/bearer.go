// Package bearer is the token by which a caller of a local service shows that it may call: the service keeps it in a file
// that root and the caller alone can read. Both of its types are credentials.PerRPCCredentials of gRPC, without importing it.
package bearer

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"

	"github.com/edge-serverless-box/esb/guard/secretfile"
)

// Header is the metadata key that carries the token, and prefix what is before it (RFC 6750).
const (
	Header = "authorization"
	prefix = "Bearer "
)

// Token sends a token with each call.
type Token string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t Token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{Header: prefix + string(t)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: the token goes over loopback, and no further without
// mutual TLS.
func (t Token) RequireTransportSecurity() bool { return false }

// File sends the token of a file with each call, and reads it each time: the service may make it, or a new one, after its
// caller has started.
type File string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (f File) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	token, err := secretfile.Read(string(f))
	if err != nil {
		return nil, fmt.Errorf("the token to call with: %w", err)
	}
	return Token(token).GetRequestMetadata(ctx, uri...)
}

// RequireTransportSecurity implements credentials.PerRPCCredentials, as Token's.
func (f File) RequireTransportSecurity() bool { return false }

// Matches says whether a call brought the token, once. It takes as long for any wrong value.
func (t Token) Matches(values []string) bool {
	if t == "" || len(values) != 1 {
		return false
	}
	want, got := sha256.Sum256([]byte(prefix+string(t))), sha256.Sum256([]byte(values[0]))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1
}

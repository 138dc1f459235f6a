// Package issuer is an OpenID Connect issuer for tests: a real HTTP server with real keys. Its tokens are made by hand, not by the
// library that the gateway checks them with.
package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// Issuer serves keys until Stop, and signs tokens also afterwards.
type Issuer struct {
	// URL is the claim iss.
	URL    string
	server *httptest.Server

	// mu guards keys and published.
	mu        sync.Mutex
	keys      map[string]crypto.Signer
	published []string
}

// Open starts an issuer on a free port of 127.0.0.1, with one RSA key "rsa-1" and one EC key "ec-1".
func Open() (*Issuer, error) {
	i := &Issuer{keys: make(map[string]crypto.Signer)}
	for _, id := range []string{"rsa-1", "ec-1"} {
		if err := i.makeKey(id); err != nil {
			return nil, err
		}
	}
	i.published = []string{"rsa-1", "ec-1"}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	i.URL = "http://" + listener.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) { answer(w, i.jwks()) })
	i.server = &httptest.Server{Listener: listener, Config: &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}}
	i.server.Start()
	return i, nil
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a client that has gone needs no answer
}

// Stop ends the server: the issuer cannot be reached any more.
func (i *Issuer) Stop() { i.server.Close() }

// Publish makes the keys of these ids the published ones, and makes those that are new: "rsa-..." or "ec-...".
func (i *Issuer) Publish(ids ...string) error {
	for _, id := range ids {
		if err := i.makeKey(id); err != nil {
			return err
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.published = ids
	return nil
}

func (i *Issuer) makeKey(id string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.keys[id] != nil {
		return nil
	}
	var key crypto.Signer
	var err error
	if id[:2] == "ec" {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	} else {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		return fmt.Errorf("make key %s: %w", id, err)
	}
	i.keys[id] = key
	return nil
}

func (i *Issuer) jwks() map[string]any {
	i.mu.Lock()
	defer i.mu.Unlock()
	list := []map[string]any{}
	for _, id := range i.published {
		switch key := i.keys[id].(type) {
		case *rsa.PrivateKey:
			list = append(list, map[string]any{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": id,
				"n": encode(key.N.Bytes()), "e": encode(big.NewInt(int64(key.E)).Bytes())})
		case *ecdsa.PrivateKey:
			point := make([]byte, 64)
			key.X.FillBytes(point[:32])
			key.Y.FillBytes(point[32:])
			list = append(list, map[string]any{"kty": "EC", "use": "sig", "crv": "P-256", "kid": id, "x": encode(point[:32]), "y": encode(point[32:])})
		}
	}
	return map[string]any{"keys": list}
}

// Token signs a token that is good for an hour, for the audience "app" and with the scope "read", with claims over its own; nil
// removes one.
func (i *Issuer) Token(id string, claims map[string]any) (string, error) {
	now := time.Now().Unix()
	all := map[string]any{"iss": i.URL, "aud": "app", "sub": "someone", "exp": now + 3600, "iat": now, "scope": "read"}
	maps.Copy(all, claims)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	i.mu.Lock()
	key := i.keys[id]
	i.mu.Unlock()
	algorithm := "RS256"
	if _, ec := key.(*ecdsa.PrivateKey); ec {
		algorithm = "ES256"
	}
	header, err := json.Marshal(map[string]any{"alg": algorithm, "typ": "JWT", "kid": id})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(all)
	if err != nil {
		return "", err
	}
	signed := encode(header) + "." + encode(payload)
	digest := sha256.Sum256([]byte(signed))
	var signature []byte
	switch key := key.(type) {
	case *rsa.PrivateKey:
		signature, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	case *ecdsa.PrivateKey:
		var r, s *big.Int
		if r, s, err = ecdsa.Sign(rand.Reader, key, digest[:]); err == nil {
			signature = make([]byte, 64)
			r.FillBytes(signature[:32])
			s.FillBytes(signature[32:])
		}
	default:
		err = fmt.Errorf("there is no key %s", id)
	}
	if err != nil {
		return "", err
	}
	return signed + "." + encode(signature), nil
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

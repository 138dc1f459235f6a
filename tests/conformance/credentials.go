package conformance

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/tests/issuer"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// credentials are the variables of cases about who may call: {{issuer}}, tokens of that issuer, and {{expired_token}} of the box,
// which is like {{token}} but for its age.
func credentials(ctx context.Context, s *stack.Stack, token string, idp *issuer.Issuer) (map[string]string, error) {
	vars := map[string]string{"issuer": idp.URL}
	for name, claims := range map[string]map[string]any{
		"issuer_token":           nil,
		"issuer_token_expired":   {"exp": time.Now().Add(-time.Hour).Unix()},
		"issuer_token_client_id": {"aud": nil, "client_id": "app"},
		"issuer_token_other_aud": {"aud": "other", "client_id": "app"},
	} {
		var err error
		if vars[name], err = idp.Token("rsa-1", claims); err != nil {
			return nil, err
		}
	}
	key, err := s.GatewayFile(ctx, "jwt.key")
	if err != nil {
		return nil, err
	}
	vars["expired_token"], err = aged(token, []byte(strings.TrimSpace(string(key))))
	return vars, err
}

// aged signs the claims of a token of the box again, with an end that has passed.
func aged(token string, key []byte) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", fmt.Errorf("%q is no token", token)
	}
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", err
	}
	var claims map[string]any
	if err := json.Unmarshal(data, &claims); err != nil {
		return "", err
	}
	claims["exp"] = time.Now().Add(-time.Hour).Unix()
	claims["iat"] = time.Now().Add(-2 * time.Hour).Unix()
	if data, err = json.Marshal(claims); err != nil {
		return "", err
	}
	signed := parts[0] + "." + base64.RawURLEncoding.EncodeToString(data)
	mac := hmac.New(sha256.New, key)
	_, _ = mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), nil
}

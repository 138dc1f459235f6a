package event

import (
	"strconv"

	"github.com/edge-serverless-box/esb/gateway"
)

// apiKeyID is the id of the box's API key that has no name, that of X_API_KEY.
const apiKeyID = "esbapikey1"

// appendAuthorizerV1 appends requestContext.authorizer of the REST format with the comma behind it, or nobody
// (section 1 of tests/conformance/rows.yml: a Cognito authorizer's claims, all strings, or a Lambda authorizer's context as strings). HTTP APIs have
// the token's scopes beside the claims (API Gateway developer guide, Lambda proxy integrations for HTTP APIs).
func appendAuthorizerV1(dst []byte, route *gateway.Route, c *gateway.Caller, nobody string) []byte {
	switch {
	case c == nil:
		return append(dst, nobody...)
	case c.Kind == gateway.AuthJWT:
		dst = append(dst, `"authorizer":{"claims":`...)
		dst = appendClaims(dst, c.Claims)
		if c.Username != "" {
			dst = append(dst, `,"cognito:username":`...)
			dst = AppendString(dst, c.Username)
		}
		if route.HTTPAPI() {
			dst = append(dst, `,"scopes":`...)
			dst = appendScopes(dst, route, c)
		}
		return append(dst, '}', ',')
	case c.Kind == gateway.AuthFunction:
		dst = append(dst, `"authorizer":{`...)
		for _, v := range c.Context {
			if v.Name == "principalId" || v.Name == "integrationLatency" {
				continue // the gateway's own
			}
			dst = AppendString(dst, v.Name)
			dst = append(dst, ':')
			dst = AppendString(dst, v.Text)
			dst = append(dst, ',')
		}
		if c.Principal != "" {
			dst = appendMember(dst, "principalId", c.Principal)
		}
		dst = append(dst, `"integrationLatency":`...)
		dst = strconv.AppendInt(dst, c.AuthorizerLatency.Milliseconds(), 10)
		return append(dst, '}', ',')
	}
	return append(dst, nobody...)
}

// appendAPIKey appends apiKey and apiKeyId of requestContext.identity with the comma behind them, or nothing.
func appendAPIKey(dst []byte, c *gateway.Caller) []byte {
	if c == nil || c.APIKey == "" {
		return dst
	}
	dst = appendMember(dst, "apiKey", c.APIKey)
	switch {
	case c.APIKeyID != "":
		dst = appendMember(dst, "apiKeyId", c.APIKeyID)
	case c.Kind == gateway.AuthAPIKey:
		dst = appendMember(dst, "apiKeyId", apiKeyID)
	}
	return dst
}

func appendClaims(dst []byte, claims []gateway.Claim) []byte {
	dst = append(dst, '{')
	for _, c := range claims {
		dst = AppendString(dst, c.Name)
		dst = append(dst, ':')
		dst = AppendString(dst, c.Value)
		dst = append(dst, ',')
	}
	return closeWith(dst, '}')
}

// appendAuthorizerV2 appends requestContext.authorizer of the HTTP API format with the comma behind it, or nothing. scopes
// is null for a route that asks for none.
func appendAuthorizerV2(dst []byte, route *gateway.Route, c *gateway.Caller) []byte {
	switch {
	case c == nil:
		return dst
	case c.Kind == gateway.AuthJWT:
		dst = append(dst, `"authorizer":{"jwt":{"claims":{`...)
		for _, claim := range c.Claims {
			dst = AppendString(dst, claim.Name)
			dst = append(dst, ':')
			if claim.HTTP != "" {
				dst = AppendString(dst, claim.HTTP)
			} else {
				dst = AppendString(dst, claim.Value)
			}
			dst = append(dst, ',')
		}
		dst = closeWith(dst, '}')
		dst = append(dst, `,"scopes":`...)
		dst = appendScopes(dst, route, c)
		return append(dst, "}},"...)
	case c.Kind == gateway.AuthFunction:
		dst = append(dst, `"authorizer":{"lambda":{`...)
		for _, v := range c.Context {
			dst = AppendString(dst, v.Name)
			dst = append(dst, ':')
			dst = append(dst, v.JSON...)
			dst = append(dst, ',')
		}
		dst = closeWith(dst, '}')
		return append(dst, '}', ',')
	}
	return dst
}

// appendScopes appends the token's scopes, or null for a route that asks for none.
func appendScopes(dst []byte, route *gateway.Route, c *gateway.Caller) []byte {
	if route.Tokens == nil || len(route.Tokens.Scopes) == 0 {
		return append(dst, "null"...)
	}
	dst = append(dst, '[')
	for _, s := range c.Scopes {
		dst = AppendString(dst, s)
		dst = append(dst, ',')
	}
	return closeWith(dst, ']')
}

package event

import (
	"strings"

	"github.com/edge-serverless-box/esb/gateway"
)

// AppendAuthorizer appends what a Lambda authorizer is given about r (API Gateway developer guide, Input to an API Gateway
// Lambda authorizer, and Control access to HTTP APIs with AWS Lambda authorizers). arn is what the request would call;
// identity are the values of the authorizer's identity sources. The body is never in it.
func (b *Builder) AppendAuthorizer(dst []byte, r *Request, a *gateway.Authorizer, arn string, identity []string) []byte {
	switch {
	case a.Type == gateway.AuthorizerToken:
		dst = append(dst, `{"type":"TOKEN",`...)
		dst = appendMember(dst, "authorizationToken", strings.Join(identity, ","))
		dst = appendMember(dst, "methodArn", arn)
		return closeWith(dst, '}')
	case a.Payload == gateway.PayloadV2:
		return b.appendAuthorizerEventV2(dst, r, arn, identity)
	}
	return b.appendAuthorizerEventV1(dst, r, arn, identity)
}

// appendAuthorizerEventV1 is the REST form, and for a route with payload 2.0 that of an HTTP API with format 1.0, which also
// has version, identitySource and authorizationToken. Unlike the proxy event it has {} for what is empty.
func (b *Builder) appendAuthorizerEventV1(dst []byte, r *Request, arn string, identity []string) []byte {
	dst = append(dst, '{')
	if r.Route.HTTPAPI() {
		dst = appendMember(dst, "version", "1.0")
		sources := strings.Join(identity, ",")
		dst = appendMember(dst, "identitySource", sources)
		dst = appendMember(dst, "authorizationToken", sources)
	}
	dst = appendMember(dst, "type", "REQUEST")
	dst = appendMember(dst, "methodArn", arn)
	dst = appendMember(dst, "resource", r.Route.Path)
	dst = appendMember(dst, "path", r.Path)
	dst = appendMember(dst, "httpMethod", r.HTTP.Method)
	dst = appendHeadersV1(dst, r)
	if q := parseQuery(r.Query); len(q.params) > 0 {
		dst = appendQueryV1(dst, r.Query)
	} else {
		dst = append(dst, `"queryStringParameters":{},"multiValueQueryStringParameters":{},`...)
	}
	dst = append(dst, `"pathParameters":`...)
	if len(r.PathParameters) > 0 {
		dst = appendPathParameters(dst, r.PathParameters)
	} else {
		dst = append(dst, "{}"...)
	}
	dst = append(dst, `,"stageVariables":`...)
	dst = appendStageVariables(dst, r, "{}")
	dst = append(dst, `,"requestContext":`...)
	dst = b.appendContextV1(dst, r)
	return append(dst, '}')
}

func (b *Builder) appendAuthorizerEventV2(dst []byte, r *Request, arn string, identity []string) []byte {
	dst = append(dst, `{"version":"2.0","type":"REQUEST",`...)
	dst = appendMember(dst, "routeArn", arn)
	dst = append(dst, `"identitySource":`...)
	if len(identity) > 0 {
		dst = append(dst, '[')
		for _, s := range identity {
			dst = appendString(dst, s)
			dst = append(dst, ',')
		}
		dst = closeWith(dst, ']')
	} else {
		dst = append(dst, "null"...)
	}
	dst = append(dst, `,"routeKey":`...)
	dst = appendRouteKey(dst, r)
	dst = append(dst, ',')
	dst = append(dst, `"rawPath":`...)
	dst = appendStagePath(dst, Stage(r.API, true), r.Path)
	dst = append(dst, ',')
	dst = appendMember(dst, "rawQueryString", r.Query)
	dst = appendCookies(dst, r.HTTP.Header["Cookie"])
	dst = appendHeadersV2(dst, r)
	dst = appendQueryV2(dst, r.Query)
	dst = append(dst, `"requestContext":`...)
	dst = b.appendContextV2(dst, r)
	if len(r.PathParameters) > 0 {
		dst = append(dst, `,"pathParameters":`...)
		dst = appendDecoded(dst, r.PathParameters)
	}
	if r.hasStageVariables() {
		dst = append(dst, `,"stageVariables":`...)
		dst = appendStageVariables(dst, r, "")
	}
	return append(dst, '}')
}

// QueryValue returns the first value of a query parameter, decoded; ok is false when there is none. raw is without the
// question mark.
func QueryValue(raw, name string) (value string, ok bool) {
	for _, p := range parseQuery(raw).params {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}

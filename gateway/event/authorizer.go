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
	dst = appendPathV1(dst, r)
	dst = appendMember(dst, "httpMethod", r.HTTP.Method)
	dst = appendHeadersV1(dst, r)
	if q := parseQuery(r.Query); len(q.params) > 0 {
		dst = appendQueryV1(dst, r.Query)
	} else {
		dst = append(dst, `"queryStringParameters":{},"multiValueQueryStringParameters":{},`...)
	}
	dst = append(dst, `"pathParameters":`...)
	dst = appendPathParametersV1(dst, r, "{}")
	dst = append(dst, `,"stageVariables":`...)
	dst = appendStageVariables(dst, r, "{}")
	dst = append(dst, `,"requestContext":`...)
	dst = b.appendContextV1(dst, r, "")
	return append(dst, '}')
}

func (b *Builder) appendAuthorizerEventV2(dst []byte, r *Request, arn string, identity []string) []byte {
	dst = append(dst, `{"version":"2.0","type":"REQUEST",`...)
	dst = appendMember(dst, "routeArn", arn)
	dst = append(dst, `"identitySource":`...)
	if len(identity) > 0 {
		dst = append(dst, '[')
		for _, s := range identity {
			dst = AppendString(dst, s)
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
	dst = appendStagePath(dst, r, Stage(r.API, true))
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

// IdentityValue returns what r has at an identity source: all values of a header or query parameter, with commas between
// them, so that no two requests that an authorizer can tell apart look the same. It is empty when there is none.
func (b *Builder) IdentityValue(r *Request, s gateway.IdentitySource) string {
	switch s.Kind {
	case gateway.IdentityHeader:
		if s.Name == "Host" {
			return r.HTTP.Host
		}
		return strings.Join(r.HTTP.Header[s.Name], ",")
	case gateway.IdentityQuery:
		q := parseQuery(r.Query)
		var values []string
		for at := q.find(s.Name); at >= 0; at = q.params[at].next {
			values = append(values, q.params[at].value)
		}
		return strings.Join(values, ",")
	}
	switch s.Name {
	case "httpMethod":
		return r.HTTP.Method
	case "identity.sourceIp":
		return r.SourceIP
	case "path":
		return r.Path
	case "resourcePath":
		return r.Route.Path
	case "routeKey":
		return strings.Join(r.Route.Methods, ",") + " " + r.Route.Path
	case "stage":
		return Stage(r.API, r.Route.HTTPAPI())
	}
	return ""
}

// ResourceARN is what a policy names to allow or deny r (AWS: arn:aws:execute-api:region:account:api/stage/METHOD/path). The
// path has no slash at its end, as the routes that it is matched with, so that a policy cannot be passed by with one.
func (b *Builder) ResourceARN(region string, r *Request) string {
	return "arn:aws:execute-api:" + region + ":" + b.accountID + ":" + APIID + "/" + Stage(r.API, r.Route.HTTPAPI()) + "/" + r.HTTP.Method + "/" +
		strings.TrimPrefix(strings.TrimRight(r.Path, "/"), "/")
}

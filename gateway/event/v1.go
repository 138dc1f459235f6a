package event

import (
	"encoding/base64"
	"strconv"
)

// requestTimeFormat is requestContext.requestTime: "04/Mar/2020:19:15:17 +0000".
const requestTimeFormat = "02/Jan/2006:15:04:05 -0700"

// appendV1 appends the REST API proxy event: every member present, null when empty (section 1 of tests/conformance/rows.yml); and format 1.0 of an
// HTTP API, which is like it but for version and what such an API lacks (section 4 of tests/conformance/rows.yml).
func (b *Builder) appendV1(dst []byte, r *Request) []byte {
	dst = append(dst, '{')
	if r.Route.HTTPAPI() {
		dst = append(dst, `"version":"1.0",`...)
	}
	dst = appendMember(dst, "resource", r.Route.Path)
	dst = appendMember(dst, "path", r.Path)
	dst = appendMember(dst, "httpMethod", r.HTTP.Method)
	dst = appendHeadersV1(dst, r)
	dst = appendQueryV1(dst, r.Query)
	dst = append(dst, `"pathParameters":`...)
	dst = appendPathParameters(dst, r.PathParameters)
	dst = append(dst, `,"stageVariables":`...)
	dst = appendStageVariables(dst, r, "null")
	dst = append(dst, `,"requestContext":`...)
	dst = b.appendContextV1(dst, r)
	encoded := len(r.Body) > 0 && binaryBody(r)
	dst = append(dst, `,"body":`...)
	switch {
	case len(r.Body) == 0:
		dst = append(dst, "null"...)
	case encoded:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, r.Body)
		dst = append(dst, '"')
	default:
		dst = appendString(dst, r.Body)
	}
	dst = append(dst, `,"isBase64Encoded":`...)
	dst = strconv.AppendBool(dst, encoded)
	return append(dst, '}')
}

// binaryBody says whether a body travels as base64.
func binaryBody(r *Request) bool {
	if r.Route.HTTPAPI() {
		return !textBodyV2(r)
	}
	return binary(r.Route.BinaryMediaTypes, mediaType(first(r.HTTP.Header, "Content-Type")))
}

// appendHeadersV1 appends headers (the last value of each) and multiValueHeaders (all of them).
func appendHeadersV1(dst []byte, r *Request) []byte {
	// The names that the gateway writes itself; the client's own values were skipped.
	added := [...][2]string{
		{"Host", r.HTTP.Host},
		{"X-Amzn-Trace-Id", r.TraceID},
		{"X-Forwarded-For", forwardedFor(r)},
		{"X-Forwarded-Port", r.Port},
		{"X-Forwarded-Proto", r.Scheme},
	}
	dst = append(dst, `"headers":{`...)
	for name, values := range r.HTTP.Header {
		if len(values) == 0 || removed(name) {
			continue
		}
		dst = appendString(dst, name)
		dst = append(dst, ':')
		dst = appendString(dst, values[len(values)-1])
		dst = append(dst, ',')
	}
	for _, h := range added {
		dst = appendMember(dst, h[0], h[1])
	}
	dst = closeWith(dst, '}')
	dst = append(dst, `,"multiValueHeaders":{`...)
	for name, values := range r.HTTP.Header {
		if len(values) == 0 || removed(name) {
			continue
		}
		dst = appendString(dst, name)
		dst = append(dst, ':', '[')
		for _, v := range values {
			dst = appendString(dst, v)
			dst = append(dst, ',')
		}
		dst = closeWith(dst, ']')
		dst = append(dst, ',')
	}
	for _, h := range added {
		dst = append(dst, '"')
		dst = append(dst, h[0]...)
		dst = append(dst, `":[`...)
		dst = appendString(dst, h[1])
		dst = append(dst, ']', ',')
	}
	dst = closeWith(dst, '}')
	return append(dst, ',')
}

// appendQueryV1 appends queryStringParameters (the last value of each) and multiValueQueryStringParameters (all,
// in order).
func appendQueryV1(dst []byte, raw string) []byte {
	q := parseQuery(raw)
	if len(q.params) == 0 {
		return append(dst, `"queryStringParameters":null,"multiValueQueryStringParameters":null,`...)
	}
	dst = append(dst, `"queryStringParameters":{`...)
	for _, p := range q.params {
		if p.tail < 0 {
			continue
		}
		dst = appendString(dst, p.name)
		dst = append(dst, ':')
		dst = appendString(dst, q.params[p.tail].value)
		dst = append(dst, ',')
	}
	dst = closeWith(dst, '}')
	dst = append(dst, `,"multiValueQueryStringParameters":{`...)
	for i, p := range q.params {
		if p.tail < 0 {
			continue
		}
		dst = appendString(dst, p.name)
		dst = append(dst, ':', '[')
		for at := i; at >= 0; at = q.params[at].next {
			dst = appendString(dst, q.params[at].value)
			dst = append(dst, ',')
		}
		dst = closeWith(dst, ']')
		dst = append(dst, ',')
	}
	dst = closeWith(dst, '}')
	return append(dst, ',')
}

func appendPathParameters(dst []byte, params map[string]string) []byte {
	if len(params) == 0 {
		return append(dst, "null"...)
	}
	dst = append(dst, '{')
	for name, value := range params {
		dst = appendString(dst, name)
		dst = append(dst, ':')
		dst = appendString(dst, value)
		dst = append(dst, ',')
	}
	return closeWith(dst, '}')
}

func (b *Builder) appendContextV1(dst []byte, r *Request) []byte {
	name, prefix := domain(r.HTTP.Host)
	dst = append(dst, '{')
	dst = appendMember(dst, "accountId", b.accountID)
	dst = appendMember(dst, "apiId", APIID)
	dst = appendAuthorizerV1(dst, r.Route, r.Caller)
	dst = appendMember(dst, "deploymentId", deploymentID)
	dst = appendMember(dst, "domainName", name)
	dst = appendMember(dst, "domainPrefix", prefix)
	dst = appendMember(dst, "extendedRequestId", r.ExtendedRequestID)
	dst = appendMember(dst, "httpMethod", r.HTTP.Method)
	dst = append(dst, `"identity":{"accessKey":null,"accountId":null,`...)
	dst = appendAPIKey(dst, r.Caller)
	dst = append(dst, `"caller":null,"cognitoAuthenticationProvider":null,"cognitoAuthenticationType":null,`...)
	dst = append(dst, `"cognitoIdentityId":null,"cognitoIdentityPoolId":null,"principalOrgId":null,`...)
	dst = appendMember(dst, "sourceIp", r.SourceIP)
	dst = append(dst, `"user":null,"userAgent":`...)
	dst = appendNullable(dst, first(r.HTTP.Header, "User-Agent"))
	dst = append(dst, `,"userArn":null},`...)
	if r.Route.OperationName != "" {
		dst = appendMember(dst, "operationName", r.Route.OperationName)
	}
	stage := Stage(r.API, r.Route.HTTPAPI())
	dst = append(dst, `"path":`...)
	dst = appendStagePath(dst, stage, r.Path)
	dst = append(dst, ',')
	dst = appendMember(dst, "protocol", Protocol)
	dst = appendMember(dst, "requestId", r.RequestID)
	dst = append(dst, `"requestTime":"`...)
	dst = r.Time.UTC().AppendFormat(dst, requestTimeFormat)
	dst = append(dst, `","requestTimeEpoch":`...)
	dst = strconv.AppendInt(dst, r.Time.UnixMilli(), 10)
	dst = append(dst, `,"resourceId":`...)
	if r.Route.HTTPAPI() {
		dst = append(dst, "null,"...)
	} else {
		dst = append(dst, '"')
		dst = appendResourceID(dst, r.Route.Path)
		dst = append(dst, '"', ',')
	}
	dst = appendMember(dst, "resourcePath", r.Route.Path)
	dst = appendMember(dst, "stage", stage)
	return closeWith(dst, '}')
}

// appendResourceID appends six letters and digits that stay the same as long as the route's template does, as
// AWS's resource ids do.
func appendResourceID(dst []byte, template string) []byte {
	const letters = "0123456789abcdefghijklmnopqrstuvwxyz"
	h := uint64(14695981039346656037) // FNV-1a
	for i := 0; i < len(template); i++ {
		h = (h ^ uint64(template[i])) * 1099511628211
	}
	for range 6 {
		dst = append(dst, letters[h%36])
		h /= 36
	}
	return dst
}

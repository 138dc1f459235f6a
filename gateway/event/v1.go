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
	dst = appendPathV1(dst, r)
	dst = appendMember(dst, "httpMethod", r.HTTP.Method)
	dst = appendHeadersV1(dst, r)
	dst = appendQueryV1(dst, r.Query)
	dst = append(dst, `"pathParameters":`...)
	dst = appendPathParametersV1(dst, r, "null")
	dst = append(dst, `,"stageVariables":`...)
	dst = appendStageVariables(dst, r, "null")
	dst = append(dst, `,"requestContext":`...)
	nobody := ""
	if r.Route.HTTPAPI() {
		nobody = `"authorizer":{"claims":null,"scopes":null},` // the guide's example of format 1.0
	}
	dst = b.appendContextV1(dst, r, nobody)
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
		dst = AppendString(dst, r.Body)
	}
	dst = append(dst, `,"isBase64Encoded":`...)
	dst = strconv.AppendBool(dst, encoded)
	return append(dst, '}')
}

// appendPathV1 appends path. A REST API's has no more than one slash at its beginning (recorded: "/stage//x" has the path
// "/x"); an HTTP API's is what rawPath of format 2.0 is, without the stage.
func appendPathV1(dst []byte, r *Request) []byte {
	if r.Route.HTTPAPI() {
		return appendMember(dst, "path", decoded(r.sentPath()))
	}
	return appendMember(dst, "path", r.Path)
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
	all := [...][2]string{
		{"Host", r.HTTP.Host},
		{"X-Amzn-Trace-Id", r.TraceID},
		{"X-Forwarded-For", forwardedFor(r)},
		{"X-Forwarded-Port", r.Port},
		{"X-Forwarded-Proto", r.Scheme},
		{"Content-Length", ""},
	}
	added := all[:5]
	if r.Route.HTTPAPI() {
		if all[5][1] = contentLength(r); all[5][1] != "" {
			added = all[:]
		}
	}
	dst = append(dst, `"headers":{`...)
	for name, values := range r.HTTP.Header {
		if len(values) == 0 || removed(name) {
			continue
		}
		dst = appendNameV1(dst, r, name)
		dst = append(dst, ':')
		dst = AppendString(dst, values[len(values)-1])
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
		dst = appendNameV1(dst, r, name)
		dst = append(dst, ':', '[')
		for _, v := range values {
			dst = AppendString(dst, v)
			dst = append(dst, ',')
		}
		dst = closeWith(dst, ']')
		dst = append(dst, ',')
	}
	for _, h := range added {
		dst = append(dst, '"')
		dst = append(dst, h[0]...)
		dst = append(dst, `":[`...)
		dst = AppendString(dst, h[1])
		dst = append(dst, ']', ',')
	}
	dst = closeWith(dst, '}')
	return append(dst, ',')
}

// appendNameV1 appends the name of a header as the client spelt it, as far as that is known: HTTP/2 has lower case only, of
// HTTP/1.1 net/http leaves the canonical form. AWS writes some names itself, whatever the client speaks (captures of REST
// events over HTTP/2: hotsock/voker, vokerhttp/testdata/apigwv1-request.json).
func appendNameV1(dst []byte, r *Request, name string) []byte {
	if r.HTTP.ProtoMajor < 2 || name == "User-Agent" || name == "Authorization" {
		return AppendString(dst, name)
	}
	return appendLower(dst, name)
}

// contentLength is the header of that name, which HTTP APIs have also where the client sent none: "0" without a body
// (captures: milliHQ/terraform-aws-next-js pull 31). It is empty for a body of a length that is not known yet.
func contentLength(r *Request) string {
	n := r.HTTP.ContentLength
	if n < 0 {
		if r.Body == nil {
			return ""
		}
		n = int64(len(r.Body))
	}
	return strconv.FormatInt(n, 10)
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
		dst = AppendString(dst, p.name)
		dst = append(dst, ':')
		dst = AppendString(dst, q.params[p.tail].value)
		dst = append(dst, ',')
	}
	dst = closeWith(dst, '}')
	dst = append(dst, `,"multiValueQueryStringParameters":{`...)
	for i, p := range q.params {
		if p.tail < 0 {
			continue
		}
		dst = AppendString(dst, p.name)
		dst = append(dst, ':', '[')
		for at := i; at >= 0; at = q.params[at].next {
			dst = AppendString(dst, q.params[at].value)
			dst = append(dst, ',')
		}
		dst = closeWith(dst, ']')
		dst = append(dst, ',')
	}
	dst = closeWith(dst, '}')
	return append(dst, ',')
}

// appendPathParametersV1 appends the parameters, or empty when there are none: decoded for an HTTP API.
func appendPathParametersV1(dst []byte, r *Request, empty string) []byte {
	if len(r.PathParameters) == 0 {
		return append(dst, empty...)
	}
	if r.Route.HTTPAPI() {
		return appendDecoded(dst, r.PathParameters)
	}
	dst = append(dst, '{')
	for name, value := range r.PathParameters {
		dst = AppendString(dst, name)
		dst = append(dst, ':')
		dst = AppendString(dst, value)
		dst = append(dst, ',')
	}
	return closeWith(dst, '}')
}

// appendContextV1 appends requestContext; nobody stands in it for an authorizer that there is not.
func (b *Builder) appendContextV1(dst []byte, r *Request, nobody string) []byte {
	name, prefix := domain(r.HTTP.Host)
	dst = append(dst, '{')
	dst = appendMember(dst, "accountId", b.accountID)
	dst = appendMember(dst, "apiId", APIID)
	dst = appendAuthorizerV1(dst, r.Route, r.Caller, nobody)
	extended := r.RequestID // the one id that an HTTP API has for a request
	if !r.Route.HTTPAPI() {
		dst = appendMember(dst, "deploymentId", deploymentID)
		extended = r.ExtendedRequestID
	}
	dst = appendMember(dst, "domainName", name)
	dst = appendMember(dst, "domainPrefix", prefix)
	dst = appendMember(dst, "extendedRequestId", extended)
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
	dst = appendStagePath(dst, r, stage)
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

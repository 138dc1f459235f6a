package event

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/edge-serverless-box/esb/gateway"
)

// appendV2 appends the HTTP API event: lower-case headers, empty members left out (section 4 of tests/conformance/rows.yml).
func (b *Builder) appendV2(dst []byte, r *Request) []byte {
	dst = append(dst, `{"version":"2.0","routeKey":`...)
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
	encoded := false
	if len(r.Body) > 0 {
		encoded = !textBodyV2(r)
		dst = append(dst, `,"body":`...)
		if encoded {
			dst = append(dst, '"')
			dst = base64.StdEncoding.AppendEncode(dst, r.Body)
			dst = append(dst, '"')
		} else {
			dst = AppendString(dst, r.Body)
		}
	}
	dst = append(dst, `,"isBase64Encoded":`...)
	dst = strconv.AppendBool(dst, encoded)
	return append(dst, '}')
}

// appendRouteKey appends "GET /users/{id}", "ANY /users/{id}" or "$default".
func appendRouteKey(dst []byte, r *Request) []byte {
	if r.Route.Path == gateway.DefaultRoute {
		return append(dst, `"$default"`...)
	}
	if len(r.Route.Methods) > 0 {
		dst = append(dst, '"')
		dst = appendText(dst, r.HTTP.Method)
	} else {
		dst = append(dst, `"ANY`...)
	}
	dst = append(dst, ' ')
	dst = appendText(dst, r.Route.Path)
	return append(dst, '"')
}

func appendCookies(dst []byte, headers []string) []byte {
	if len(headers) == 0 {
		return dst
	}
	dst = append(dst, `"cookies":[`...)
	for _, h := range headers {
		for h != "" {
			var c string
			c, h, _ = strings.Cut(h, ";")
			if c = strings.TrimSpace(c); c != "" {
				dst = AppendString(dst, c)
				dst = append(dst, ',')
			}
		}
	}
	dst = closeWith(dst, ']')
	return append(dst, ',')
}

func appendHeadersV2(dst []byte, r *Request) []byte {
	dst = append(dst, `"headers":{`...)
	for name, values := range r.HTTP.Header {
		if len(values) == 0 || name == "Cookie" || removed(name) {
			continue
		}
		dst = appendLower(dst, name)
		dst = append(dst, `:"`...)
		for i, v := range values {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendText(dst, v)
		}
		dst = append(dst, '"', ',')
	}
	if n := contentLength(r); n != "" {
		dst = appendMember(dst, "content-length", n)
	}
	dst = appendMember(dst, "host", r.HTTP.Host)
	dst = appendMember(dst, "x-amzn-trace-id", r.TraceID)
	dst = appendMember(dst, "x-forwarded-for", forwardedFor(r))
	dst = appendMember(dst, "x-forwarded-port", r.Port)
	dst = appendMember(dst, "x-forwarded-proto", r.Scheme)
	dst = closeWith(dst, '}')
	return append(dst, ',')
}

func appendQueryV2(dst []byte, raw string) []byte {
	q := parseQuery(raw)
	if len(q.params) == 0 {
		return dst
	}
	dst = append(dst, `"queryStringParameters":{`...)
	for i, p := range q.params {
		if p.tail < 0 {
			continue
		}
		dst = AppendString(dst, p.name)
		dst = append(dst, `:"`...)
		for at := i; at >= 0; at = q.params[at].next {
			if at != i {
				dst = append(dst, ',')
			}
			dst = appendText(dst, q.params[at].value)
		}
		dst = append(dst, '"', ',')
	}
	dst = closeWith(dst, '}')
	return append(dst, ',')
}

// appendDecoded appends path parameters decoded, as HTTP APIs do; REST APIs do not.
func appendDecoded(dst []byte, params map[string]string) []byte {
	dst = append(dst, '{')
	for name, value := range params {
		dst = AppendString(dst, name)
		dst = append(dst, ':')
		dst = AppendString(dst, decoded(value))
		dst = append(dst, ',')
	}
	return closeWith(dst, '}')
}

func (b *Builder) appendContextV2(dst []byte, r *Request) []byte {
	name, prefix := domain(r.HTTP.Host)
	stage := Stage(r.API, true)
	dst = append(dst, '{')
	dst = appendMember(dst, "accountId", b.accountID)
	dst = appendMember(dst, "apiId", APIID)
	dst = appendAuthorizerV2(dst, r.Route, r.Caller)
	dst = appendMember(dst, "domainName", name)
	dst = appendMember(dst, "domainPrefix", prefix)
	dst = append(dst, `"http":{`...)
	dst = appendMember(dst, "method", r.HTTP.Method)
	dst = append(dst, `"path":`...)
	dst = appendStagePath(dst, r, stage)
	dst = append(dst, ',')
	dst = appendMember(dst, "protocol", Protocol)
	dst = appendMember(dst, "sourceIp", r.SourceIP)
	dst = appendMember(dst, "userAgent", first(r.HTTP.Header, "User-Agent"))
	dst = closeWith(dst, '}')
	dst = append(dst, ',')
	dst = appendMember(dst, "requestId", r.RequestID)
	dst = append(dst, `"routeKey":`...)
	dst = appendRouteKey(dst, r)
	dst = append(dst, ',')
	dst = appendMember(dst, "stage", stage)
	dst = append(dst, `"time":"`...)
	dst = r.Time.UTC().AppendFormat(dst, requestTimeFormat)
	dst = append(dst, `","timeEpoch":`...)
	dst = strconv.AppendInt(dst, r.Time.UnixMilli(), 10)
	return append(dst, '}')
}

// textBodyV2 says whether a body travels as text. HTTP APIs have no list of binary types: text/* and the types of JSON, XML and
// JavaScript are text, all else is base64, "+json", "+xml" and a missing type too (tried on AWS by ministackorg/ministack pull
// 766). A route's own list adds to that, and so do a Content-Encoding and what is no UTF-8, which no text could carry [?].
func textBodyV2(r *Request) bool {
	h := r.HTTP.Header
	kind := strings.ToLower(mediaType(first(h, "Content-Type")))
	if first(h, "Content-Encoding") != "" || binary(r.Route.BinaryMediaTypes, kind) {
		return false
	}
	switch {
	case strings.HasPrefix(kind, "text/"), kind == "application/json", kind == "application/xml", kind == "application/javascript":
		return utf8.Valid(r.Body)
	}
	return false
}

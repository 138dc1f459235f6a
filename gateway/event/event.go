// Package event turns HTTP requests into the events that AWS API Gateway gives to Lambda functions, and what the
// functions return into HTTP answers. Both directions exist for the REST API format ("1.0") and the HTTP API
// format ("2.0"); sections 1, 2 and 4 of tests/conformance/rows.yml are the specification.
//
// Events are appended to a buffer by hand, without reflection: this is on the path of every request
// (BenchmarkBuilder_V1).
package event

import (
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/edge-serverless-box/esb/gateway"
)

// What events say about an API that has no account of its own in AWS. They are constants because functions may
// compare them, and a box is one API.
const (
	// stageREST is the stage of REST APIs whose routing.yml names none; it stands in requestContext.path.
	stageREST = "prod"
	// stageHTTP is that of HTTP APIs (AWS: the one stage that does not appear in paths).
	stageHTTP = "$default"
	// APIID is the id of the box's API.
	APIID = "esbedgebox"
	// Protocol is what events say, whatever the client speaks: AWS's front ends take HTTP/2 and show HTTP/1.1.
	Protocol = "HTTP/1.1"
	// deploymentID is the same for all events: a configuration has no number.
	deploymentID = "esb001"
)

// Request is one HTTP request, matched and authenticated.
type Request struct {
	HTTP *http.Request
	// Path and Query are as the client sent them, undecoded; Path is without the stage and begins with one slash, Query is
	// without the question mark.
	Path  string
	Query string
	// SentPath is Path with all the slashes that the client sent before it, behind the stage; empty for no more than Path has.
	SentPath string
	Body     []byte
	Route    *gateway.Route
	// API is what is set for all routes; nil is nothing.
	API *gateway.API
	// PathParameters by name, nil when the route has none.
	PathParameters map[string]string
	// Caller is nil when the route does not authenticate.
	Caller    *gateway.Caller
	RequestID string
	// ExtendedRequestID is what the answer carries as x-amz-apigw-id.
	ExtendedRequestID string
	// TraceID is a whole X-Amzn-Trace-Id value.
	TraceID string
	// SourceIP is the address of the TCP peer.
	SourceIP string
	// Scheme and Port are those of the listener: "https", "443".
	Scheme string
	Port   string
	Time   time.Time
}

// Builder makes events. It is safe for concurrent use.
type Builder struct {
	accountID string
}

// NewBuilder returns a Builder whose events name that AWS account.
func NewBuilder(accountID string) *Builder { return &Builder{accountID: accountID} }

// AccountID is the AWS account that events name.
func (b *Builder) AccountID() string { return b.accountID }

// Stage is the name of the stage that events of a route of a REST or HTTP API carry; api may be nil.
func Stage(api *gateway.API, httpAPI bool) string {
	switch {
	case api != nil && api.Stage != "":
		return api.Stage
	case httpAPI:
		return stageHTTP
	}
	return stageREST
}

// StagePath is path with the stage before it: requestContext.path, and an HTTP API's rawPath. The stage $default appears in
// no path.
func StagePath(stage, path string) string {
	if stage == stageHTTP {
		return path
	}
	return "/" + stage + path
}

// appendStagePath appends StagePath of what was sent as a JSON string, decoded for an HTTP API.
func appendStagePath(dst []byte, r *Request, stage string) []byte {
	dst = append(dst, '"')
	if stage != stageHTTP {
		dst = append(dst, '/')
		dst = append(dst, stage...)
	}
	path := r.sentPath()
	if r.Route.HTTPAPI() {
		path = decoded(path)
	}
	dst = appendText(dst, path)
	return append(dst, '"')
}

func (r *Request) sentPath() string {
	if r.SentPath != "" {
		return r.SentPath
	}
	return r.Path
}

// DecodePath decodes a path once, as HTTP APIs pass paths; REST APIs pass them as they were sent (captures of AWS's events:
// hotsock/voker, vokerhttp/testdata/ingress-paths.json). AWS decodes twice, cuts at an encoded question mark, and refuses
// "%25" with 400 where the second decoding fails: that is not reproduced. It is false for a path that cannot be decoded:
// its escapes are broken, or are no UTF-8.
func DecodePath(path string) (string, bool) {
	if strings.IndexByte(path, '%') < 0 {
		return path, true
	}
	text, err := url.PathUnescape(path)
	if err != nil || !utf8.ValidString(text) {
		return "", false
	}
	return text, true
}

// decoded is a path, or a part of one, decoded where that is possible.
func decoded(path string) string {
	if text, ok := DecodePath(path); ok {
		return text
	}
	return path
}

// appendStageVariables appends the stage variables of r, or empty when there are none.
func appendStageVariables(dst []byte, r *Request, empty string) []byte {
	if !r.hasStageVariables() {
		return append(dst, empty...)
	}
	dst = append(dst, '{')
	for _, v := range r.API.StageVariables {
		dst = appendMember(dst, v.Name, v.Value)
	}
	return closeWith(dst, '}')
}

func (r *Request) hasStageVariables() bool { return r.API != nil && len(r.API.StageVariables) > 0 }

// Append appends the event of r to dst, in the format of its route.
func (b *Builder) Append(dst []byte, r *Request) []byte {
	if r.Route.Payload == gateway.PayloadV2 {
		return b.appendV2(dst, r)
	}
	return b.appendV1(dst, r)
}

// removed says whether a request header is kept from the function (AWS: important notes for REST APIs). The ones
// that the gateway writes itself are among them. The name is canonical, as net/http gives it.
func removed(name string) bool {
	switch name {
	case "Connection", "Content-Length", "Content-Md5", "Expect", "Max-Forwards", "Proxy-Authenticate", "Server",
		"Te", "Transfer-Encoding", "Trailer", "Upgrade", "Www-Authenticate":
		return true
	}
	return replaced(name)
}

// replaced says whether the gateway writes that request header itself.
func replaced(name string) bool {
	switch name {
	case "Host", "X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto", "X-Amzn-Trace-Id":
		return true
	}
	return false
}

// forwardedFor is the client's X-Forwarded-For with the peer behind it.
func forwardedFor(r *Request) string {
	before := r.HTTP.Header["X-Forwarded-For"]
	if len(before) == 0 {
		return r.SourceIP
	}
	return strings.Join(before, ", ") + ", " + r.SourceIP
}

// DomainName is the host of a Host header, without its port.
func DomainName(host string) string {
	name, _ := domain(host)
	return name
}

// domain returns the host without port, and its first label.
func domain(host string) (name, prefix string) {
	name = host
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		name = host[:i]
	}
	if strings.HasPrefix(name, "[") {
		return name, name
	}
	prefix, _, _ = strings.Cut(name, ".")
	return name, prefix
}

// first returns the first value of a header, by its canonical name.
func first(h http.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// mediaType returns the type of a Content-Type or of the first entry of an Accept header, without parameters.
func mediaType(header string) string {
	if i := strings.IndexAny(header, ",;"); i >= 0 {
		header = header[:i]
	}
	return strings.TrimSpace(header)
}

// binary says whether a media type is one of the patterns "type/subtype", "type/*" or "*/*".
func binary(patterns []string, mediaType string) bool {
	for _, p := range patterns {
		if p == "*/*" || strings.EqualFold(p, mediaType) {
			return true
		}
		if major, ok := strings.CutSuffix(p, "*"); ok && len(mediaType) > len(major) &&
			strings.HasSuffix(major, "/") && strings.EqualFold(mediaType[:len(major)], major) {
			return true
		}
	}
	return false
}

// Package response makes the answers that the gateway gives itself: what an error code says by default, in a REST API's form
// and in an HTTP API's, and what routing.yml's gateway_responses makes of it (docs/system-specification.md 9; sections 3 and 4 of tests/conformance/rows.yml).
package response

import (
	"errors"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
)

// Cause is why the gateway answers by itself: API Gateway's response types, and the box's own.
type Cause string

// Causes of API Gateway (API Gateway developer guide, Gateway response types). Not all can happen on a box: it has no usage
// plans, request validators, signatures or firewall; they are known so that a list made for AWS is accepted.
const (
	AccessDenied                 Cause = "ACCESS_DENIED"
	APIConfigurationError        Cause = "API_CONFIGURATION_ERROR"
	AuthorizerConfigurationError Cause = "AUTHORIZER_CONFIGURATION_ERROR"
	AuthorizerFailure            Cause = "AUTHORIZER_FAILURE"
	BadRequestBody               Cause = "BAD_REQUEST_BODY"
	BadRequestParameters         Cause = "BAD_REQUEST_PARAMETERS"
	Default4XX                   Cause = "DEFAULT_4XX"
	Default5XX                   Cause = "DEFAULT_5XX"
	ExpiredToken                 Cause = "EXPIRED_TOKEN"
	IntegrationFailure           Cause = "INTEGRATION_FAILURE"
	IntegrationTimeout           Cause = "INTEGRATION_TIMEOUT"
	InvalidAPIKey                Cause = "INVALID_API_KEY"
	InvalidSignature             Cause = "INVALID_SIGNATURE"
	MissingAuthenticationToken   Cause = "MISSING_AUTHENTICATION_TOKEN"
	QuotaExceeded                Cause = "QUOTA_EXCEEDED"
	RequestTooLarge              Cause = "REQUEST_TOO_LARGE"
	ResourceNotFound             Cause = "RESOURCE_NOT_FOUND"
	Throttled                    Cause = "THROTTLED"
	Unauthorized                 Cause = "UNAUTHORIZED"
	UnsupportedMediaType         Cause = "UNSUPPORTED_MEDIA_TYPE"
	WAFFiltered                  Cause = "WAF_FILTERED"
)

// Causes of the box's own, each a part of one of API Gateway's.
const (
	// FunctionError: the function failed, ran past its own timeout, or its result has a wrong shape; of INTEGRATION_FAILURE.
	FunctionError Cause = "FUNCTION_ERROR"
	// FunctionThrottled: the function's queue is full, or it has no capacity; of INTEGRATION_FAILURE.
	FunctionThrottled Cause = "FUNCTION_THROTTLED"
	// ServiceUnavailable: no worker in time, the agent is down, the circuit is open; of INTEGRATION_FAILURE.
	ServiceUnavailable Cause = "SERVICE_UNAVAILABLE"
	// EventTooLarge: the event is over the function's 6 MB; of REQUEST_TOO_LARGE.
	EventTooLarge Cause = "EVENT_TOO_LARGE"
	// HeadersTooLarge: request line and headers are over 10240 bytes; of REQUEST_TOO_LARGE.
	HeadersTooLarge Cause = "HEADERS_TOO_LARGE"
	// TokenExpired: the token was good but for its age; of UNAUTHORIZED.
	TokenExpired Cause = "TOKEN_EXPIRED"
	// InternalError: a fault of the gateway itself; of API_CONFIGURATION_ERROR.
	InternalError Cause = "INTERNAL_ERROR"
)

// causes are all, and what each is a part of.
var causes = map[Cause]Cause{
	AccessDenied: "", APIConfigurationError: "", AuthorizerConfigurationError: "", AuthorizerFailure: "", BadRequestBody: "",
	BadRequestParameters: "", Default4XX: "", Default5XX: "", ExpiredToken: "", IntegrationFailure: "", IntegrationTimeout: "",
	InvalidAPIKey: "", InvalidSignature: "", MissingAuthenticationToken: "", QuotaExceeded: "", RequestTooLarge: "",
	ResourceNotFound: "", Throttled: "", Unauthorized: "", UnsupportedMediaType: "", WAFFiltered: "",
	FunctionError: IntegrationFailure, FunctionThrottled: IntegrationFailure, ServiceUnavailable: IntegrationFailure,
	EventTooLarge: RequestTooLarge, HeadersTooLarge: RequestTooLarge, TokenExpired: Unauthorized, InternalError: APIConfigurationError,
}

// ParseCause reads a cause in upper or lower snake case, or with dashes. A path that no route matches has two names, as API
// Gateway has two types that mean it: the result is then MissingAuthenticationToken.
func ParseCause(name string) (Cause, bool) {
	c := Cause(strings.ReplaceAll(strings.ToUpper(name), "-", "_"))
	if c == ResourceNotFound {
		c = MissingAuthenticationToken
	}
	_, ok := causes[c]
	return c, ok
}

// Causes are the names of all causes, sorted.
func Causes() []string {
	names := make([]string, 0, len(causes))
	for c := range causes {
		names = append(names, string(c))
	}
	slices.Sort(names)
	return names
}

// StatusClientLeft stands in logs and metrics for a client that did not wait for its answer (as nginx has it).
const StatusClientLeft = 499

// defaultRetryAfter is told with a 503 when nothing better is known.
const defaultRetryAfter = time.Second

// Reply is an answer that the gateway makes itself.
type Reply struct {
	Status int
	// Header in the spelling to send.
	Header []gateway.ResponseHeader
	Body   string
}

// fault is what an error code stands for, in the default set's REST form, and where other forms differ.
type fault struct {
	cause  Cause
	status int
	// kind is the header x-amzn-ErrorType.
	kind    string
	message string
	// body is the exact text; empty means {"message":"<message>"}.
	body string
	text bool
	// aws is API Gateway's REST form, http its HTTP APIs'; nil for the same.
	aws, http *form
}

type form struct {
	status        int
	kind, message string
	body          string
}

// internalError is what REST APIs say of what went wrong behind them, with the space that is on the wire (recorded).
const internalError = `{"message": "Internal server error"}`

var (
	restInternal = &form{http.StatusInternalServerError, "InternalServerErrorException", "Internal server error", internalError}
	httpInternal = &form{status: http.StatusInternalServerError, message: "Internal Server Error"}
	httpForbid   = &form{status: http.StatusForbidden, message: "Forbidden"}
	httpTooLarge = &form{status: http.StatusRequestEntityTooLarge, message: "Request Entity Too Large"}
)

// faults is the one place that turns an error code into an answer.
var faults = map[gateway.Code]fault{
	gateway.CodeUnauthorized: {cause: Unauthorized, status: http.StatusUnauthorized, kind: "UnauthorizedException", message: "Unauthorized"},
	gateway.CodeTokenExpired: {cause: TokenExpired, status: http.StatusUnauthorized, kind: "UnauthorizedException", message: "Unauthorized",
		aws: &form{http.StatusUnauthorized, "UnauthorizedException", "The incoming token has expired", ""}},
	gateway.CodeForbidden: {cause: InvalidAPIKey, status: http.StatusForbidden, kind: "ForbiddenException", message: "Forbidden"},
	gateway.CodeAccessDenied: {cause: AccessDenied, status: http.StatusForbidden, kind: "AccessDeniedException",
		message: "User is not authorized to access this resource",
		body:    `{"Message":"User is not authorized to access this resource"}`, http: httpForbid},
	gateway.CodeExplicitDeny: {cause: AccessDenied, status: http.StatusForbidden, kind: "AccessDeniedException",
		message: "User is not authorized to access this resource with an explicit deny",
		body:    `{"Message":"User is not authorized to access this resource with an explicit deny"}`, http: httpForbid},
	gateway.CodeAuthorizerFailure: {cause: AuthorizerFailure, status: http.StatusInternalServerError, kind: "AuthorizerFailureException",
		body: `{"message":null}`, http: httpInternal},
	gateway.CodeAuthorizerConfiguration: {cause: AuthorizerConfigurationError, status: http.StatusInternalServerError,
		kind: "AuthorizerConfigurationException", body: `{"message":null}`, http: httpInternal},
	gateway.CodeNoRoute: {cause: MissingAuthenticationToken, status: http.StatusNotFound, kind: "NotFoundException", message: "Not Found",
		aws: &form{http.StatusForbidden, "MissingAuthenticationTokenException", "Missing Authentication Token", ""}},
	gateway.CodeFunction: {cause: FunctionError, status: http.StatusBadGateway, kind: "InternalServerErrorException",
		message: "Internal server error", body: internalError, http: httpInternal},
	gateway.CodeTransport: {cause: IntegrationFailure, status: http.StatusBadGateway, kind: "InternalServerErrorException",
		message: "Internal server error", body: internalError, http: httpInternal},
	gateway.CodeIntegrationTimeout: {cause: IntegrationTimeout, status: http.StatusGatewayTimeout, kind: "InternalServerErrorException",
		message: "Endpoint request timed out", body: `{"message": "Endpoint request timed out"}`,
		http: &form{status: http.StatusServiceUnavailable, message: "Service Unavailable"}},
	gateway.CodeThrottled: {cause: FunctionThrottled, status: http.StatusTooManyRequests, kind: "TooManyRequestsException",
		message: "Too Many Requests", aws: restInternal},
	gateway.CodeRouteThrottled: {cause: Throttled, status: http.StatusTooManyRequests, kind: "TooManyRequestsException",
		message: "Too Many Requests"},
	gateway.CodeUnavailable: {cause: ServiceUnavailable, status: http.StatusServiceUnavailable, kind: "ServiceUnavailableException",
		message: "Service Unavailable", aws: restInternal},
	gateway.CodeTooLarge: {cause: EventTooLarge, status: http.StatusRequestEntityTooLarge, kind: "BadRequestException",
		message: "Request Too Long", body: `{"message": "Request Too Long"}`, http: httpTooLarge},
	gateway.CodeBodyTooLarge: {cause: RequestTooLarge, status: http.StatusRequestEntityTooLarge, kind: "RequestTooLargeException",
		message: "HTTP content length exceeded 10485760 bytes.", body: "HTTP content length exceeded 10485760 bytes.", text: true,
		http: httpTooLarge},
	gateway.CodeHeaderTooLarge: {cause: HeadersTooLarge, status: http.StatusRequestHeaderFieldsTooLarge, kind: "BadRequestException",
		message: "Request Header Fields Too Large"},
	gateway.CodeInvalid: {cause: BadRequestBody, status: http.StatusBadRequest, kind: "BadRequestException",
		message: "Invalid request body", body: `{"message": "Invalid request body"}`,
		http: &form{status: http.StatusBadRequest, message: "Bad Request"}},
	gateway.CodeInternal: {cause: InternalError, status: http.StatusInternalServerError, kind: "InternalServerErrorException",
		message: "Internal server error", body: internalError, http: httpInternal},
}

// Set is all answers that the gateway gives itself, compiled. It never changes.
type Set struct {
	rest, http map[gateway.Code]*prepared
	aws        bool
}

// prepared is the answer to one code in one form.
type prepared struct {
	status     int
	kind, body string
	text       bool
	message    string
	cause      Cause
	custom     *custom
}

// custom is what gateway_responses says for a cause.
type custom struct {
	status int
	body   *Template
	header []customHeader
	// json is true when the body is JSON, in which values must be escaped; typed when a header says what it is.
	json, typed bool
}

type customHeader struct {
	name  string
	value *Template
}

// New compiles r. Its error is a template's.
func New(r gateway.Responses) (*Set, error) {
	customs := make(map[Cause]*custom, len(r.Custom))
	for name, response := range r.Custom {
		c := &custom{status: response.Status, json: true}
		var err error
		if response.Body != nil {
			if c.body, err = ParseTemplate(*response.Body); err != nil {
				return nil, err
			}
		}
		for _, h := range response.Header {
			value, err := ParseTemplate(h.Value)
			if err != nil {
				return nil, err
			}
			c.header = append(c.header, customHeader{h.Name, value})
			if strings.EqualFold(h.Name, "Content-Type") {
				c.typed, c.json = true, strings.Contains(strings.ToLower(h.Value), "json")
			}
		}
		customs[Cause(name)] = c
	}
	s := &Set{rest: make(map[gateway.Code]*prepared, len(faults)), http: make(map[gateway.Code]*prepared, len(faults)), aws: r.Set == gateway.ResponsesAWSREST}
	for code, f := range faults {
		rest := &prepared{status: f.status, kind: f.kind, message: f.message, body: f.body, text: f.text, cause: f.cause}
		if f.aws != nil && s.aws {
			rest.use(f.aws)
		}
		web := *rest
		if s.aws && f.aws != nil { // the set is about REST APIs
			web = prepared{status: f.status, kind: f.kind, message: f.message, body: f.body, text: f.text, cause: f.cause}
		}
		if f.http != nil {
			web.use(f.http)
		}
		web.kind = "" // HTTP APIs send no x-amzn-ErrorType
		for _, p := range []*prepared{rest, &web} {
			if p.body == "" {
				p.body = string(appendJSON([]byte(`{"message":`), p.message)) + "}"
			}
			p.custom = choose(customs, p)
		}
		s.rest[code], s.http[code] = rest, &web
	}
	return s, nil
}

// Default is the set of a box whose routing.yml says nothing of it.
func Default() *Set {
	s, _ := New(gateway.Responses{}) // there is no template that could be wrong
	return s
}

func (p *prepared) use(f *form) {
	p.status, p.kind, p.message, p.body, p.text = f.status, f.kind, f.message, f.body, false
}

// choose finds what is said for a cause: for itself, for what it is a part of, or for its class of status.
func choose(customs map[Cause]*custom, p *prepared) *custom {
	class := Default4XX
	if p.status >= http.StatusInternalServerError {
		class = Default5XX
	}
	for _, cause := range []Cause{p.cause, causes[p.cause], class} {
		if c, ok := customs[cause]; ok && cause != "" {
			return c
		}
	}
	return nil
}

// Reply answers err, in the form of HTTP APIs or that of REST APIs. Templates take their values from v.
func (s *Set) Reply(err error, httpAPI bool, v *Values) Reply {
	code := gateway.ErrorCode(err)
	var e *gateway.Error
	errors.As(err, &e)
	var r Reply
	add := func(name, value string) {
		r.Header = append(r.Header, gateway.ResponseHeader{Name: name, Value: value})
	}
	if code == gateway.CodeCanceled {
		r.Status = StatusClientLeft
		add("Content-Type", "application/json")
		add("Connection", "close")
		return r
	}
	forms := s.rest
	if httpAPI {
		forms = s.http
	}
	p, ok := forms[code]
	if !ok {
		p = forms[gateway.CodeInternal]
	}
	if code == gateway.CodeNoRoute && s.aws && !httpAPI {
		p = signed(p, v.Authorization)
	}
	r.Status, r.Body = p.status, p.body
	if e != nil && e.RetryAfter > 0 {
		add("Retry-After", seconds(e.RetryAfter))
	} else if code == gateway.CodeUnavailable {
		add("Retry-After", seconds(defaultRetryAfter))
	}
	if e != nil && e.Challenge != "" {
		add("Www-Authenticate", e.Challenge)
	}
	if p.kind != "" {
		add("x-amzn-ErrorType", p.kind)
	}
	contentType := "application/json"
	if p.text {
		contentType = "text/plain"
	}
	if c := p.custom; c != nil {
		v.message, v.cause = p.message, p.cause
		if parent := causes[p.cause]; parent != "" {
			v.cause = parent
		}
		if c.status != 0 {
			r.Status = c.status
		}
		if c.body != nil {
			r.Body = c.body.render(v, c.json)
			contentType = "application/json"
		}
		for _, h := range c.header {
			add(h.name, singleLine(h.value.render(v, false)))
		}
		if c.typed {
			return r
		}
	}
	add("Content-Type", contentType)
	return r
}

// signed is what API Gateway makes of an Authorization header that is no signature, on a path that no route has: it takes every
// such request for a signed one [?].
func signed(p *prepared, authorization string) *prepared {
	scheme, rest, ok := strings.Cut(authorization, " ")
	if !ok || strings.HasPrefix(scheme, "AWS4-") {
		return p
	}
	for part := range strings.SplitSeq(rest, ",") {
		if part = strings.TrimSpace(part); strings.Contains(part, "=") {
			continue
		}
		q := *p
		q.kind = "IncompleteSignatureException"
		q.message = "'" + part + "' not a valid key=value pair (missing equal-sign) in Authorization header: '" + authorization + "'."
		q.body = string(appendJSON([]byte(`{"message":`), q.message)) + "}"
		return &q
	}
	return p
}

// seconds rounds up: a client that comes back too early is refused again.
func seconds(d time.Duration) string {
	return strconv.Itoa(int(math.Ceil(d.Seconds())))
}

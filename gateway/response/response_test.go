package response_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/response"
)

func header(r response.Reply, name string) string {
	for _, h := range r.Header {
		if h.Name == name {
			return h.Value
		}
	}
	return ""
}

// TestSet_Defaults is docs/system-specification.md 9 and sections 3 and 4 of tests/conformance/rows.yml, to the byte.
func TestSet_Defaults(t *testing.T) {
	const internal = `{"message": "Internal server error"}`
	type answer struct {
		status     int
		kind, body string
	}
	tests := []struct {
		code            gateway.Code
		esb, aws, httpA answer
	}{
		{gateway.CodeNoRoute, answer{404, "NotFoundException", `{"message":"Not Found"}`},
			answer{403, "MissingAuthenticationTokenException", `{"message":"Missing Authentication Token"}`}, answer{404, "", `{"message":"Not Found"}`}},
		{gateway.CodeUnauthorized, answer{401, "UnauthorizedException", `{"message":"Unauthorized"}`},
			answer{401, "UnauthorizedException", `{"message":"Unauthorized"}`}, answer{401, "", `{"message":"Unauthorized"}`}},
		{gateway.CodeTokenExpired, answer{401, "UnauthorizedException", `{"message":"Unauthorized"}`},
			answer{401, "UnauthorizedException", `{"message":"The incoming token has expired"}`}, answer{401, "", `{"message":"Unauthorized"}`}},
		{gateway.CodeForbidden, answer{403, "ForbiddenException", `{"message":"Forbidden"}`},
			answer{403, "ForbiddenException", `{"message":"Forbidden"}`}, answer{403, "", `{"message":"Forbidden"}`}},
		{gateway.CodeAccessDenied, answer{403, "AccessDeniedException", `{"Message":"User is not authorized to access this resource"}`},
			answer{403, "AccessDeniedException", `{"Message":"User is not authorized to access this resource"}`}, answer{403, "", `{"message":"Forbidden"}`}},
		{gateway.CodeFunction, answer{502, "InternalServerErrorException", internal},
			answer{502, "InternalServerErrorException", internal}, answer{500, "", `{"message":"Internal Server Error"}`}},
		{gateway.CodeIntegrationTimeout, answer{504, "InternalServerErrorException", `{"message": "Endpoint request timed out"}`},
			answer{504, "InternalServerErrorException", `{"message": "Endpoint request timed out"}`}, answer{503, "", `{"message":"Service Unavailable"}`}},
		{gateway.CodeThrottled, answer{429, "TooManyRequestsException", `{"message":"Too Many Requests"}`},
			answer{500, "InternalServerErrorException", internal}, answer{429, "", `{"message":"Too Many Requests"}`}},
		{gateway.CodeUnavailable, answer{503, "ServiceUnavailableException", `{"message":"Service Unavailable"}`},
			answer{500, "InternalServerErrorException", internal}, answer{503, "", `{"message":"Service Unavailable"}`}},
		{gateway.CodeBodyTooLarge, answer{413, "RequestTooLargeException", `HTTP content length exceeded 10485760 bytes.`},
			answer{413, "RequestTooLargeException", `HTTP content length exceeded 10485760 bytes.`}, answer{413, "", `{"message":"Request Entity Too Large"}`}},
		{gateway.CodeTooLarge, answer{413, "BadRequestException", `{"message": "Request Too Long"}`},
			answer{413, "BadRequestException", `{"message": "Request Too Long"}`}, answer{413, "", `{"message":"Request Entity Too Large"}`}},
		{"some stranger", answer{500, "InternalServerErrorException", internal},
			answer{500, "InternalServerErrorException", internal}, answer{500, "", `{"message":"Internal Server Error"}`}},
	}
	aws, err := response.New(gateway.Responses{Set: gateway.ResponsesAWSREST})
	require.NoError(t, err)
	for _, tt := range tests {
		t.Run(string(tt.code), func(t *testing.T) {
			fault := gateway.Errorf(tt.code, "secret %s", "10.88.0.7")
			for _, form := range []struct {
				name string
				set  *response.Set
				http bool
				want answer
			}{{"esb", response.Default(), false, tt.esb}, {"aws-rest", aws, false, tt.aws}, {"http", response.Default(), true, tt.httpA}, {"http with aws-rest", aws, true, tt.httpA}} {
				r := form.set.Reply(fault, form.http, &response.Values{})
				assert.Equal(t, form.want, answer{r.Status, header(r, "x-amzn-ErrorType"), r.Body}, form.name)
				if tt.code == gateway.CodeBodyTooLarge && !form.http {
					assert.Equal(t, "text/plain", header(r, "Content-Type"))
				} else {
					assert.Equal(t, "application/json", header(r, "Content-Type"))
				}
			}
		})
	}
}

func TestSet_RetryAfterAndChallenge(t *testing.T) {
	r := response.Default().Reply(gateway.Errorf(gateway.CodeUnavailable, "x"), false, &response.Values{})
	assert.Equal(t, "1", header(r, "Retry-After"))
	r = response.Default().Reply(&gateway.Error{Code: gateway.CodeThrottled, RetryAfter: 1200 * time.Millisecond}, false, &response.Values{})
	assert.Equal(t, "2", header(r, "Retry-After"))
	r = response.Default().Reply(&gateway.Error{Code: gateway.CodeUnauthorized, Challenge: "Bearer"}, true, &response.Values{})
	assert.Equal(t, "Bearer", header(r, "Www-Authenticate"))
	r = response.Default().Reply(gateway.Errorf(gateway.CodeCanceled, "x"), false, &response.Values{})
	assert.Equal(t, response.StatusClientLeft, r.Status)
	assert.Empty(t, r.Body)
}

func TestSet_Custom(t *testing.T) {
	text := func(s string) *string { return &s }
	set, err := response.New(gateway.Responses{Custom: map[string]gateway.Response{
		"MISSING_AUTHENTICATION_TOKEN": {Status: 410, Body: text(`{"m":$context.error.messageString,"raw":"$context.error.message","p":"$context.path","t":"$context.error.responseType","v":"$stageVariables.v"}`),
			Header: []gateway.ResponseHeader{{Name: "X-Id", Value: "id $context.requestId"}}},
		"INTEGRATION_FAILURE": {Status: 599},
		"DEFAULT_4XX":         {Body: text("$context.identity.userAgent"), Header: []gateway.ResponseHeader{{Name: "content-type", Value: "text/plain"}}},
		"DEFAULT_5XX":         {Status: 500},
	}})
	require.NoError(t, err)
	values := &response.Values{RequestID: "r", Path: `/prod/"}`, UserAgent: "\"agent\"\r\nX: y", Method: http.MethodGet, Stage: "prod",
		StageVariables: []gateway.StageVariable{{Name: "v", Value: "1"}}}

	r := set.Reply(gateway.Errorf(gateway.CodeNoRoute, "x"), false, values)
	assert.Equal(t, 410, r.Status)
	assert.Equal(t, "id r", header(r, "X-Id"))
	assert.JSONEq(t, `{"m":"Not Found","raw":"Not Found","p":"/prod/\"}","t":"MISSING_AUTHENTICATION_TOKEN","v":"1"}`, r.Body)
	assert.Equal(t, "NotFoundException", header(r, "x-amzn-ErrorType"))

	r = set.Reply(gateway.Errorf(gateway.CodeFunction, "x"), false, values)
	assert.Equal(t, 599, r.Status, "a part of INTEGRATION_FAILURE")
	assert.Equal(t, `{"message": "Internal server error"}`, r.Body, "what is not replaced stays")

	r = set.Reply(gateway.Errorf(gateway.CodeThrottled, "x"), true, values)
	assert.Equal(t, 599, r.Status)

	r = set.Reply(gateway.Errorf(gateway.CodeForbidden, "x"), false, values)
	assert.Equal(t, 403, r.Status)
	assert.Equal(t, "\"agent\"\r\nX: y", r.Body, "text is not escaped as JSON")
	assert.Equal(t, "text/plain", header(r, "content-type"))
	assert.Empty(t, header(r, "Content-Type"))

	r = set.Reply(gateway.Errorf(gateway.CodeInternal, "x"), false, values)
	assert.Equal(t, 500, r.Status)
}

// TestSet_NoHeaderIsSplit: what a client sends must not end a header's line.
func TestSet_NoHeaderIsSplit(t *testing.T) {
	set, err := response.New(gateway.Responses{Custom: map[string]gateway.Response{
		"DEFAULT_4XX": {Header: []gateway.ResponseHeader{{Name: "X-Agent", Value: "$context.identity.userAgent"}}},
	}})
	require.NoError(t, err)
	r := set.Reply(gateway.Errorf(gateway.CodeNoRoute, "x"), false, &response.Values{UserAgent: "a\r\nSet-Cookie: x"})
	assert.Equal(t, "aSet-Cookie: x", header(r, "X-Agent"))
}

// TestSet_AuthorizationOnAnUnknownPath [?]: API Gateway takes it for a signature.
func TestSet_AuthorizationOnAnUnknownPath(t *testing.T) {
	set, err := response.New(gateway.Responses{Set: gateway.ResponsesAWSREST})
	require.NoError(t, err)
	r := set.Reply(gateway.Errorf(gateway.CodeNoRoute, "x"), false, &response.Values{Authorization: `Bearer a"b`})
	assert.Equal(t, 403, r.Status)
	assert.Equal(t, "IncompleteSignatureException", header(r, "x-amzn-ErrorType"))
	var body struct{ Message string }
	require.NoError(t, json.Unmarshal([]byte(r.Body), &body))
	assert.Equal(t, `'a"b' not a valid key=value pair (missing equal-sign) in Authorization header: 'Bearer a"b'.`, body.Message)
	r = set.Reply(gateway.Errorf(gateway.CodeNoRoute, "x"), false, &response.Values{Authorization: "AWS4-HMAC-SHA256 Credential=x"})
	assert.Equal(t, "MissingAuthenticationTokenException", header(r, "x-amzn-ErrorType"))
}

func TestParseTemplate_RefusesWhatItCannotFillIn(t *testing.T) {
	for _, text := range []string{"$context.nonsense", "$context.authorizer.claims.sub", "$input.body", "$util.escapeJavaScript(1)",
		"#set($x = 1)", "${context.path}", "$method.request.header.a", "$context.error.messageStrin"} {
		_, err := response.ParseTemplate(text)
		assert.Error(t, err, text)
	}
	for _, text := range []string{"", "plain $5, a#b", "$contexts", "$context.error.message.", "$context.path$context.stage"} {
		_, err := response.ParseTemplate(text)
		assert.NoError(t, err, text)
	}
}

func TestParseCause(t *testing.T) {
	for name, want := range map[string]response.Cause{
		"DEFAULT_4XX": response.Default4XX, "default_4xx": response.Default4XX, "invalid-api-key": response.InvalidAPIKey,
		"RESOURCE_NOT_FOUND": response.MissingAuthenticationToken, "resource-not-found": response.MissingAuthenticationToken,
		"function_error": response.FunctionError,
	} {
		got, ok := response.ParseCause(name)
		assert.True(t, ok, name)
		assert.Equal(t, want, got)
	}
	_, ok := response.ParseCause("NOT_A_CAUSE")
	assert.False(t, ok)
}

package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

const oneFunction = "functions: {f: {image: i:1}}"

func parseRoutingText(text string) (*Config, error) {
	return parse(files{functions: file{"functions.yml", oneFunction}, routing: file{"routing.yml", text}}, Options{
		LookupEnv:     func(string) (string, bool) { return "", false },
		ReservedPaths: map[string]string{"/ping": "reserved for the health check of API Gateway"},
	})
}

func TestParse_API_IsTaken(t *testing.T) {
	c, err := parseRoutingText(`
stage: dev
stage_in_url: true
stage_variables: {b: "2", a: url.example.com/x}
binary_media_types: [image/png]
gateway_responses:
  set: aws-rest
  missing_authentication_token: {status: 404, body: '{"error":$context.error.messageString}', headers: {Access-Control-Allow-Origin: "*"}}
  DEFAULT_5XX: {body: "$stageVariables.a"}
routes:
  - {path: $default, function: f}
  - {path: /a, method: GET, function: f, payload: "1.0", api: http}
  - {path: /b, method: GET, function: f, operation_name: GetB, binary_media_types: ["*/*"]}
  - {path: /c, method: GET, function: f, binary_media_types: []}
`)
	require.NoError(t, err)
	body, variable := `{"error":$context.error.messageString}`, "$stageVariables.a"
	assert.Equal(t, gateway.API{
		Stage: "dev", StageInURL: true,
		StageVariables: []gateway.StageVariable{{Name: "a", Value: "url.example.com/x"}, {Name: "b", Value: "2"}},
		Responses: gateway.Responses{Set: gateway.ResponsesAWSREST, Custom: map[string]gateway.Response{
			"MISSING_AUTHENTICATION_TOKEN": {Status: 404, Body: &body, Header: []gateway.ResponseHeader{{Name: "Access-Control-Allow-Origin", Value: "*"}}},
			"DEFAULT_5XX":                  {Body: &variable},
		}},
	}, c.API)
	assert.NotNil(t, c.Replies)
	assert.Equal(t, gateway.DefaultRoute, c.Routes[0].Path)
	assert.Empty(t, c.Routes[0].Methods)
	assert.True(t, c.Routes[1].HTTPAPI())
	assert.Equal(t, "GetB", c.Routes[2].OperationName)
	assert.Equal(t, []string{"image/png"}, c.Routes[0].BinaryMediaTypes, "the default of all")
	assert.Equal(t, []string{"*/*"}, c.Routes[2].BinaryMediaTypes, "the route's own")
	assert.Empty(t, c.Routes[3].BinaryMediaTypes, "none is a list too")

	c, err = parseRoutingText("gateway_responses: aws-rest\nroutes: []\n")
	require.NoError(t, err)
	assert.Equal(t, gateway.Responses{Set: gateway.ResponsesAWSREST}, c.API.Responses)
}

func TestParse_BadAPI_NamesFileLineAndKey(t *testing.T) {
	var many []string
	for i := range 101 {
		many = append(many, fmt.Sprintf("v%d: x", i))
	}
	tests := []struct{ yaml, want string }{
		{"stage: a/b", `routing.yml:1: stage: must be 1 to 128 letters, digits, dashes and underscores, or $default, got "a/b"`},
		{"stage_in_url: true", "routing.yml:1: stage_in_url: needs a stage with a name"},
		{"stage: $default\nstage_in_url: true", "routing.yml:2: stage_in_url: needs a stage with a name"},
		{"stage_variables: {" + strings.Join(many, ", ") + "}", "routing.yml:1: stage_variables: has 101 variables, at most 100"},
		{"stage_variables: {" + strings.Repeat("n", 65) + ": x}", "has a name of 65 characters, at most 64"},
		{"stage_variables: {a-b: x}", "routing.yml:1: stage_variables.a-b: is not the name of a stage variable"},
		{"stage_variables: {a: " + strings.Repeat("v", 513) + "}", "stage_variables.a: has 513 characters, at most 512"},
		{"stage_variables: {a: 'x y'}", "stage_variables.a: may have letters, digits and -._~:/?#&=, only"},
		{"gateway_responses: aws", `routing.yml:1: gateway_responses: must be one of esb, aws-rest, got "aws"`},
		{"gateway_responses: {trottled: {status: 429}}", "gateway_responses.trottled: is not a cause; did you mean THROTTLED?"},
		{"gateway_responses: {nonsense_of_all: {status: 429}}", "gateway_responses.nonsense_of_all: is not a cause; there are set (esb or aws-rest) and ACCESS_DENIED, "},
		{"gateway_responses:\n  throttled: {status: 429}\n  THROTTLED: {status: 429}", "routing.yml:3: gateway_responses.THROTTLED: is the same cause as the one on line 2"},
		{"gateway_responses: {throttled: {status: 42}}", "gateway_responses.throttled.status: must be 200 to 599, got 42"},
		{"gateway_responses: {throttled: {}}", "gateway_responses.throttled: says nothing"},
		{"gateway_responses: {throttled: {statuss: 429}}", "gateway_responses.throttled.statuss: is not a known key; did you mean status?"},
		{"gateway_responses: {throttled: {body: $context.nothing}}", "gateway_responses.throttled.body: there is no variable $context.nothing; there are: accountId, "},
		{"gateway_responses: {throttled: {body: $stageVariables.a}}", "there is no stage variable a"},
		{"gateway_responses: {throttled: {headers: {Content-Length: 1}}}", "headers.Content-Length: is a header that the gateway sets itself"},
		{"gateway_responses: {throttled: {headers: {A: \"'*'\"}}}", "write * without them"},
		{"gateway_responses: {throttled: {headers: {A b: x}}}", "is not the name of a header"},
		{"routes:\n  - {path: $default, method: GET, function: f}", "routing.yml:2: routes[0].method: must be ANY, or be left out"},
		{"routes:\n  - {path: $default, function: f}\n  - {path: $default, function: f}", "routing.yml:3: routes[1].path: the route $default is given twice, first on line 2"},
		{"routes:\n  - {path: /ping, method: GET, function: f}", "routes[0].path: /ping is served by the gateway itself"},
		{"routes:\n  - {path: /a, method: GET, function: f, api: rest, payload: \"2.0\"}", "routes[0].api: REST APIs have no payload 2.0"},
		{"routes:\n  - {path: /a, method: GET, function: f, api: http, operation_name: X}", "routes[0].operation_name: is for REST APIs"},
		{"routes:\n  - {path: /a, method: GET, function: f, timeout: 30}", "routes[0].timeout: must be 0.05 to 29 seconds, got 30"},
	}
	for _, tt := range tests {
		t.Run(tt.yaml[:min(len(tt.yaml), 50)], func(t *testing.T) {
			text := tt.yaml
			if !strings.HasPrefix(text, "routes") {
				text += "\nroutes: []"
			}
			_, err := parseRoutingText(text + "\n")
			assert.ErrorContains(t, err, tt.want)
		})
	}
}

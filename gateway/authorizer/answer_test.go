package authorizer

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
)

const arn = "arn:aws:execute-api:us-east-1:123456789012:esbedgebox/prod/GET/users/7"

func policy(statements string) string {
	return `{"principalId":"me","policyDocument":{"Version":"2012-10-17","Statement":` + statements + `}}`
}

func TestDecision_Policies(t *testing.T) {
	statement := func(effect, action, resource string) string {
		return `{"Effect":"` + effect + `","Action":"` + action + `","Resource":"` + resource + `"}`
	}
	everything := statement("Allow", "execute-api:Invoke", "*")
	for _, c := range []struct {
		name, statements string
		want             verdict
	}{
		{"the ARN itself", `[` + statement("Allow", "execute-api:Invoke", arn) + `]`, allow},
		{"one statement without a list", everything, allow},
		{"stars", `[` + statement("Allow", "execute-api:*", "arn:aws:execute-api:*:*:*/*/GET/*") + `]`, allow},
		{"a star goes over slashes", `[` + statement("Allow", "*", "arn:aws:execute-api:us-east-1:123456789012:*/7") + `]`, allow},
		{"question marks", `[` + statement("Allow", "execute-api:Invok?", strings.Replace(arn, "GET", "???", 1)) + `]`, allow},
		{"one question mark is one character", `[` + statement("Allow", "*", strings.Replace(arn, "GET", "??", 1)) + `]`, implicitDeny},
		{"case of an action does not count", `[` + statement("Allow", "EXECUTE-API:invoke", "*") + `]`, allow},
		{"case of a resource counts", `[` + statement("Allow", "*", strings.ToUpper(arn)) + `]`, implicitDeny},
		{"another action", `[` + statement("Allow", "lambda:InvokeFunction", "*") + `]`, implicitDeny},
		{"another path", `[` + statement("Allow", "*", "arn:aws:execute-api:*/GET/users/8") + `]`, implicitDeny},
		{"a prefix is no match", `[` + statement("Allow", "*", strings.TrimSuffix(arn, "7")) + `]`, implicitDeny},
		{"deny wins, whatever the order", `[` + statement("Deny", "*", "*/GET/*") + `,` + everything + `]`, explicitDeny},
		{"deny wins behind allow", `[` + everything + `,` + statement("Deny", "*", "*/GET/*") + `]`, explicitDeny},
		{"deny of something else", `[` + everything + `,` + statement("Deny", "*", "*/POST/*") + `]`, allow},
		{"lists", `[{"Sid":"x","Effect":"Allow","Action":["a:b","execute-api:Invoke"],"Resource":["no","` + arn + `"]}]`, allow},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := parseAnswer(&gateway.Authorizer{Payload: gateway.PayloadV1}, []byte(policy(c.statements)))
			require.NoError(t, err)
			assert.Equal(t, c.want, d.on(arn))
			assert.Equal(t, "me", d.caller.Principal)
		})
	}
}

func TestParseAnswer_Context(t *testing.T) {
	context := `{"s":"a\"b","n":12.50,"b":true,"gone":null}`
	flat := []gateway.ContextValue{
		{Name: "b", Text: "true", JSON: "true"}, {Name: "n", Text: "12.50", JSON: "12.50"}, {Name: "s", Text: `a"b`, JSON: `"a\"b"`},
	}
	d, err := parseAnswer(&gateway.Authorizer{Payload: gateway.PayloadV1},
		[]byte(`{"principalId":"me","usageIdentifierKey":"k","context":`+context+`,"policyDocument":{"Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}}`))
	require.NoError(t, err)
	assert.Equal(t, &gateway.Caller{Kind: gateway.AuthFunction, Principal: "me", APIKey: "k", Context: flat}, d.caller)

	d, err = parseAnswer(&gateway.Authorizer{Payload: gateway.PayloadV2, Simple: true},
		[]byte(`{"isAuthorized":true,"context":{"list":["a",1],"map":{"k":"v"}}}`))
	require.NoError(t, err)
	assert.Equal(t, allow, d.on(arn))
	assert.Equal(t, []gateway.ContextValue{{Name: "list", Text: `["a",1]`, JSON: `["a",1]`}, {Name: "map", Text: `{"k":"v"}`, JSON: `{"k":"v"}`}}, d.caller.Context)

	d, err = parseAnswer(&gateway.Authorizer{Payload: gateway.PayloadV2, Simple: true}, []byte(`{"isAuthorized":false}`))
	require.NoError(t, err)
	assert.Equal(t, explicitDeny, d.on(arn))
}

func TestParseAnswer_WrongShapes(t *testing.T) {
	good := `{"Effect":"Allow","Action":"*","Resource":"*"}`
	for _, c := range []struct{ name, answer, want string }{
		{"nothing", ``, "the answer is not a JSON object"},
		{"null", `null`, "the answer is not a JSON object"},
		{"a text", `"yes"`, "the answer is not a JSON object"},
		{"two values", policy(good) + `{}`, "the answer is not a JSON object"},
		{"simple where a policy is asked for", `{"isAuthorized":true}`, "principalId must be"},
		{"no principal", `{"policyDocument":{"Statement":[` + good + `]}}`, "principalId must be"},
		{"principal in another case", `{"PrincipalId":"me","policyDocument":{"Statement":[` + good + `]}}`, "principalId must be"},
		{"empty principal", `{"principalId":"","policyDocument":{"Statement":[` + good + `]}}`, "principalId must be"},
		{"number as principal", `{"principalId":1,"policyDocument":{"Statement":[` + good + `]}}`, "principalId must be"},
		{"no policy", `{"principalId":"me"}`, "policyDocument: must be an object"},
		{"no statement", policy(`[]`), "has no Statement"},
		{"statement missing", `{"principalId":"me","policyDocument":{}}`, "statement 1"},
		{"effect", policy(`[{"Effect":"allow","Action":"*","Resource":"*"}]`), "the Effect must be Allow or Deny"},
		{"no action", policy(`[{"Effect":"Allow","Resource":"*"}]`), "the Action must be"},
		{"null in a list", policy(`[{"Effect":"Allow","Action":[null],"Resource":"*"}]`), "the Action must be"},
		{"empty list", policy(`[{"Effect":"Allow","Action":"*","Resource":[]}]`), "the Resource must be"},
		{"a condition is never passed over", policy(`[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{}}]`), `"Condition" is not supported`},
		{"nor what is not an action", policy(`[{"Effect":"Allow","NotAction":"*","Resource":"*"}]`), `"NotAction" is not supported`},
		{"second statement", policy(`[` + good + `,{}]`), "statement 2"},
		{"too large", policy(`[{"Effect":"Allow","Action":"*","Resource":"` + strings.Repeat("a", 9000) + `"}]`), "at most 8192 are allowed"},
		{"context", `{"principalId":"me","context":[],"policyDocument":{"Statement":` + good + `}}`, "context must be an object"},
		{"nested context", `{"principalId":"me","context":{"a":[]},"policyDocument":{"Statement":` + good + `}}`, `context: "a" must be a string`},
		{"usage key", `{"principalId":"me","usageIdentifierKey":1,"policyDocument":{"Statement":` + good + `}}`, "usageIdentifierKey must be a string"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseAnswer(&gateway.Authorizer{Payload: gateway.PayloadV1}, []byte(c.answer))
			assert.ErrorContains(t, err, c.want)
		})
	}
	for _, answer := range []string{`{}`, `{"isAuthorized":"true"}`, `{"isAuthorized":1}`, `{"isAuthorized":null}`, policy(good)} {
		_, err := parseAnswer(&gateway.Authorizer{Payload: gateway.PayloadV2, Simple: true}, []byte(answer))
		assert.ErrorContains(t, err, "isAuthorized must be true or false", answer)
	}
}

func FuzzMatches(f *testing.F) {
	for _, s := range [][2]string{{"a*b?c", "axxbyc"}, {"*", ""}, {"", ""}, {"**?", "ab"}, {"*a*b*", "xaybz"}, {"?", ""}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 200 || len(text) > 2000 {
			return
		}
		// The slow and obvious way, byte by byte as matches does it.
		latin := func(s string) string {
			r := make([]rune, len(s))
			for i := range len(s) {
				r[i] = rune(s[i])
			}
			return string(r)
		}
		quoted := strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(latin(pattern)))
		want := regexp.MustCompile(`(?s)^` + quoted + `$`).MatchString(latin(text))
		assert.Equal(t, want, matches(pattern, text))
	})
}

func FuzzAuthorizerAnswer(f *testing.F) {
	f.Add([]byte(policy(`[{"Effect":"Allow","Action":"execute-api:Invoke","Resource":"*"}]`)), false)
	f.Add([]byte(policy(`{"Effect":"Deny","Action":["*"],"Resource":["arn:*"]}`)), false)
	f.Add([]byte(`{"isAuthorized":true,"context":{"a":[1,{"b":null}],"c":"\ud800"}}`), true)
	f.Add([]byte(`{"principalId":"me","context":{"a":1e400}}`), false)
	f.Fuzz(func(t *testing.T, answer []byte, simple bool) {
		a := &gateway.Authorizer{Payload: gateway.PayloadV1, Simple: simple}
		if simple {
			a.Payload = gateway.PayloadV2
		}
		d, err := parseAnswer(a, answer)
		if err != nil {
			assert.Nil(t, d)
			return
		}
		if d.on(arn) == allow {
			// Nothing is allowed that does not say so in so many words.
			assert.True(t, strings.Contains(string(answer), "Allow") || strings.Contains(string(answer), "true") || strings.Contains(string(answer), `\u`))
		}
		for _, v := range d.caller.Context {
			assert.True(t, json.Valid([]byte(v.JSON)), v.JSON)
		}
	})
}

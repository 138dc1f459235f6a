package event_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/event"
)

// mapped is an answer in a form that tests can write down: "Name: value", in order.
type mapped struct {
	status int
	header []string
	body   string
}

func mapResult(route *gateway.Route, payload, accept string) (mapped, error) {
	a, err := event.Map(route, []byte(payload), accept)
	if err != nil {
		return mapped{}, err
	}
	m := mapped{status: a.Status, body: string(a.Body)}
	for _, f := range a.Header {
		for _, v := range f.Values {
			m.header = append(m.header, f.Name+": "+v)
		}
	}
	return m, nil
}

var jsonType = []string{"Content-Type: application/json"}

// TestMap_V1 is section 2 of tests/conformance/rows.yml, row by row.
func TestMap_V1(t *testing.T) {
	tests := []struct {
		name, payload string
		want          mapped
	}{
		{"status alone", `{"statusCode":200}`, mapped{200, jsonType, ""}},
		{"headers alone", `{"headers":{"A":"b"}}`, mapped{200, []string{"A: b", jsonType[0]}, ""}},
		{"empty object", ` { } `, mapped{200, jsonType, ""}},
		{"null status", `{"statusCode":null,"body":"x"}`, mapped{200, jsonType, "x"}},
		{"status as text", `{"statusCode":"201"}`, mapped{201, jsonType, ""}},
		{"status as a float", `{"statusCode":201.0}`, mapped{201, jsonType, ""}},
		{"body with escapes", `{"body":"a\"\\\/\b\f\n\r\té\u00e9\ud83d\ude00\ud83d."}`, mapped{200, jsonType, "a\"\\/\b\f\n\r\téé😀\ufffd."}},
		{"body null", `{"body":null}`, mapped{200, jsonType, ""}},
		{"body a number", `{"body":1.5e3}`, mapped{200, jsonType, "1.5e3"}},
		{"headers null", `{"headers":null,"multiValueHeaders":null,"body":"x"}`, mapped{200, jsonType, "x"}},
		{"header values become text", `{"headers":{"A":true,"B":1.50}}`, mapped{200, []string{"A: true", "B: 1.50", jsonType[0]}, ""}},
		{"own content type", `{"headers":{"content-type":"text/html"}}`, mapped{200, []string{"content-type: text/html"}, ""}},
		{"multi first, then single", `{"headers":{"x-a":"3"},"multiValueHeaders":{"X-A":["1","2"]}}`,
			mapped{200, []string{"X-A: 1", "X-A: 2", "X-A: 3", jsonType[0]}, ""}},
		{"equal values once", `{"headers":{"X-A":"1"},"multiValueHeaders":{"X-A":["1","2"]}}`,
			mapped{200, []string{"X-A: 1", "X-A: 2", jsonType[0]}, ""}},
		{"cookies by spelling", `{"headers":{"Set-Cookie":"a","set-Cookie":"b"}}`,
			mapped{200, []string{"Set-Cookie: a", "Set-Cookie: b", jsonType[0]}, ""}},
		{"remapped", `{"headers":{"Connection":"close","content-length":"9","Date":"d","Server":"s","WWW-Authenticate":"Basic","x-amzn-RequestId":"i"}}`,
			mapped{200, []string{"x-amzn-Remapped-Connection: close", "x-amzn-Remapped-content-length: 9", "x-amzn-Remapped-Date: d",
				"x-amzn-Remapped-Server: s", "x-amzn-Remapped-WWW-Authenticate: Basic", "x-amzn-Remapped-x-amzn-RequestId: i", jsonType[0]}, ""}},
		{"dropped", `{"headers":{"Transfer-Encoding":"chunked","Upgrade":"x"}}`, mapped{200, jsonType, ""}},
		{"not base64 unless said", `{"body":"aGk="}`, mapped{200, jsonType, "aGk="}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := mapResult(&gateway.Route{Payload: gateway.PayloadV1}, tt.payload, "")
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
}

func TestMap_V1_WrongShapes(t *testing.T) {
	for _, payload := range []string{
		``, `null`, `"text"`, `3`, `[]`, `true`, `{`, `{"statusCode":200`, `{"statusCode":200}}`, `{"statusCode":200} x`,
		`{"statusCode":"test"}`, `{"statusCode":true}`, `{"statusCode":200.5}`, `{"statusCode":{}}`, `{"statusCode":99}`,
		`{"statusCode":199}`, `{"statusCode":600}`, `{"statusCode":-1}`, `{"statusCode":0200}`, `{"statusCode":99999999999999999999}`,
		`{"statusCode":200,"extra":1}`, `{"statusCode":200,"cookies":[]}`, `{"StatusCode":200}`,
		`{"errorMessage":"x","errorType":"y","stackTrace":[]}`,
		`{"body":{}}`, `{"body":[]}`, `{"body":"a` + "\n" + `"}`, `{"body":"\x"}`, `{"body":"\u12"}`, `{"body":"`, `{"body":"\`, `{"body":nul}`,
		`{"headers":[]}`, `{"headers":"a"}`, `{"headers":{"A":{}}}`, `{"headers":{"A":["b"]}}`, `{"headers":{"":"x"}}`,
		`{"headers":{"a b":"x"}}`, `{"headers":{"A":"x\r\nB: y"}}`, `{"headers":{"A":"` + strings.Repeat("x", 10300) + `"}}`,
		`{"multiValueHeaders":{"A":"b"}}`, `{"multiValueHeaders":{"A":null}}`, `{"multiValueHeaders":{"A":[["b"]]}}`, `{"multiValueHeaders":[]}`,
		`{"multiValueHeaders":{"A":["b"}}`, `{"isBase64Encoded":1}`, `{"isBase64Encoded":"yes"}`, `{"isBase64Encoded":{}}`, `{'statusCode':200}`, `{"statusCode":200,}`,
	} {
		t.Run(payload[:min(len(payload), 40)], func(t *testing.T) {
			_, err := mapResult(&gateway.Route{Payload: gateway.PayloadV1}, payload, "")
			assert.Equal(t, gateway.CodeFunction, gateway.ErrorCode(err), "%v", err)
		})
	}
}

func TestMap_V1_Base64(t *testing.T) {
	const payload = `{"isBase64Encoded":true,"body":"iVBORw=="}`
	png := []string{"image/png"}
	tests := []struct {
		name, payload, accept string
		types                 []string
		want                  string
		code                  gateway.Code
	}{
		{"first accepted type is listed", payload, "image/png, */*", png, "\x89PNG", ""},
		{"second accepted type is listed", payload, "text/html, image/png", png, "iVBORw==", ""},
		{"parameters do not count", payload, "image/png;q=0.8", png, "\x89PNG", ""},
		{"anything accepted, one listed", payload, "*/*", png, "iVBORw==", ""},
		{"anything listed", payload, "text/html", []string{"*/*"}, "\x89PNG", ""},
		{"anything listed, nothing accepted", payload, "", []string{"*/*"}, "\x89PNG", ""},
		{"nothing accepted", payload, "", png, "iVBORw==", ""},
		{"no list", payload, "image/png", nil, "iVBORw==", ""},
		{"as text", `{"isBase64Encoded":"true","body":"iVBORw=="}`, "image/png", png, "\x89PNG", ""},
		{"null", `{"isBase64Encoded":null,"body":"iVBORw=="}`, "image/png", png, "iVBORw==", ""},
		{"broken", `{"isBase64Encoded":true,"body":"%%%"}`, "image/png", png, "", gateway.CodeInternal},
		{"broken, not decoded", `{"isBase64Encoded":true,"body":"%%%"}`, "text/html", png, "%%%", ""},
		{"no body", `{"isBase64Encoded":true}`, "image/png", png, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := mapResult(&gateway.Route{Payload: gateway.PayloadV1, BinaryMediaTypes: tt.types}, tt.payload, tt.accept)
			assert.Equal(t, tt.code, gateway.ErrorCode(err))
			assert.Equal(t, tt.want, got.body)
		})
	}
}

// TestMap_HTTPV1 is format 1.0 in an HTTP API (section 4 of tests/conformance/rows.yml).
func TestMap_HTTPV1(t *testing.T) {
	route := &gateway.Route{Payload: gateway.PayloadV1, API: gateway.APITypeHTTP}
	got, err := mapResult(route, `{"statusCode":201,"multiValueHeaders":{"A":["1","2"]},"isBase64Encoded":true,"body":"aGk=","extra":{"statusCode":1}}`, "text/html")
	require.NoError(t, err)
	assert.Equal(t, mapped{201, []string{"A: 1", "A: 2", "Content-Type: text/plain; charset=utf-8"}, "hi"}, got)
	for _, payload := range []string{`{"body":"x"}`, `"text"`, `3`, `null`, `{}`, `{`, `{"statusCode":"x"}`, `{"statusCode":null}`} {
		_, err := mapResult(route, payload, "")
		assert.Equal(t, gateway.CodeFunction, gateway.ErrorCode(err), payload)
	}
}

// TestMap_V2 is section 4 of tests/conformance/rows.yml.
func TestMap_V2(t *testing.T) {
	text := "Content-Type: text/plain; charset=utf-8"
	tests := []struct {
		name, payload string
		want          mapped
	}{
		{"text", `"hello"`, mapped{200, jsonType, `hello`}},
		{"text with escapes", ` "a\n\"b\" \u00e9\ud83d\ude00" `, mapped{200, jsonType, "a\n\"b\" é😀"}},
		{"empty text", `""`, mapped{200, jsonType, ``}},
		{"JSON in a text", `"{\"statusCode\": 404}"`, mapped{200, jsonType, `{"statusCode": 404}`}},
		{"number", `3`, mapped{200, jsonType, `3`}},
		{"boolean", ` true`, mapped{200, jsonType, `true`}},
		{"list", `[1, {"statusCode":404}]`, mapped{200, jsonType, `[1,{"statusCode":404}]`}},
		{"spaces", " {\n\t\"a b\\\\\" : [ 1 , \"\\\" c\" ] } ", mapped{200, jsonType, `{"a b\\":[1,"\" c"]}`}},
		{"null", `null`, mapped{200, jsonType, `null`}},
		{"object without status", `{"message":"x","n":{"statusCode":[404]}}`, mapped{200, jsonType, `{"message":"x","n":{"statusCode":[404]}}`}},
		{"status", `{"a":[{"b":"}\""}],"statusCode":404,"body":"no","unknown":{"x":[1,2,"]"]},"more":-1.5e3}`, mapped{404, []string{text}, "no"}},
		{"cookies", `{"statusCode":200,"cookies":["a=1","b=2"],"headers":{"Content-Type":"text/css"}}`,
			mapped{200, []string{"Content-Type: text/css", "Set-Cookie: a=1", "Set-Cookie: b=2"}, ""}},
		{"base64 by the flag alone", `{"statusCode":200,"isBase64Encoded":true,"body":"aGk="}`, mapped{200, []string{text}, "hi"}},
		{"body an object", `{"statusCode":201,"body": { "a" : [ 1, "x y" ] } ,"headers":{"A":"b"}}`,
			mapped{201, []string{"A: b", text}, `{"a":[1,"x y"]}`}},
		{"body a list", `{"statusCode":200,"body":[ 1 ]}`, mapped{200, []string{text}, `[1]`}},
		{"multiValueHeaders is unknown", `{"statusCode":200,"multiValueHeaders":{"A":"b"}}`, mapped{200, []string{text}, ""}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := mapResult(&gateway.Route{Payload: gateway.PayloadV2}, tt.payload, "")
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
	for _, payload := range []string{``, `{`, `nope`, `{"statusCode":"x"}`, `{"statusCode":200,"cookies":["a\nb"]}`} {
		_, err := mapResult(&gateway.Route{Payload: gateway.PayloadV2}, payload, "")
		assert.Equal(t, gateway.CodeFunction, gateway.ErrorCode(err), payload)
	}
}

// FuzzMap checks that no result panics, that only JSON is accepted, and that a plain body comes out as
// encoding/json reads it.
func FuzzMap(f *testing.F) {
	for _, seed := range []string{`{"statusCode":200,"headers":{"A":"b"},"body":"\ud83d\ude00\u00e9"}`, `[1]`, `{"multiValueHeaders":{"A":["b",null]}}`,
		`{"statusCode":"201","cookies":["a"],"isBase64Encoded":true,"body":"aGk="}`, `{"statusCode":200,"Body":"b"}`, `{"x":{"y":[{}]},"statusCode":1e2}`} {
		f.Add([]byte(seed), "image/png")
	}
	f.Fuzz(func(t *testing.T, payload []byte, accept string) {
		valid := json.Valid(payload)
		body, checkable := plainBody(payload)
		for _, route := range []*gateway.Route{{Payload: gateway.PayloadV1}, {Payload: gateway.PayloadV2}, {Payload: gateway.PayloadV1, API: gateway.APITypeHTTP}} {
			version := route.Payload + " " + gateway.PayloadVersion(route.API)
			route.BinaryMediaTypes = []string{"image/*"}
			a, err := event.Map(route, append([]byte(nil), payload...), accept)
			if err != nil {
				continue
			}
			if !valid {
				t.Fatalf("%s: accepted what is not JSON: %q", version, payload)
			}
			if a.Status < 200 || a.Status > 599 {
				t.Fatalf("%s: status %d", version, a.Status)
			}
			for _, h := range a.Header {
				for _, v := range h.Values {
					if strings.ContainsAny(h.Name+v, "\r\n\x00") {
						t.Fatalf("%s: header %q: %q would split the answer", version, h.Name, v)
					}
				}
			}
			if route.Payload == gateway.PayloadV2 {
				checkWhole(t, payload, a.Body)
			}
			if route.Payload == gateway.PayloadV1 && checkable && !strings.Contains(body, "\ufffd") &&
				strings.ToValidUTF8(string(a.Body), "\ufffd") != strings.ToValidUTF8(body, "\ufffd") {
				t.Fatalf("body %q, want %q", a.Body, body)
			}
		}
	})
}

// checkWhole: what is no object with a statusCode is the body, a text as itself and all else as the same JSON.
func checkWhole(t *testing.T, payload, body []byte) {
	t.Helper()
	var members map[string]json.RawMessage
	if json.Unmarshal(payload, &members) == nil {
		if _, found := members["statusCode"]; found {
			return
		}
	}
	var text string
	if json.Unmarshal(payload, &text) == nil && strings.TrimSpace(string(payload)) != "null" {
		if !strings.Contains(text, "\ufffd") && string(body) != text {
			t.Fatalf("body %q, want the text %q", body, text)
		}
		return
	}
	var want bytes.Buffer
	if err := json.Compact(&want, payload); err != nil || want.String() != string(body) {
		t.Fatalf("body %q, want %q (%v)", body, want.String(), err)
	}
}

// plainBody is the text of a result's body as encoding/json reads it, if there is just one and it is not in base64.
// It does not decode into a struct: that would take "Body" for "body", which a result may not.
func plainBody(payload []byte) (body string, found bool) {
	var members map[string]json.RawMessage
	if json.Unmarshal(payload, &members) != nil || strings.Count(string(payload), "ody") != 1 {
		return "", false
	}
	var base64 bool
	if flag, ok := members["isBase64Encoded"]; ok && (json.Unmarshal(flag, &base64) != nil || base64) {
		return "", false
	}
	text, ok := members["body"]
	found = ok && text[0] == '"' && json.Unmarshal(text, &body) == nil
	return body, found
}

func BenchmarkMap_V1(b *testing.B) {
	route := &gateway.Route{Payload: gateway.PayloadV1}
	payload := []byte(`{"statusCode":200,"headers":{"Content-Type":"application/json"},"body":"{\"success\":true,\"message\":\"hello\",\"user\":\"onpremise-user\"}"}`)
	buf := make([]byte, len(payload))
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		copy(buf, payload) // Map overwrites what it reads
		if _, err := event.Map(route, buf, "*/*"); err != nil {
			b.Fatal(err)
		}
	}
}

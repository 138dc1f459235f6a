package response_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/response"
)

// FuzzReply checks that nothing that a client sends breaks out of an answer: a JSON body stays JSON, a header one line.
func FuzzReply(f *testing.F) {
	body := `{"message":$context.error.messageString,"path":"$context.path","agent":"$context.identity.userAgent$context.domainName","v":"$stageVariables.v"}`
	custom, err := response.New(gateway.Responses{Set: gateway.ResponsesAWSREST, Custom: map[string]gateway.Response{
		"DEFAULT_4XX": {Body: &body, Header: []gateway.ResponseHeader{{Name: "X-A", Value: "$context.path$context.identity.userAgent"}}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	plain, err := response.New(gateway.Responses{Set: gateway.ResponsesAWSREST})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("/a\"b\\", "agent\r\nX: y", "Bearer a\"b, c=d", "host\x00", "value")
	f.Add("/%0d%0a", "\xff\u2028", "Basic \xff", "</script>", "$context.path")
	f.Fuzz(func(t *testing.T, path, agent, authorization, host, variable string) {
		for _, set := range []*response.Set{custom, plain} {
			for _, code := range []gateway.Code{gateway.CodeNoRoute, gateway.CodeFunction, gateway.CodeThrottled} {
				for _, http := range []bool{false, true} {
					r := set.Reply(gateway.Errorf(code, "x"), http, &response.Values{Path: path, UserAgent: agent, Authorization: authorization,
						Host: host, StageVariables: []gateway.StageVariable{{Name: "v", Value: variable}}})
					if !json.Valid([]byte(r.Body)) {
						t.Fatalf("not JSON: %q", r.Body)
					}
					for _, h := range r.Header {
						if strings.ContainsAny(h.Value, "\r\n\x00") {
							t.Fatalf("header %q: %q", h.Name, h.Value)
						}
					}
				}
			}
		}
	})
}

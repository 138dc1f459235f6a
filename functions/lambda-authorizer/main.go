// Command lambda-authorizer is a sample Lambda authorizer. The token that a client sends says what it decides, as in AWS's
// examples:
//
//	allow          yes
//	allow-get      yes for GET, nothing about other methods (policies only)
//	deny           no
//	unauthorized   throws "Unauthorized": the client gets 401
//	broken         an answer of a wrong shape: the client gets 500
//	anything else  an error: the client gets 500
//
// It answers events of format 1.0 with a policy, and those of format 2.0 with {"isAuthorized": ...}, or with a policy too when the
// request's header x-authorizer-answer is "policy". The context tells the function behind the route what it decided from, and how many
// times this container was asked, which shows whether an answer came from the gateway's cache.
package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-lambda-go/lambda"
)

// request is what is needed of an authorizer's event, in any of its forms.
type request struct {
	Version   string            `json:"version"`
	Type      string            `json:"type"`
	Token     string            `json:"authorizationToken"`
	MethodARN string            `json:"methodArn"`
	RouteARN  string            `json:"routeArn"`
	Headers   map[string]string `json:"headers"`
}

// policyAnswer is an answer with a policy.
type policyAnswer struct {
	PrincipalID    string         `json:"principalId"`
	PolicyDocument policy         `json:"policyDocument"`
	Context        map[string]any `json:"context,omitempty"`
}

type policy struct {
	Version   string      `json:"Version"`
	Statement []statement `json:"Statement"`
}

type statement struct {
	Effect   string `json:"Effect"`
	Action   string `json:"Action"`
	Resource string `json:"Resource"`
}

// simpleAnswer is an answer to format 2.0.
type simpleAnswer struct {
	IsAuthorized bool           `json:"isAuthorized"`
	Context      map[string]any `json:"context,omitempty"`
}

var asked atomic.Int64

func main() { lambda.Start(authorize) }

func authorize(_ context.Context, r request) (any, error) {
	told := map[string]any{"tenant": "acme", "level": 3, "beta": true, "type": r.Type, "asked": asked.Add(1)}
	token := r.token()
	effect, resource := "Deny", "*"
	switch token {
	case "allow":
		effect = "Allow"
	case "allow-get":
		effect, resource = "Allow", api(r)+"/*/GET/*"
	case "deny":
	case "unauthorized":
		return nil, errors.New("Unauthorized")
	case "broken":
		return map[string]any{"isAuthorized": "perhaps"}, nil
	default:
		return nil, fmt.Errorf("a token of %d characters is not one that this sample knows", len(token))
	}
	if r.Version == "2.0" && r.header("x-authorizer-answer") != "policy" {
		return simpleAnswer{IsAuthorized: effect == "Allow", Context: told}, nil
	}
	return policyAnswer{
		PrincipalID:    "user-of-" + token,
		PolicyDocument: policy{Version: "2012-10-17", Statement: []statement{{Effect: effect, Action: "execute-api:Invoke", Resource: resource}}},
		Context:        told,
	}, nil
}

// token is the client's, without its scheme.
func (r request) token() string {
	token := r.Token
	if token == "" {
		token = r.header("authorization")
	}
	if scheme, rest, ok := strings.Cut(token, " "); ok && strings.EqualFold(scheme, "bearer") {
		return rest
	}
	return token
}

func (r request) header(name string) string {
	for key, value := range r.Headers {
		if strings.EqualFold(key, name) {
			return value
		}
	}
	return ""
}

// api is the part of an ARN that names the API: "arn:aws:execute-api:region:account:id".
func api(r request) string {
	arn := r.MethodARN
	if arn == "" {
		arn = r.RouteARN
	}
	id, _, _ := strings.Cut(arn, "/")
	return id
}

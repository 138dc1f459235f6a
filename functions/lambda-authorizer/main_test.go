package main

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAuthorize(t *testing.T) {
	const arn = "arn:aws:execute-api:us-east-1:123456789012:esbedgebox/prod/GET/users"
	for _, c := range []struct{ name, event, want, err string }{
		{"token", `{"type":"TOKEN","authorizationToken":"allow","methodArn":"` + arn + `"}`, `"Effect":"Allow","Action":"execute-api:Invoke","Resource":"*"`, ""},
		{"request 1.0", `{"type":"REQUEST","methodArn":"` + arn + `","headers":{"Authorization":"Bearer deny"}}`, `"Effect":"Deny"`, ""},
		{"GET only", `{"type":"REQUEST","methodArn":"` + arn + `","headers":{"Authorization":"allow-get"}}`, `"Resource":"arn:aws:execute-api:us-east-1:123456789012:esbedgebox/*/GET/*"`, ""},
		{"simple", `{"version":"2.0","type":"REQUEST","routeArn":"` + arn + `","headers":{"authorization":"Bearer allow"}}`, `{"isAuthorized":true,`, ""},
		{"simple, denied", `{"version":"2.0","routeArn":"` + arn + `","headers":{"authorization":"deny"}}`, `{"isAuthorized":false,`, ""},
		{"policy for 2.0", `{"version":"2.0","routeArn":"` + arn + `","headers":{"authorization":"allow","x-authorizer-answer":"policy"}}`, `"principalId":"user-of-allow"`, ""},
		{"unauthorized", `{"authorizationToken":"unauthorized"}`, "", "Unauthorized"},
		{"broken", `{"authorizationToken":"broken"}`, `{"isAuthorized":"perhaps"}`, ""},
		{"unknown", `{"authorizationToken":"letmein"}`, "", "a token of 7 characters is not one that this sample knows"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r request
			require.NoError(t, json.Unmarshal([]byte(c.event), &r))
			answer, err := authorize(context.Background(), r)
			if c.err != "" {
				require.EqualError(t, err, c.err)
				return
			}
			require.NoError(t, err)
			text, err := json.Marshal(answer)
			require.NoError(t, err)
			assert.Contains(t, string(text), c.want)
		})
	}
}

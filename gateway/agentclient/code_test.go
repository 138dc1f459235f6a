package agentclient

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
)

// A start whose code is not known is not tried, and says what is known.
func TestAddCode_UnknownVersion_IsNoEvidence(t *testing.T) {
	for name, c := range map[string]struct {
		source    gateway.CodeSource
		want      string
		reason    reason.Reason
		permanent bool
	}{
		"not looked at": {gateway.CodeSource{Location: "/srv/f"}, "function f: its code at /srv/f has not been looked at yet", "", false},
		"store away": {gateway.CodeSource{Location: "s3://b/k", Problem: reason.StoreAway},
			"function f: its code at s3://b/k cannot be looked at (store_away); `esb status` says why", reason.StoreAway, false},
		"missing": {gateway.CodeSource{Location: "s3://b/k", Problem: reason.CodeMissing},
			"function f: its code at s3://b/k cannot be looked at (code_missing); `esb status` says why", reason.CodeMissing, true},
	} {
		t.Run(name, func(t *testing.T) {
			known := gateway.CodeSource{Location: "/srv/known", Version: "sha256:1"}
			for _, code := range []*gateway.FunctionCode{{Source: c.source}, {Source: known, Layers: []gateway.CodeSource{known, c.source}}} {
				err := addCode(&agentv1.EnsureContainerRequest{FunctionName: "f"}, code)
				var e *gateway.Error
				require.ErrorAs(t, err, &e)
				assert.Equal(t, c.want, e.Message)
				assert.Equal(t, gateway.CodeUnavailable, e.Code)
				assert.Equal(t, c.reason, e.Reason)
				assert.Equal(t, c.permanent, e.Permanent)
				assert.True(t, e.NotTried)
			}
		})
	}
}

package reason_test

import (
	"testing"

	"github.com/edge-serverless-box/esb/api/reason"
)

func TestReason_EachHasATextAndAnUnknownOneHasNone(t *testing.T) {
	permanent := 0
	for _, r := range []reason.Reason{
		reason.ImageMissing, reason.ImageInvalid, reason.RuntimeInvalid, reason.CodeMissing, reason.CodeInvalid, reason.Configuration,
		reason.AgentAway, reason.RegistryAway, reason.StoreAway, reason.CodeChanging, reason.Exhausted, reason.Slow,
	} {
		if r.Text() == "" {
			t.Errorf("%s has no text", r)
		}
		if r.Permanent() {
			permanent++
		}
	}
	if permanent != 6 {
		t.Errorf("%d reasons stay until somebody changes something, want 6", permanent)
	}
	if r := reason.Reason("?"); r.Text() != "" || r.Permanent() {
		t.Error("a word that is not known has no text, and passes")
	}
}

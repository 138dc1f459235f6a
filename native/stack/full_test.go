package stack

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLacksSpace_OnlyWhenNothingElseIsMissing(t *testing.T) {
	for name, tt := range map[string]struct{ body, want string }{
		"full":               {`{"status":"unavailable","dependencies":{"agent":{"status":"ok"},"async":{"status":"full","error":"the disk of /x has only 0 MB left"}}}`, "the disk of /x has only 0 MB left"},
		"full, and no agent": {`{"status":"unavailable","dependencies":{"agent":{"status":"down","error":"x"},"async":{"status":"full","error":"y"}}}`, ""},
		"no agent":           {`{"status":"unavailable","dependencies":{"agent":{"status":"down","error":"x"}}}`, ""},
		"for strangers":      {`{"status":"unavailable"}`, ""},
		"no JSON":            {"<html>", ""},
	} {
		t.Run(name, func(t *testing.T) {
			full := lacksSpace([]byte(tt.body))
			if tt.want == "" {
				assert.Nil(t, full)
				return
			}
			require.NotNil(t, full)
			assert.Equal(t, tt.want, full.Error())
		})
	}
}

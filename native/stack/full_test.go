package stack

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLacksOf_OnlyWhenNothingElseIsMissing(t *testing.T) {
	for name, tt := range map[string]struct{ body, want string }{
		"full":               {`{"status":"unavailable","dependencies":{"agent":{"status":"ok"},"async":{"status":"full","error":"the disk of /x has only 0 MB left"}}}`, "the disk of /x has only 0 MB left"},
		"full, and no agent": {`{"status":"unavailable","dependencies":{"agent":{"status":"down","error":"x"},"async":{"status":"full","error":"y"}}}`, ""},
		"no agent":           {`{"status":"unavailable","dependencies":{"agent":{"status":"down","error":"x"}}}`, ""},
		"no tables":          {`{"dependencies":{"dynamodb":{"status":"down","error":"x"},"resources":{"status":"down","error":"y"},"s3":{"status":"ok"}}}`, "dynamodb: x; resources: y"},
		"no tables for code": {`{"dependencies":{"functions":{"status":"down","error":"z"},"s3":{"status":"down","error":"x"}}}`, "functions: z; s3: x"},
		"for strangers":      {`{"status":"unavailable"}`, ""},
		"no JSON":            {"<html>", ""},
	} {
		t.Run(name, func(t *testing.T) {
			lacks := lacksOf([]byte(tt.body))
			if tt.want == "" {
				assert.Nil(t, lacks)
				return
			}
			require.NotNil(t, lacks)
			assert.Equal(t, tt.want, lacks.Error())
			assert.Equal(t, strings.HasPrefix(name, "no table"), lacks.stores)
		})
	}
}

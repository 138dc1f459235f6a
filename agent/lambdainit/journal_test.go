package lambdainit

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestJournal_LinesThatMayWait_AreWrittenByFlushAndByClose(t *testing.T) {
	var out strings.Builder
	j := openJournal(&out, "f", "")
	j.platform(typeStart, "INFO", "first", nil)
	j.flush(time.Minute)
	assert.Contains(t, out.String(), `"message":"first"`)
	j.platform(typeEnd, "INFO", "second", nil)
	j.close(time.Minute)
	assert.Contains(t, out.String(), `"message":"second"`)
}

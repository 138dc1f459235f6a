package console

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestStep_TwoAtOnce_SayWhichHasEnded(t *testing.T) {
	var out bytes.Buffer
	c := New(&out)
	boom := errors.New("boom")
	assert.NoError(t, c.Step("alone", func() error { return nil }))
	assert.ErrorIs(t, c.Step("outer", func() error {
		assert.NoError(t, c.Step("inner", func() error { return nil }))
		return boom
	}), boom)
	assert.NoError(t, c.Step("alone again", func() error { return nil }))
	assert.Regexp(t, `^==> alone\n    done in \S+\n`+
		`==> outer\n==> inner\n    done in \S+: inner\n    failed after \S+: outer\n`+
		`==> alone again\n    done in \S+\n$`, out.String())
}

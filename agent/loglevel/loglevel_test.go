package loglevel

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestOf_LinesOfLoggingLibraries(t *testing.T) {
	for text, want := range map[string]string{
		`{"level":"warning","m":1}`: Warn, `{"level":50}`: Error, `{"level":"debug"`: "", `{"m":"level"}`: "", `{"level":"loud"}`: "",
		"[ERROR]\t2026-01-02T03:04:05.006Z\tr1\tno": Error, "[CRITICAL] x": Fatal, "[1, 2]": "", "[ERROR": "",
		"2026-01-02T03:04:05.006Z\tr1\tWARN\ta\tb\nc": Warn, "2026-01-02T03:04:05.006Z\tundefined\tTRACE\t": Trace,
		"a\tb\tERROR": "", "a\tb": "", "": "", "plain": "",
	} {
		assert.Equal(t, want, Of(text), text)
	}
	assert.Equal(t, []string{Info, Debug, Debug, Info, Warn, Error, Error},
		[]string{Field(""), Field(Trace), Field(Debug), Field(Info), Field(Warn), Field(Error), Field(Fatal)})
	for _, level := range []string{Trace, Debug, Info, Warn, Error, Fatal} {
		assert.Equal(t, level, OfRank(Rank(level)))
	}
	assert.Empty(t, OfRank(7))
}

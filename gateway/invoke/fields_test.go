package invoke

import (
	"bufio"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const usual = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Amzn-Requestid: 8c5bd9e2-32a5-4d1e-9d0b-0b0f1e4c5a77\r\n" +
	"X-Amzn-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1\r\nContent-Length: 16\r\n\r\n{\"success\":true}"

func TestReadReply_Usual_AllocatesLittle(t *testing.T) {
	text := strings.NewReader(usual)
	in := bufio.NewReaderSize(text, readBuffer)
	assert.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		text.Reset(usual)
		in.Reset(text)
		if rep, keep, err := readReply(in, false, nil); err != nil || !keep || rep.header.contentType != "application/json" || len(rep.body) != 16 {
			t.Error(rep, keep, err)
		}
	}), 3.0, "the body, and two values")
}

func TestFields_FirstValueOfEachCounts(t *testing.T) {
	var f fields
	require.NoError(t, f.read(bufio.NewReader(strings.NewReader("content-TYPE: \t a/b \r\nX-Other: 1\nContent-Type: c/d\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"))))
	assert.Equal(t, "a/b", f.contentType)
	assert.Equal(t, 2, f.lengths)
	for _, head := range []string{"no colon\r\n\r\n", ": no name\r\n\r\n", "a b: c\r\n\r\n", " folded: 1\r\n\r\n", "A: b\rc\r\n\r\n", "A: b\x00\r\n\r\n", "A: b\r\n", strings.Repeat("A: "+strings.Repeat("b", 8000)+"\r\n", 9) + "\r\n"} {
		assert.Error(t, new(fields).read(bufio.NewReaderSize(strings.NewReader(head), readBuffer)), "%.40q", head)
	}
}

package lambdainit

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// frame is what AWS's clients write for message: kind is the last byte of the type.
func frame(kind byte, message string) string {
	b := binary.BigEndian.AppendUint32([]byte{0xa5, 0x5a, 0x00, kind}, uint32(len(message)))
	if kind != frameOldest {
		b = binary.BigEndian.AppendUint64(b, 1_700_000_000_000_000)
	}
	return string(b) + message
}

type logged struct{ Level, Message string }

// mustPump returns the events that a pump makes of text, which comes in pieces of size bytes, and with a drain behind it.
func mustPump(t *testing.T, text string, size int) []logged {
	t.Helper()
	var out bytes.Buffer
	j := openJournal(&out, "f", "", 0, nil)
	p, w, err := openPump("stdout", "", j)
	require.NoError(t, err)
	p.takeFrames()
	for len(text) > 0 {
		n, err := w.WriteString(text[:min(size, len(text))])
		require.NoError(t, err)
		text = text[n:]
		if size < 100 {
			// Until it is read: each piece comes alone.
			require.Eventually(t, func() bool {
				left, err := unix.IoctlGetInt(int(w.Fd()), unix.TIOCINQ)
				return err == nil && left == 0
			}, time.Minute, 10*time.Microsecond)
		}
	}
	p.drain(time.Minute)
	require.NoError(t, w.Close())
	p.close(time.Minute)
	j.close(time.Minute)
	var events []logged
	for line := range strings.Lines(out.String()) {
		var e logged
		require.NoError(t, json.Unmarshal([]byte(line), &e))
		events = append(events, e)
	}
	return events
}

func TestPump_Frames_AreOneEventEach_InOrderWithWhatIsPrinted(t *testing.T) {
	text := "printed\n" +
		frame(0x17, "[ERROR] E: no\nTraceback\n  line 6") +
		"¥ half" + frame(0x03, "2026-01-02T03:04:05.006Z\tr1\tWARN\ta\nb\n") +
		" a line\r\n" +
		frame(0x0e, `{"level":"INFO"}`) + frame(0x1a, "{}") + frame(0x07, "finest") + frame(0x03, "") +
		frame(frameOldest, "oldest\n\n") +
		"\xa5\x5a\x00\x04 no frame\n\xa5\x5a\x00\x02\xff\xff\xff\xff----------- nor this\n" +
		"[ERROR] last ¥"
	want := []logged{
		{"INFO", "printed"}, {"ERROR", "[ERROR] E: no\nTraceback\n  line 6"}, {"INFO", "¥ half"},
		{"WARN", "2026-01-02T03:04:05.006Z\tr1\tWARN\ta\nb"}, {"INFO", " a line"}, {"INFO", `{"level":"INFO"}`}, {"ERROR", "{}"},
		{"DEBUG", "finest"}, {"INFO", "oldest\n"}, {"INFO", "\ufffdZ\x00\x04 no frame"}, {"INFO", "\ufffdZ\x00\x02\ufffd\ufffd\ufffd\ufffd----------- nor this"},
		{"ERROR", "[ERROR] last ¥"},
	}
	for _, size := range []int{1, 3, 17, 100_000} {
		assert.Equal(t, want, mustPump(t, text, size), "in pieces of %d bytes", size)
	}
}

func TestPump_LongEvents_AllPiecesHaveTheLevel(t *testing.T) {
	long := strings.Repeat("x", 3*maxLine)
	for name, text := range map[string]string{"frame": frame(0x17, long+"\n"), "line": "[ERROR] " + long + "\n"} {
		t.Run(name, func(t *testing.T) {
			events := mustPump(t, text+"after\n", 50_000)
			var all strings.Builder
			for _, e := range events[:len(events)-1] {
				assert.Equal(t, "ERROR", e.Level)
				all.WriteString(e.Message)
			}
			assert.GreaterOrEqual(t, len(events), 4)
			assert.Equal(t, long, strings.TrimPrefix(all.String(), "[ERROR] "))
			assert.Equal(t, logged{"INFO", "after"}, events[len(events)-1])
		})
	}
}

func TestPump_FrameThatNeverEnds_IsLoggedAtTheEnd(t *testing.T) {
	assert.Equal(t, []logged{{"ERROR", "cut"}}, mustPump(t, frame(0x17, "cut off")[:19], 100))
}

func FuzzPump(f *testing.F) {
	f.Add(frame(0x17, "a\nb")+"c\n", 3)
	f.Add("\xa5\x5a\x00\x01\x00\x00\x00\x01", 1)
	f.Fuzz(func(t *testing.T, text string, size int) {
		if size < 1 || size > 1<<16 {
			return
		}
		// A small piece is waited for: many of them take longer than an input may.
		_ = mustPump(t, text, max(size, len(text)/100)) // ends, and makes JSON
	})
}

package lambdainit

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"
	"syscall"

	"github.com/edge-serverless-box/esb/agent/loglevel"
)

// Runtimes write log messages of several lines in frames, so that each is one event, to the descriptor that
// _LAMBDA_TELEMETRY_LOG_FD names: type, length and time (microseconds since 1970), big-endian, then the message
// (aws-lambda-python-runtime-interface-client, FramedTelemetryLogSink; aws-lambda-nodejs-runtime-interface-client,
// TelemetryLogger; the oldest clients write frames without a time).
//
// Here the descriptor is the pipe of standard output once more: what a function prints, and what it logs, then stay in order.
// A frame is known by its type, whose first byte can begin no character of UTF-8.
const (
	envTelemetryFD = "_LAMBDA_TELEMETRY_LOG_FD"
	frameHead      = 16
	// frameHeadOldest is the head of a frame without a time, and frameOldest its type.
	frameHeadOldest, frameOldest = 8, 1
	// frameLimit is the longest message that is believed; more is other binary data by its looks.
	frameLimit = 1 << 26
)

// frameMark begins the type of every frame: the last byte has the format (1 to 3) and the level.
var frameMark = []byte{0xa5, 0x5a, 0x00}

// frameIn returns where the first frame of text begins, at from or later and before end (the end of text when negative), -1 for
// nowhere. Of a head that is not complete nobody can say more than that it may be one.
func frameIn(text []byte, from, end int) int {
	if end < 0 {
		end = len(text)
	}
	for from < end {
		i := bytes.IndexByte(text[from:end], frameMark[0])
		if i < 0 {
			return -1
		}
		from += i
		if mark := text[from:min(from+len(frameMark), len(text))]; bytes.HasPrefix(frameMark, mark) {
			if _, _, length, ok := readFrame(text[from:]); !ok || length >= 0 {
				return from
			}
		}
		from++
	}
	return -1
}

// readFrame reads the head of a frame that text begins with: its size, and level and length of the message. ok is false when it
// is not complete; length is negative when it is none.
func readFrame(text []byte) (size int, level string, length int, ok bool) {
	if len(text) < 4 {
		return 0, "", 0, false
	}
	kind := text[3]
	size = frameHead
	switch {
	case kind == frameOldest:
		size = frameHeadOldest
	case kind&3 < 2 || kind>>2 > 6:
		return 0, "", -1, true
	}
	if len(text) < size {
		return 0, "", 0, false
	}
	n := binary.BigEndian.Uint32(text[4:])
	if n > frameLimit {
		return 0, "", -1, true
	}
	return size, loglevel.OfRank(int(kind >> 2)), int(n), true
}

// openAgain opens the pipe of which fd is the write end once more: programs make their standard output non-blocking, and writers
// of frames expect that all is taken.
func openAgain(fd uintptr) (int, error) {
	again, err := syscall.Open("/proc/self/fd/"+strconv.Itoa(int(fd)), syscall.O_WRONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open the function's standard output for frames: %w", err)
	}
	return again, nil
}

// takeFrames makes the pump look for frames.
func (p *pump) takeFrames() {
	p.lock <- struct{}{}
	p.frames = true
	<-p.lock
}

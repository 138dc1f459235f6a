package lambdainit

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/agent/lambdainit/http1"
)

// Error types of AWS that lambda-init itself answers with.
const (
	errExit             = "Runtime.ExitError"
	errEntrypoint       = "Runtime.InvalidEntrypoint"
	errInit             = "Runtime.InitError"
	errTimeout          = "Sandbox.Timedout"
	errResponseTooLarge = "Function.ResponseSizeTooLarge"
	errUnhandled        = "Runtime.Unknown"
	// Of a stream: the runtime broke off (RIE: fatalerror), and esb's own for a caller that left.
	errTruncated  = "Runtime.TruncatedResponse"
	errCallerLeft = "Sandbox.CallerLeft"
)

// Phases of INIT_REPORT (AWS: Lambda developer guide, "Understanding the Lambda execution environment lifecycle").
const (
	phaseInit   = "init"
	phaseInvoke = "invoke"
)

// Reasons for which a function process is gone, as X-Esb-Sandbox-Reset tells them.
const (
	resetTimeout = "timeout"
	resetExit    = "exit"
	resetOOM     = "oom"
	resetInit    = "init"
	resetCaller  = "caller"
)

// invocation is one call of the function on its way from the gateway to the runtime.
type invocation struct {
	id            string
	trace         string // whole X-Amzn-Trace-Id header
	clientContext string // decoded
	cognito       string
	qualifier     string // of the function, as its caller named it
	payload       []byte
	arrived       time.Time
	// budget is how long the function may take, from the hand-over on.
	budget time.Duration
	// deadline is set when an init that is repeated counts against the budget; else it is hand-over + budget.
	deadline time.Time
	// handed is the hand-over.
	handed time.Time
	// due is when the invocation that the runtime has taken must have ended.
	due      time.Time
	wantTail bool
	// wantStream says that the caller takes the answer piece by piece; to is where.
	wantStream bool
	to         *http1.Exchange
	// stream takes the one answer that streams; its end comes from done all the same.
	stream chan *stream
	// begun says that the START line is written.
	begun bool
	// done takes the one answer that the Runtime API accepts for this invocation.
	done chan answer
	// delivered says that nobody reads payload any more.
	delivered atomic.Bool
	// overtaken, when there is one, is closed when the runtime, which has answered, asks for the next invocation.
	overtaken chan struct{}
}

// answer is what the function's runtime posted.
type answer struct {
	body        []byte
	buffer      *[]byte // where body lives, for buffers
	contentType string
	failed      bool
	errorType   string
	// broken says that a stream did not come to its end, and left that its caller did not wait for it.
	broken, left bool
}

// outcome is an answer and what there is to report about how it came about.
type outcome struct {
	answer
	// started is the hand-over; zero when the invocation did not get that far.
	started time.Time
	ended   time.Time
	// init is the length of the init phase when this is the first invocation of its process.
	init time.Duration
	// waited says that this invocation caused or waited for the init.
	waited bool
	// reset is why the process is gone, else empty.
	reset string
	// spoilt says that the container must not serve any more.
	spoilt bool
	// streamed says that the head of the answer, and a part of its body, are sent.
	streamed bool
	// fault is the line that explains a failure to the function's owner, without the request id.
	fault string
}

// took is how long the function had the invocation; 0 when it did not get that far.
func (o *outcome) took() time.Duration {
	if o.started.IsZero() {
		return 0
	}
	return o.ended.Sub(o.started)
}

// failure makes the outcome of an invocation that the function did not answer itself.
func failure(inv *invocation, errorType, message string) outcome {
	text := "RequestId: " + inv.id + " Error: " + message
	return outcome{
		answer: answer{
			body:        errorJSON(errorType, text),
			contentType: "application/json",
			failed:      true,
			errorType:   errorType,
		},
		ended: time.Now(),
		fault: text,
	}
}

// errorJSON is the body of an error as AWS writes it.
func errorJSON(errorType, message string) []byte {
	b := appendString([]byte(`{"errorType":`), errorType)
	b = appendString(append(b, `,"errorMessage":`...), message)
	return append(b, '}')
}

// exitMessage words the end of a process as AWS does.
func exitMessage(status syscall.WaitStatus) string {
	switch {
	case status.Signaled():
		return "Runtime exited with error: signal: " + status.Signal().String()
	case status.ExitStatus() != 0:
		return "Runtime exited with error: exit status " + itoa(status.ExitStatus())
	}
	return "Runtime exited without providing a reason"
}

func timeoutMessage(d time.Duration) string {
	return fmt.Sprintf("Task timed out after %.2f seconds", d.Seconds())
}

// report makes the REPORT line (AWS's wording, tabs included) and its figures as JSON members.
func (o *outcome) report(inv *invocation, memoryMB int, peak uint64) (string, func([]byte) []byte) {
	ms := float64(o.took()) / float64(time.Millisecond)
	billed := int(math.Ceil(ms))
	used := int((peak + 1<<20 - 1) >> 20)

	b := append(make([]byte, 0, 256), "REPORT RequestId: "...)
	b = append(b, inv.id...)
	b = strconv.AppendFloat(append(b, "\tDuration: "...), ms, 'f', 2, 64)
	b = strconv.AppendInt(append(b, " ms\tBilled Duration: "...), int64(billed), 10)
	b = strconv.AppendInt(append(b, " ms\tMemory Size: "...), int64(memoryMB), 10)
	b = append(b, " MB\t"...)
	if peak > 0 {
		b = strconv.AppendInt(append(b, "Max Memory Used: "...), int64(used), 10)
		b = append(b, " MB\t"...)
	}
	initMS := float64(o.init) / float64(time.Millisecond)
	if o.init > 0 {
		b = strconv.AppendFloat(append(b, "Init Duration: "...), initMS, 'f', 2, 64)
		b = append(b, " ms\t"...)
	}
	switch o.errorType {
	case "":
	case errTimeout:
		b = append(b, "Status: timeout"...)
	default:
		b = append(append(b, "Status: error\tError Type: "...), o.errorType...)
	}
	return string(b), func(b []byte) []byte {
		b = strconv.AppendFloat(append(b, `,"duration_ms":`...), ms, 'f', 3, 64)
		b = strconv.AppendInt(append(b, `,"billed_duration_ms":`...), int64(billed), 10)
		b = strconv.AppendInt(append(b, `,"memory_size_mb":`...), int64(memoryMB), 10)
		if peak > 0 {
			b = strconv.AppendInt(append(b, `,"max_memory_used_mb":`...), int64(used), 10)
		}
		if o.init > 0 {
			b = strconv.AppendFloat(append(b, `,"init_duration_ms":`...), initMS, 'f', 3, 64)
		}
		if o.errorType != "" {
			b = appendString(append(b, `,"error_type":`...), o.errorType)
		}
		return b
	}
}

// initReport words the end of an init phase that failed (AWS: the INIT_REPORT line).
// phase is where it was done: phaseInit, or phaseInvoke for one that is repeated within an invocation.
func initReport(after time.Duration, phase, status, errorType string) string {
	text := fmt.Sprintf("Init Duration: %.2f ms\tPhase: %s\tStatus: %s", float64(after)/float64(time.Millisecond), phase, status)
	if errorType != "" {
		text += "\tError Type: " + errorType
	}
	return text
}

// newRequestID makes a random (version 4) UUID.
func newRequestID() string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // never fails (crypto/rand)
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	b := make([]byte, 36)
	hex.Encode(b, u[:4])
	hex.Encode(b[9:], u[4:6])
	hex.Encode(b[14:], u[6:8])
	hex.Encode(b[19:], u[8:10])
	hex.Encode(b[24:], u[10:])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b)
}

// validRequestID accepts what can stand in a path of the Runtime API and in a log line.
func validRequestID(id string) bool {
	if id == "" || len(id) > 128 {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-', c == '_', c == '.', c == '=':
		default:
			return false
		}
	}
	return true
}

func itoa(n int) string { return strconv.Itoa(n) }

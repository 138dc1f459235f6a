package conformance

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	"github.com/edge-serverless-box/esb/tests/stack"
)

// logChecks are the cases of section 6 that look at what functions log and how AWS's runtime clients answer, by name; their
// functions are in testdata/logging.
var logChecks = map[string]func(*examination){
	"log-python": func(x *examination) {
		// Recorded: one event, lines joined by \n, no-break spaces for indentation alone.
		trace := "[ERROR] ValueError: as\nasked\nTraceback (most recent call last):\n" +
			"\u00a0\u00a0File \"/var/task/app.py\", line 12, in handler\n\u00a0\u00a0\u00a0\u00a0broken()\n" +
			"\u00a0\u00a0File \"/var/task/app.py\", line 7, in broken\n\u00a0\u00a0\u00a0\u00a0def broken(): raise ValueError(\"as\\nasked\")  # in line 7"
		answer, tail := x.tail("log-python", `"raise"`)
		x.check(strings.Contains(tail, "\n"+trace+"\nEND "), "the log tail is %q", tail)
		x.matches("the answer", string(answer.Body), `\{"errorMessage": "as\\nasked", "errorType": "ValueError", "requestId": "[0-9a-f-]{36}", "stackTrace": \[`+
			`"  File \\"/var/task/app.py\\", line 12, in handler\\n    broken\(\)\\n", "  File \\"/var/task/app.py\\", line 7, in broken\\n    .*\\n"\]\}`)
		x.eventually("the traceback is found by its words", func() bool {
			lines, err := x.box.Query(x.ctx, `function:=log-python level:=ERROR "line 7" "raise ValueError"`)
			x.fail(err)
			return len(lines) == 1 && lines[0].Message == trace && lines[0].RequestID == answer.Header.Get("X-Amzn-Requestid")
		})
		answer, _ = x.tail("log-python", `"half"`)
		x.matches("the answer", string(answer.Body), `\{"errorMessage": "half \\ud800", "errorType": "ValueError", .*`)
		_, tail = x.tail("log-python", `1`)
		x.matches("the log tail", tail, `START .*\nprinted\n\[WARNING\]\tT\tI\ttwo\nlines\n\[ERROR\]\tT\tI\tcaught\nTraceback \(most recent call last\):\n`+
			`  File "/var/task/app.py", line 21, in handler\n    1 / 0\n(.*\^.*\n)?ZeroDivisionError: division by zero\nEND .*\nREPORT .*\n`)
		x.eventually("a message of several lines is one event", func() bool {
			lines, err := x.box.Query(x.ctx, `function:=log-python level:=WARN`)
			x.fail(err)
			return len(lines) == 1 && strings.HasSuffix(lines[0].Message, "\ttwo\nlines")
		})
	},
	"python-results": func(x *examination) {
		answer, _ := x.tail("log-python", `"results"`)
		x.check(string(answer.Body) == `[0.1234567890123456789012345, 100.10, "hi \ud83d \u00fc", NaN]`, "python3.11 answers %s", answer.Body)
	},
	"log-node": func(x *examination) {
		answer, tail := x.tail("log-node", `1`)
		x.matches("the log tail", tail, `(T\tundefined\tINFO\tat init\n)?START .*\nT\tI\tINFO\ttwo\nlines \{ n: 1 \}\nT\tI\tDEBUG\tfine\nT\tI\tERROR\tTypeError: logged\n(    at .*\n)+raw\nEND .*\nREPORT .*\n`)
		x.eventually("errors are found by their level, one record each", func() bool {
			lines, err := x.box.Query(x.ctx, fmt.Sprintf(`request_id:=%q level:=ERROR job:=lambda`, answer.Header.Get("X-Amzn-Requestid")))
			x.fail(err)
			return len(lines) == 1 && strings.Contains(lines[0].Message, "\tERROR\tTypeError: logged\n    at ")
		})
		x.logged("log-node", "\tundefined\tINFO\tat init")
		answer, tail = x.tail("log-node", `"raise"`)
		x.matches("the log tail", tail, `START .*\nT\tI\tERROR\tInvoke Error \t\{"errorType":"RangeError","errorMessage":"as asked","stack":\["RangeError: as asked",.*\]\}\nEND .*\nREPORT .*\n`)
		x.matches("the answer", string(answer.Body), `\{"errorType":"RangeError","errorMessage":"as asked","trace":\["RangeError: as asked",.*\]\}`)
		answer, _ = x.tail("log-node", `"big integer"`)
		x.matches("the answer", string(answer.Body), `\{"errorType":"Runtime.JSONStringifyError","errorMessage":"Unable to stringify response body",.*`)
	},
	"log-json": func(x *examination) {
		_, tail := x.tail("log-json-python", `1`)
		x.matches("the log tail of Python", tail, `\{"time":"T","type":"platform.start","record":\{"requestId":"I","version":"\$LATEST".*\}\}\nprinted\n`+
			`\{"timestamp": "T", "level": "WARNING", "message": "two\\nlines", "logger": "root", "requestId": "I"\}\n`+
			`\{"timestamp": "T", "level": "INFO", "message": "too fine for text", "logger": "root", "requestId": "I"\}\n`+
			`\{"timestamp": "T", "level": "ERROR", "message": "caught", "logger": "root", "stackTrace": \[".*"\], "errorType": "ZeroDivisionError", "errorMessage": "division by zero", "requestId": "I", "location": "/var/task/app.py:handler:\d+"\}\n`+
			`\{"time":"T","type":"platform.report","record":\{"requestId":"I","status":"success","metrics":\{"durationMs":.*"billedDurationMs":\d+,"memorySizeMB":1769,"maxMemoryUsedMB":\d+.*\}\}\n`)
		_, tail = x.tail("log-json-node", `1`)
		x.matches("the log tail of Node.js", tail, `\{"timestamp":"T","level":"ERROR","requestId":"I","message":\{"errorType":"TypeError","errorMessage":"logged","stackTrace":\["TypeError: logged",.*\]\}\}\nraw\n`)
		answer, tail := x.tail("log-json-node", `"raise"`)
		x.matches("the log tail of an error", tail, `\{"timestamp":"T","level":"ERROR","requestId":"I","message":\{"errorType":"RangeError",.*\}\}\n`+
			`\{"time":"T","type":"platform.runtimeDone",.*"status":"error","errorType":"RangeError".*\n\{"time":"T","type":"platform.report",.*"status":"error".*\n`)
		x.eventually("errors are found by their level", func() bool {
			lines, err := x.box.Query(x.ctx, fmt.Sprintf(`request_id:=%q level:=ERROR type:=function`, answer.Header.Get("X-Amzn-Requestid")))
			x.fail(err)
			return len(lines) == 1
		})
	},
	"node-callbacks": func(x *examination) {
		answer, _ := x.tail("log-callback", `1`)
		x.matches("nodejs24.x", string(answer.Body), `\{"errorType":"Runtime.CallbackHandlerDeprecated","errorMessage":"ERROR: AWS Lambda has removed support for callback-based function handlers starting with Node.js 24\. .*`)
		answer, _ = x.tail("log-callback-22", `1`)
		x.check(string(answer.Body) == `"called back"`, "nodejs22.x answers %s", answer.Body)
	},
}

var (
	times      = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z?`)
	requestIDs = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
)

// matches compares text with a pattern, after times have become T and request ids I.
func (x *examination) matches(what, text, pattern string) {
	plain := text
	if strings.Contains(pattern, "T") {
		plain = times.ReplaceAllString(plain, "T")
	}
	if !strings.Contains(pattern, "[0-9a-f-]{36}") {
		plain = requestIDs.ReplaceAllString(plain, "I")
	}
	x.check(regexp.MustCompile("^(?:"+pattern+")$").MatchString(plain), "%s is %q, want %s", what, plain, pattern)
}

// tail invokes a function through the Invoke API and returns its answer and the end of its log.
func (x *examination) tail(function, payload string) (stack.Answer, string) {
	answer, err := x.box.sign(x.ctx, function, "RequestResponse", payload, "X-Amz-Log-Type", "Tail")
	x.fail(err)
	x.check(err != nil || answer.Status == http.StatusOK, "%s answers %d %.300s", function, answer.Status, answer.Body)
	text, err := base64.StdEncoding.DecodeString(answer.Header.Get("X-Amz-Log-Result"))
	x.fail(err)
	return answer, string(text)
}

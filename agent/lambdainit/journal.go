package lambdainit

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/edge-serverless-box/esb/agent/loglevel"
)

const (
	// journalRoom is how many bytes of log lines may wait for the reader of standard output. A function that
	// writes faster than that waits in its own write call.
	journalRoom = 256 << 10
	// journalReserve is what platform lines may take beyond journalRoom: they never wait.
	journalReserve = 64 << 10
	// flushDelay is how long the lines of an invocation that went well may wait for those of the next: each write wakes this process
	// once more, and the reader of the output, and takes the CPU that the next invocation needs.
	flushDelay = 50 * time.Millisecond
	// stuckLimit is how long a function waits for a log output that takes nothing. After it, its lines are lost, and counted, until
	// the output takes some again.
	stuckLimit = time.Second
	// tailBytes is the length of a log tail (AWS: the last 4 KB).
	tailBytes = 4 << 10
)

// Line types.
const (
	typeFunction = "function"
	typeStart    = "platform.start"
	typeEnd      = "platform.end"
	typeReport   = "platform.report"
	typeFault    = "platform.fault"
	// typeExtensionLine is what an extension writes, typeExtension what AWS says about one.
	typeExtensionLine = "extension"
	typeExtension     = "platform.extension"
	// typeInit are lines of the init phase, which there are in JSON alone.
	typeInit = "platform.init"
)

// scope is the invocation that log lines belong to; the zero scope is none.
type scope struct {
	requestID string
	traceID   string
}

// journal writes JSON log lines, one object a line. Lines are queued and written by one goroutine, so that a
// reader of standard output that is slow or gone delays the function's output but never an invocation.
type journal struct {
	out  io.Writer
	pace *pace
	// onLost is told how many lines were lost when the output takes lines again; it may be nil.
	onLost func(lines int)
	tags   string // members that every line has
	// json says that what lambda-init itself has to say is JSON. least is the rank of the least level that a function's JSON lines
	// may have, leastSystem that of lambda-init's own (AWS: LoggingConfig; 0: all). Set before the first line.
	json               bool
	least, leastSystem int
	wake               chan struct{}
	// hurry ends the wait of flushDelay.
	hurry chan struct{}
	done  chan struct{}

	// mu guards the fields below.
	mu    sync.Mutex
	queue []byte
	// stuck: the output has taken nothing for stuckLimit. pacing: it could, but pace holds it back.
	stuck, pacing bool
	spare         []byte
	room          chan struct{} // closed when the queue has been taken
	settled       chan struct{} // closed when every line has been written
	writing       bool
	urgent        bool // the queue has a line that must not wait
	closed        bool
	lost          int
	scope         scope
	// tap is told what function and extensions write; nil when nobody wants to know.
	tap    *telemetry
	tailOn bool
	tail   []byte
}

func openJournal(out io.Writer, function, container string, rate int, onLost func(int)) *journal {
	tags := append([]byte(`,"function":`), appendString(nil, function)...)
	if container != "" {
		tags = append(append(tags, `,"container_name":`...), appendString(nil, container)...)
	}
	j := &journal{
		out:     out,
		pace:    newPace(rate),
		onLost:  onLost,
		tags:    string(tags),
		wake:    make(chan struct{}, 1),
		hurry:   make(chan struct{}, 1),
		done:    make(chan struct{}),
		room:    make(chan struct{}),
		settled: make(chan struct{}),
	}
	go j.write()
	return j
}

// close writes what is queued and ends the writer. When standard output takes nothing for limit, the rest is lost.
func (j *journal) close(limit time.Duration) {
	j.mu.Lock()
	j.closed = true
	j.unlock(true)
	j.pace.end()
	kick(j.wake)
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-j.done:
	case <-t.C:
	}
}

func kick(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// linger waits for more lines, unless there is one that must not wait.
func (j *journal) linger() {
	j.mu.Lock()
	urgent := j.urgent
	j.mu.Unlock()
	if urgent {
		return
	}
	t := time.NewTimer(flushDelay)
	defer t.Stop()
	select {
	case <-j.hurry:
	case <-t.C:
	}
}

func (j *journal) write() {
	defer close(j.done)
	// failing: the last write failed, so that what was lost cannot be told yet. torn: it has left a piece of a line.
	var failing, torn bool
	for range j.wake {
		j.linger()
		for {
			j.mu.Lock()
			lost := 0
			if j.lost > 0 && len(j.queue) == 0 && !failing {
				lost, j.lost = j.lost, 0
				j.appendLine(j.scope, typeFault, "ERROR", "", j.words(typeFault, "log output was stuck: log lines lost: "+itoa(lost)), nil)
			}
			batch := j.queue
			if len(batch) == 0 {
				closed := j.closed
				j.writing = false
				close(j.settled)
				j.settled = make(chan struct{})
				j.mu.Unlock()
				if closed {
					return
				}
				break
			}
			j.queue, j.spare, j.urgent, j.stuck = j.spare[:0], nil, false, false
			close(j.room)
			j.room = make(chan struct{})
			j.mu.Unlock()

			if torn {
				_, err := j.out.Write([]byte{'\n'})
				torn = err != nil
			}
			n := 0
			if !torn {
				n, _ = j.out.Write(batch)
			}
			failing = n < len(batch)
			if lost > 0 && !failing && j.onLost != nil {
				j.onLost(lost)
			}
			// What does not fit (the disk is full, as a rule) is lost, and counted; the next batch is tried again.
			if torn = torn || failing && n > 0 && batch[n-1] != '\n'; !failing {
				lost = 0
			}
			lost += bytes.Count(batch[n:], []byte{'\n'})

			j.mu.Lock()
			j.lost += lost
			if cap(batch) <= journalRoom {
				j.spare = batch
			}
			wait := j.pace.take(n)
			j.pacing = wait > 0
			j.mu.Unlock()
			if wait > 0 {
				j.pace.wait(wait)
				j.mu.Lock()
				j.pacing = false
				j.mu.Unlock()
			}
		}
	}
}

// begin makes s the scope of the lines that follow; tail says that their text is to be kept.
func (j *journal) begin(s scope, tail bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.scope, j.tailOn, j.tail = s, tail, j.tail[:0]
}

// end makes the lines that follow belong to no invocation, and returns the tail.
func (j *journal) end() []byte {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.scope, j.tailOn = scope{}, false
	if len(j.tail) > tailBytes {
		return j.tail[len(j.tail)-tailBytes:]
	}
	return j.tail
}

// setTap sets who is told what function and extensions write, nil for nobody.
func (j *journal) setTap(t *telemetry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.tap = t
}

// function writes one event of the function's output, or of that of the named extension; level is AWS's name of its level, "" for
// none. It waits while the queue is full,
// until stop is closed, or the output has taken nothing for stuckLimit; the line is lost then.
func (j *journal) function(stream, extension, level, line string, stop <-chan struct{}) {
	if j.json && level != "" && loglevel.Rank(level) < j.least && extension == "" {
		return // AWS: "Log-level filtering"
	}
	j.mu.Lock()
	s := j.scope
	for len(j.queue) >= journalRoom {
		if j.stuck {
			j.lost++
			j.mu.Unlock()
			return
		}
		room := j.room
		j.mu.Unlock()
		limit := time.NewTimer(stuckLimit)
		select {
		case <-room:
		case <-limit.C:
			j.mu.Lock()
			j.stuck = j.room == room && !j.pacing
			j.mu.Unlock()
		case <-stop:
			limit.Stop()
			return
		}
		limit.Stop()
		j.mu.Lock()
	}
	class := classFunction
	if extension != "" {
		class = classExtension
	}
	if j.tap != nil {
		j.tap.line(class, line)
	}
	if extension == "" {
		j.appendLine(s, typeFunction, loglevel.Field(level), stream, line, nil)
	} else {
		j.appendLine(s, typeExtensionLine, loglevel.Field(level), stream, line, func(b []byte) []byte {
			return appendString(append(b, `,"extension":`...), extension)
		})
	}
	j.unlock(true)
}

// event writes an event of lambda-init's own, in the words of the Telemetry API, for a function whose log format is JSON, unless its
// level is too low for that function. figures, when not nil, appends further members of the line.
func (j *journal) event(kind, event, level string, members record, figures func([]byte) []byte) {
	if loglevel.Rank(level) >= j.leastSystem {
		j.own(kind, level, string(members.event(event)), figures)
	}
}

// platform writes a line of lambda-init's own. figures, when not nil, appends further JSON members.
func (j *journal) platform(kind, level, message string, figures func([]byte) []byte) {
	j.own(kind, level, j.words(kind, message), figures)
}

// words is a message of lambda-init's own in the function's log format.
func (j *journal) words(kind, message string) string {
	if !j.json {
		return message
	}
	return string(append(appendString(eventHead(kind), message), '}'))
}

func (j *journal) own(kind, level, message string, figures func([]byte) []byte) {
	j.mu.Lock()
	if len(j.queue) >= journalRoom+journalReserve {
		j.lost++
	} else {
		j.appendLine(j.scope, kind, level, "", message, figures)
	}
	j.unlock(kind == typeFault)
}

// flush returns when the lines so far are written, or when standard output has taken nothing for limit.
func (j *journal) flush(limit time.Duration) {
	j.mu.Lock()
	settled := j.settled
	j.unlock(true)
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-settled:
	case <-t.C:
	}
}

// unlock releases mu and wakes the writer unless it is at work. urgent says that what is queued must not wait.
func (j *journal) unlock(urgent bool) {
	wake, hurry := !j.writing, urgent && !j.urgent
	j.writing, j.urgent = true, j.urgent || urgent
	j.mu.Unlock()
	if wake {
		kick(j.wake)
	}
	if hurry {
		kick(j.hurry)
	}
}

func (j *journal) appendLine(s scope, kind, level, stream, message string, figures func([]byte) []byte) {
	b := j.queue
	b = append(b, `{"time":"`...)
	b = time.Now().UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(append(b, `","level":"`...), level...)
	b = append(append(b, `","type":"`...), kind...)
	b = append(b, `","message":`...)
	b = appendString(b, message)
	b = append(b, j.tags...)
	if s.requestID != "" {
		b = appendString(append(b, `,"request_id":`...), s.requestID)
	}
	if s.traceID != "" {
		b = appendString(append(b, `,"trace_id":`...), s.traceID)
	}
	if stream != "" {
		b = append(append(append(b, `,"stream":"`...), stream...), '"')
	}
	if figures != nil {
		b = figures(b)
	}
	b = append(b, "}\n"...)
	j.queue = b
	if j.tailOn {
		if len(message) > tailBytes {
			message = message[len(message)-tailBytes:]
		}
		if len(j.tail) > 4*tailBytes {
			j.tail = append(j.tail[:0], j.tail[len(j.tail)-tailBytes:]...)
		}
		j.tail = append(append(j.tail, message...), '\n')
	}
}

// serverFault takes what a server has to say about a panic, or a connection that it could not take.
func (j *journal) serverFault(message string) {
	j.platform(typeFault, "WARN", "lambda-init: "+message, nil)
}

// appendString appends s as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRuneInString(s[i:])
			if r != utf8.RuneError || size > 1 {
				i += size
				continue
			}
		}
		b = append(b, s[start:i]...)
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < ' ':
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		default:
			b = append(b, "\ufffd"...)
		}
		i++
		start = i
	}
	return append(append(b, s[start:]...), '"')
}

// traceRoot returns the trace id of an X-Amzn-Trace-Id header: its Root, or all of it when it has none.
func traceRoot(header string) string {
	for part := range strings.SplitSeq(header, ";") {
		if root, ok := strings.CutPrefix(strings.TrimSpace(part), "Root="); ok {
			return root
		}
	}
	return header
}

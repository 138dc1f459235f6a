// Command probe is the function of the conformance cases of section 6: a runtime client of its own that reports what it
// sees, and does to the Runtime API what it is told. Under other names it is what goes around functions: an external extension, a
// wrapper of a runtime, a web server and the adapter that brings it events.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Files in /tmp that outlive a reset, and that extension and function share.
const (
	markerFile = "/tmp/marker"
	eventsFile = "/tmp/events"
)

// RLIMIT_NPROC and RLIMIT_MEMLOCK, which package syscall does not name.
const rlimitNPROC, rlimitMEMLOCK = 6, 8

// order is what a request's body tells the probe to do.
type order struct {
	Do string `json:"do"`
	MS int    `json:"ms"`
	MB int    `json:"mb"`
}

// report is what it answers.
type report struct {
	PID     int
	Count   int
	Env     map[string]string
	Headers http.Header
	NoFile  uint64
	NProc   uint64
	MemLock uint64
	Core    uint64
	// CoreFilter says what of its memory the kernel would write into a core file.
	CoreFilter string
	TmpMB      uint64
	Marker     bool
	// Processes are all that there are in the sandbox.
	Processes int
	Events    []string
	Notes     []string
	Ticks     int
	GapMS     int64
	CPUMS     int64
	WallMS    int64
}

// result is the answer to API Gateway.
type result struct {
	StatusCode int    `json:"statusCode"`
	Body       string `json:"body"`
}

func main() {
	switch name := filepath.Base(os.Args[0]); name {
	case "bootstrap":
	case "lambda-adapter":
		adapt(name)
	case "webapp":
		serveWeb()
	case "start-handler":
		startHandler()
	case "wrapper":
		wrap(os.Args[1:])
	case "straggler":
		straggle()
	default:
		extend(name)
		return
	}
	p := &probe{}
	switch os.Getenv("PROBE_INIT") {
	case "error":
		p.call(http.MethodPost, "init/error", []byte(`{"errorType":"Probe.NoInit","errorMessage":"as told"}`), "Lambda-Runtime-Function-Error-Type", "Probe.NoInit")
		os.Exit(1)
	case "slow-once":
		if _, err := os.Stat(markerFile); err != nil {
			mark()
			time.Sleep(time.Hour)
		}
	}
	for {
		p.serve()
	}
}

func mark() {
	if err := os.WriteFile(markerFile, nil, 0o600); err != nil {
		panic(err)
	}
}

// extend is the extension: it notes each event where the function finds it, and prints it.
func extend(name string) {
	status, header, body := call(http.MethodPost, "/2020-01-01/extension/register", []byte(`{"events":["INVOKE","SHUTDOWN"]}`),
		"Lambda-Extension-Name", name, "Lambda-Extension-Accept-Feature", "accountId")
	note(fmt.Sprintf("register %d %s", status, body))
	id := header.Get("Lambda-Extension-Identifier")
	status, _, body = call(http.MethodPut, "/2022-07-01/telemetry", []byte(`{"schemaVersion":"2022-12-13","types":["platform","function"],`+
		`"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:4323"}}`), "Lambda-Extension-Identifier", id)
	note(fmt.Sprintf("telemetry %d %s", status, body))
	for {
		status, _, body := call(http.MethodGet, "/2020-01-01/extension/event/next", nil, "Lambda-Extension-Identifier", id)
		note(fmt.Sprintf("event %d %s", status, body))
		if strings.Contains(body, "SHUTDOWN") {
			return
		}
	}
}

func note(line string) {
	fmt.Println(line)
	f, err := os.OpenFile(eventsFile, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	defer func() { _ = f.Close() }()
	_, _ = fmt.Fprintln(f, line)
}

// probe is one life of the function's process.
type probe struct {
	count int
	notes []string
	begin sync.Once

	// mu guards the ticker's figures.
	mu    sync.Mutex
	ticks int
	gap   time.Duration
	last  time.Time
}

// tick counts in the background, and keeps the longest time in which it did not.
func (p *probe) tick() {
	for {
		p.mu.Lock()
		now := time.Now()
		if !p.last.IsZero() {
			p.ticks++
			p.gap = max(p.gap, now.Sub(p.last))
		}
		p.last = now
		p.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
}

func (p *probe) serve() {
	status, header, body := p.call(http.MethodGet, "invocation/next", nil)
	if status != http.StatusOK {
		panic(fmt.Sprint("next: ", status, body))
	}
	p.count++
	id := header.Get("Lambda-Runtime-Aws-Request-Id")
	var event struct{ Body string }
	var o order
	_ = json.Unmarshal([]byte(body), &event)
	_ = json.Unmarshal([]byte(event.Body), &o)
	r := p.report(header)
	misuse := func(what string, status int, body string) {
		r.Notes = append(r.Notes, fmt.Sprintf("%s: %d %s", what, status, strings.TrimSpace(body)))
	}
	switch o.Do {
	case "exit":
		os.Exit(3)
	case "sleep":
		time.Sleep(time.Duration(o.MS) * time.Millisecond)
	case "listen":
		r.Notes = listen()
	case "who":
		r.Notes = whoAmI()
	case "mark":
		mark()
	case "hang":
		hang(o.MB)
	case "tick":
		p.begin.Do(func() { go p.tick() })
	case "burn":
		r.CPUMS, r.WallMS = burn(time.Duration(o.MS) * time.Millisecond)
	case "misuse":
		s, _, b := p.call(http.MethodPost, "invocation/other/response", []byte("1"))
		misuse("other id", s, b)
		s, _, b = p.call(http.MethodGet, "invocation/next", nil)
		misuse("next while running", s, b)
		s, _, b = p.call(http.MethodPost, "init/error", []byte("{}"))
		misuse("init error while running", s, b)
		s, _, b = p.call(http.MethodGet, "restore/next", nil)
		misuse("restore next", s, b)
		s, _, b = p.call(http.MethodPost, "restore/error", []byte("{}"))
		misuse("restore error", s, b)
	case "big":
		s, _, b := p.call(http.MethodPost, "invocation/"+id+"/response", bytes.Repeat([]byte("z"), 6<<20+101))
		p.notes = append(p.notes, fmt.Sprintf("big: %d %s", s, strings.TrimSpace(b)))
		return
	case "error":
		s, _, b := p.call(http.MethodPost, "invocation/"+id+"/error", []byte(`{"errorType":"Probe.Told","errorMessage":"as told"}`),
			"Lambda-Runtime-Function-Error-Type", "Probe.Told")
		p.notes = append(p.notes, fmt.Sprintf("error: %d %s", s, strings.TrimSpace(b)))
		return
	case "stream", "stream-error":
		p.stream(id, o.Do == "stream-error")
		return
	}
	text, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	text, err = json.Marshal(result{http.StatusOK, string(text)})
	if err != nil {
		panic(err)
	}
	s, _, b := p.call(http.MethodPost, "invocation/"+id+"/response", text)
	p.notes = append(p.notes, fmt.Sprintf("response: %d %s", s, strings.TrimSpace(b)))
}

// hang leaves a mark in /tmp and a process that its session and signals do not end, takes memory, and never answers.
func hang(mb int) {
	mark()
	straggler := &exec.Cmd{Path: "/proc/self/exe", Args: []string{"straggler"}, SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if err := straggler.Start(); err != nil {
		panic(err)
	}
	memory := make([]byte, mb<<20)
	for i := 0; i < len(memory); i += os.Getpagesize() {
		memory[i] = 1
	}
	time.Sleep(time.Hour)
	runtime.KeepAlive(memory)
}

func straggle() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
	for {
		time.Sleep(time.Hour)
	}
}

// burn works for a while and returns how much CPU time it got.
func burn(wall time.Duration) (cpu, took int64) {
	var before, after syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
	began := time.Now()
	for time.Since(began) < wall {
		_ = began
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	used := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	return used.Milliseconds(), time.Since(began).Milliseconds()
}

func (p *probe) report(header http.Header) report {
	r := report{PID: os.Getpid(), Count: p.count, Env: map[string]string{}, Headers: header, Notes: p.notes}
	p.notes = nil
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		r.Env[name] = value
	}
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		r.NoFile = limit.Max
	}
	if syscall.Getrlimit(rlimitNPROC, &limit) == nil {
		r.NProc = limit.Cur
	}
	if syscall.Getrlimit(rlimitMEMLOCK, &limit) == nil {
		r.MemLock = limit.Max
	}
	if syscall.Getrlimit(syscall.RLIMIT_CORE, &limit) == nil && limit.Cur == limit.Max {
		r.Core = limit.Max
	}
	if filter, err := os.ReadFile("/proc/self/coredump_filter"); err == nil {
		r.CoreFilter = strings.TrimSpace(string(filter))
	}
	var fs syscall.Statfs_t
	if syscall.Statfs("/tmp", &fs) == nil {
		r.TmpMB = fs.Blocks * uint64(fs.Bsize) >> 20
	}
	_, err := os.Stat(markerFile)
	r.Marker = err == nil
	if text, err := os.ReadFile(eventsFile); err == nil {
		r.Events = strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	if list, err := filepath.Glob("/proc/[0-9]*"); err == nil {
		r.Processes = len(list)
	}
	p.mu.Lock()
	gap := p.gap
	if !p.last.IsZero() {
		// After a thaw this may run before the ticker does.
		gap = max(gap, time.Since(p.last))
	}
	r.Ticks, r.GapMS = p.ticks, gap.Milliseconds()
	p.mu.Unlock()
	return r
}

// stream answers in chunks, and with an error in the trailers when it is told so.
func (p *probe) stream(id string, fail bool) {
	in, out := io.Pipe()
	r, err := http.NewRequest(http.MethodPost, runtimeURL("invocation/"+id+"/response"), in)
	if err != nil {
		panic(err)
	}
	r.Header.Set("Lambda-Runtime-Function-Response-Mode", "streaming")
	r.Header.Set("Content-Type", "application/json")
	r.Trailer = http.Header{"Lambda-Runtime-Function-Error-Type": nil, "Lambda-Runtime-Function-Error-Body": nil}
	go func() {
		for _, piece := range []string{`{"statusCode":200,`, `"body":"`, `streamed"}`} {
			_, _ = io.WriteString(out, piece)
		}
		if fail {
			r.Trailer.Set("Lambda-Runtime-Function-Error-Type", "Probe.Stream")
		}
		_ = out.Close()
	}()
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		panic(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, _ := io.ReadAll(res.Body)
	p.notes = append(p.notes, fmt.Sprintf("stream: %d %s", res.StatusCode, strings.TrimSpace(string(b))))
}

func runtimeURL(path string) string {
	return "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/" + path
}

func (p *probe) call(method, path string, body []byte, header ...string) (int, http.Header, string) {
	return call(method, "/2018-06-01/runtime/"+path, body, header...)
}

func call(method, path string, body []byte, header ...string) (int, http.Header, string) {
	r, err := http.NewRequest(method, "http://"+os.Getenv("AWS_LAMBDA_RUNTIME_API")+path, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		panic(err)
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		panic(err)
	}
	return res.StatusCode, res.Header, string(text)
}

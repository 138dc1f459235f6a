// Command rie behaves as AWS's Runtime Interface Emulator does in its classic mode, as far as a gateway can see it
// (its answers were measured): the end-to-end test puts it into an image that speaks on port 8080 only.
//
//	rie COMMAND [ARGUMENT...]
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	runtimeAPI   = "127.0.0.1:9001"
	workerAddr   = ":8080"
	payloadLimit = 6*1024*1024 + 100
)

type answer struct {
	body    []byte
	failed  bool
	initErr bool
}

// process is one life of the function's runtime: from its start to its exit.
type process struct {
	cmd     *exec.Cmd
	ready   chan struct{} // closed by the first /next
	exited  chan struct{} // closed when the process has ended
	events  chan event
	answers chan answer
	booted  atomic.Bool
}

type event struct {
	id       string
	deadline time.Time
	payload  []byte
}

type emulator struct {
	command []string
	timeout time.Duration
	busy    atomic.Bool
	current *process // only the one invocation under way uses it
	api     atomic.Pointer[process]
}

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: rie COMMAND [ARGUMENT...]")
	}
	e := &emulator{command: os.Args[1:], timeout: 300 * time.Second}
	if text := os.Getenv("AWS_LAMBDA_FUNCTION_TIMEOUT"); text != "" {
		seconds, err := strconv.Atoi(text)
		if err != nil {
			panic(err) // as RIE does
		}
		e.timeout = time.Duration(seconds) * time.Second
	}
	api, err := net.Listen("tcp", runtimeAPI)
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.Serve(api, e.runtimeAPI())) }() //nolint:gosec // a test program
	worker := http.NewServeMux()
	worker.HandleFunc("/2015-03-31/functions/function/invocations", e.invoke)
	worker.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "404 page not found", http.StatusNotFound) })
	log.Fatal(http.ListenAndServe(workerAddr, worker)) //nolint:gosec // a test program
}

func (e *emulator) start() (*process, error) {
	p := &process{
		ready: make(chan struct{}), exited: make(chan struct{}),
		events: make(chan event), answers: make(chan answer, 1),
	}
	p.cmd = exec.Command(e.command[0], e.command[1:]...) //nolint:gosec // the image's own command
	p.cmd.Env = append(os.Environ(), "AWS_LAMBDA_RUNTIME_API="+runtimeAPI)
	p.cmd.Stdout, p.cmd.Stderr = os.Stdout, os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	e.api.Store(p)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { _ = p.cmd.Wait(); close(p.exited) }()
	return p, nil
}

func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.exited
}

// invoke counts the start of the process against the function's timeout, and ends the whole emulator when a
// second invocation comes while one runs: both are what RIE does.
func (e *emulator) invoke(w http.ResponseWriter, r *http.Request) {
	if !e.busy.CompareAndSwap(false, true) {
		fmt.Fprintln(os.Stderr, "panic: runtime error: invalid memory address or nil pointer dereference")
		os.Exit(2)
	}
	payload, err := io.ReadAll(io.LimitReader(r.Body, payloadLimit)) // longer ones are cut, silently
	if err != nil {
		os.Exit(2) // the caller has left
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	status, body := e.run(r.Context(), payload)
	e.busy.Store(false)
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func (e *emulator) run(_ context.Context, payload []byte) (int, []byte) {
	deadline := time.Now().Add(e.timeout)
	timer := time.NewTimer(e.timeout + 100*time.Millisecond)
	defer timer.Stop()
	timedOut := func() (int, []byte) {
		e.current.kill()
		e.current = nil
		return http.StatusOK, fmt.Appendf(nil, "Task timed out after %.2f seconds", e.timeout.Seconds())
	}
	if e.current == nil {
		p, err := e.start()
		if err != nil {
			return http.StatusBadGateway, nil
		}
		e.current = p
		select {
		case <-p.ready:
		case a := <-p.answers:
			p.kill()
			e.current = nil
			return http.StatusBadGateway, a.body
		case <-p.exited:
			e.current = nil
			return http.StatusBadGateway, nil
		case <-timer.C:
			return timedOut()
		}
	}
	p := e.current
	id := fmt.Sprintf("%08x-0000-4000-8000-000000000000", time.Now().UnixNano()&0xffffffff)
	fmt.Printf("START RequestId: %s Version: $LATEST\n", id)
	select {
	case p.events <- event{id: id, deadline: deadline, payload: payload}:
	case <-p.exited:
		return e.exitError(id)
	case <-timer.C:
		return timedOut()
	}
	select {
	case a := <-p.answers:
		if len(a.body) > payloadLimit {
			return http.StatusOK, fmt.Appendf(nil, `{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size (%d bytes) exceeded maximum allowed payload size (%d bytes)."}`, len(a.body), payloadLimit)
		}
		return http.StatusOK, a.body
	case <-p.exited:
		return e.exitError(id)
	case <-timer.C:
		return timedOut()
	}
}

func (e *emulator) exitError(id string) (int, []byte) {
	state := e.current.cmd.ProcessState
	e.current = nil
	body, _ := json.Marshal(map[string]string{
		"errorType": "Runtime.ExitError", "errorMessage": fmt.Sprintf("RequestId: %s Error: Runtime exited with error: %s", id, state),
	})
	return http.StatusBadGateway, body
}

func (e *emulator) runtimeAPI() http.Handler {
	const base = "/2018-06-01/runtime/"
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+base+"invocation/next", func(w http.ResponseWriter, r *http.Request) {
		p := e.api.Load()
		if p.booted.CompareAndSwap(false, true) {
			close(p.ready)
		}
		select {
		case ev := <-p.events:
			w.Header().Set("Lambda-Runtime-Aws-Request-Id", ev.id)
			w.Header().Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(ev.deadline.UnixMilli(), 10))
			w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:012345678912:function:"+os.Getenv("AWS_LAMBDA_FUNCTION_NAME"))
			_, _ = w.Write(ev.payload)
		case <-r.Context().Done():
		case <-p.exited:
		}
	})
	post := func(failed, initErr bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var body bytes.Buffer
			if _, err := body.ReadFrom(r.Body); err != nil && !errors.Is(err, io.EOF) {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			e.api.Load().answers <- answer{body: body.Bytes(), failed: failed, initErr: initErr}
			w.WriteHeader(http.StatusAccepted)
			_, _ = w.Write([]byte(`{"status":"OK"}`))
		}
	}
	mux.HandleFunc("POST "+base+"invocation/{id}/response", post(false, false))
	mux.HandleFunc("POST "+base+"invocation/{id}/error", post(true, false))
	mux.HandleFunc("POST "+base+"init/error", post(true, true))
	return mux
}

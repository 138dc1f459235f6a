// Package baseline is what the box is measured against, in the same run: the same function with less around it, or with what others
// have around theirs.
package baseline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

const (
	// answerLimit bounds the wait for one answer.
	answerLimit = 30 * time.Second
	// probePause is the pause between two looks whether something listens.
	probePause = time.Millisecond
)

// Bare runs a function's program in new namespaces, without an image, a runtime, a network or limits: what a start takes at least.
type Bare struct {
	program string
	event   []byte
	server  *http.Server
	addr    string
	serving sync.WaitGroup
	// answered gets the result of the present process.
	answered chan []byte
	// mu guards given: whether the present process has its event.
	mu    sync.Mutex
	given bool
}

// OpenBare serves the Runtime API to one program at a time, which gets event. Close ends it.
func OpenBare(program string, event []byte) (*Bare, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve the Runtime API to a bare function: %w", err)
	}
	b := &Bare{program: program, event: event, addr: l.Addr().String(), answered: make(chan []byte, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", b.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", b.response)
	b.server = &http.Server{Handler: mux, ReadHeaderTimeout: answerLimit}
	b.serving.Go(func() { _ = b.server.Serve(l) })
	return b, nil
}

// Close ends the server.
func (b *Bare) Close() {
	_ = b.server.Close()
	b.serving.Wait()
}

func (b *Bare) next(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	first := !b.given
	b.given = true
	b.mu.Unlock()
	if !first {
		<-r.Context().Done() // the process is ended soon
		return
	}
	w.Header().Set("Lambda-Runtime-Aws-Request-Id", "00000000-0000-4000-8000-000000000000")
	w.Header().Set("Lambda-Runtime-Deadline-Ms", fmt.Sprint(time.Now().Add(answerLimit).UnixMilli()))
	w.Header().Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:000000000000:function:bare")
	_, _ = w.Write(b.event)
}

func (b *Bare) response(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err == nil {
		select {
		case b.answered <- body:
		default:
		}
	}
	w.WriteHeader(http.StatusAccepted)
}

// Start runs the program until it has answered its first event, and returns the answer, how long that took, and what ends the process.
func (b *Bare) Start(ctx context.Context) (answer []byte, took time.Duration, end func() error, err error) {
	tmp, err := os.MkdirTemp("", "esb-bench-bare-")
	if err != nil {
		return nil, 0, nil, err
	}
	b.mu.Lock()
	b.given = false
	b.mu.Unlock()
	cmd := exec.Command(b.program)
	cmd.Env = []string{
		"AWS_LAMBDA_RUNTIME_API=" + b.addr, "_HANDLER=bootstrap", "TMPDIR=" + tmp, "AWS_LAMBDA_FUNCTION_NAME=bare",
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE=3538", "AWS_LAMBDA_FUNCTION_VERSION=$LATEST", "AWS_REGION=us-east-1",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, 0, nil, errors.Join(fmt.Errorf("start %s: %w", b.program, err), os.RemoveAll(tmp))
	}
	end = func() error {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		return os.RemoveAll(tmp)
	}
	limit := time.NewTimer(answerLimit)
	defer limit.Stop()
	select {
	case answer = <-b.answered:
		return answer, time.Since(began), end, nil
	case <-limit.C:
		err = fmt.Errorf("%s has not answered for %s", b.program, answerLimit)
	case <-ctx.Done():
		err = ctx.Err()
	}
	return nil, 0, nil, errors.Join(err, end())
}

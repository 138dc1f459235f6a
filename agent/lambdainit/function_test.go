package lambdainit_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// order is the event that tells the test function what to do.
type order struct {
	Do   string `json:"do"`
	Text string `json:"text,omitempty"`
	N    int    `json:"n,omitempty"`
	Then string `json:"then,omitempty"`
}

// reply is what the test function answers unless it was told otherwise.
type reply struct {
	PID     int
	Count   int
	Headers http.Header
	Env     []string
	Notes   []string
}

// function is a runtime client and a handler in one: the function process of the tests. start says how it begins.
type function struct {
	base  string
	count int
	// registered is closed when the internal extension has registered.
	registered chan struct{}
}

// extension is an internal extension.
func (f *function) extension() {
	resp, body := extensionCall("POST", "register", "", `{"events":["SHUTDOWN"]}`, "Lambda-Extension-Name: inside")
	fmt.Println("internal shutdown:", resp.StatusCode, body)
	resp, body = extensionCall("POST", "register", "", `{"events":["INVOKE"]}`, "Lambda-Extension-Name: inside")
	fmt.Println("internal:", resp.StatusCode, body)
	close(f.registered)
	for {
		_, body := extensionCall("GET", "event/next", resp.Header.Get("Lambda-Extension-Identifier"), "")
		fmt.Println("internal event:", body)
	}
}

func runFunction(start string, args []string) int {
	f := &function{base: "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/", registered: make(chan struct{})}
	switch start {
	case "init-error":
		fmt.Println("import failed")
		status, body := f.post("init/error", []byte(`{"errorMessage":"no module","errorType":"Runtime.ImportModuleError"}`),
			http.Header{"Lambda-Runtime-Function-Error-Type": {"Runtime.ImportModuleError"}})
		fmt.Println("init/error:", status, body)
		select {}
	case "init-exit":
		fmt.Println("going away")
		return 7
	case "init-hang":
		select {}
	case "hang-once": // args[0] is a file that remembers
		if _, err := os.Stat(args[0]); err != nil {
			if err := os.WriteFile(args[0], nil, 0o600); err != nil {
				panic(err)
			}
			select {}
		}
	case "ignore-term":
		signal.Ignore(syscall.SIGTERM)
	case "slow-init":
		time.Sleep(50 * time.Millisecond)
		fmt.Println("slow init done")
	case "internal": // an extension of its own, and an end in order
		go f.extension()
		<-f.registered
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		go func() {
			<-stop
			fmt.Println("got SIGTERM")
			os.Exit(0)
		}()
	case "impatient": // gives its first calls of next up
		client := &http.Client{Timeout: 20 * time.Millisecond, Transport: &http.Transport{}}
		for range 3 {
			_, err := client.Get(f.base + "invocation/next")
			fmt.Println("gave up:", err != nil)
		}
	case "early-answer":
		status, body := f.post("invocation/none/response", []byte("1"), nil)
		fmt.Println("early answer:", status, body)
	}
	for {
		f.serve()
	}
}

func (f *function) serve() {
	resp, err := http.Get(f.base + "invocation/next")
	if err != nil {
		panic(err)
	}
	defer func() { _ = resp.Body.Close() }()
	payload, err := io.ReadAll(resp.Body)
	if resp.StatusCode == http.StatusForbidden {
		time.Sleep(time.Millisecond) // an answer that broke off has not been seen to yet
		return
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		panic(fmt.Sprint("next: ", resp.StatusCode, err))
	}
	id := resp.Header.Get("Lambda-Runtime-Aws-Request-Id")
	f.count++
	var o order
	_ = json.Unmarshal(payload, &o)
	r := reply{PID: os.Getpid(), Count: f.count, Headers: resp.Header, Env: os.Environ()}
	note := func(status int, body string) { r.Notes = append(r.Notes, fmt.Sprint(status, " ", body)) }

	switch o.Do {
	case "exit":
		fmt.Println("last words")
		os.Exit(o.N) //nolint:gocritic // the kernel closes the body
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.Signal(o.N))
		select {}
	case "hang":
		fmt.Println("hanging")
		select {}
	case "log":
		fmt.Print(o.Text)
	case "frame": // as AWS's clients log: Text, and N bytes behind it
		fd, err := strconv.Atoi(os.Getenv("_LAMBDA_TELEMETRY_LOG_FD"))
		if err != nil {
			panic(err)
		}
		fmt.Println("before")
		message := o.Text + strings.Repeat("x", o.N)
		head := binary.BigEndian.AppendUint32([]byte{0xa5, 0x5a, 0x00, 0x17}, uint32(len(message)))
		for rest := append(append(head, make([]byte, 8)...), message...); len(rest) > 0; {
			n, err := syscall.Write(fd, rest) // no file: its finalizer would close the descriptor
			if err != nil && !errors.Is(err, syscall.EINTR) {
				panic(err)
			}
			rest = rest[max(n, 0):]
		}
		fmt.Println("behind")
	case "stderr":
		fmt.Fprint(os.Stderr, o.Text)
	case "flood": // longer than a pipe holds
		w := bufio.NewWriter(os.Stdout)
		for i := range o.N {
			_, _ = fmt.Fprintf(w, "line %d %s\n", i, strings.Repeat("x", 100))
		}
		_ = w.Flush()
	case "endless":
		go func() {
			for {
				fmt.Println(strings.Repeat("y", 4000))
			}
		}()
	case "error":
		f.post("invocation/"+id+"/error", []byte(`{"errorMessage":"boom","errorType":"Error"}`),
			http.Header{"Lambda-Runtime-Function-Error-Type": {"Function.Error"}})
		return
	case "big":
		status, body := f.post("invocation/"+id+"/response", bytes.Repeat([]byte("z"), o.N), nil)
		fmt.Println("posted:", status, strings.TrimSpace(body))
		return
	case "misuse": // everything that the order of calls forbids
		note(f.post("invocation/other/response", []byte("1"), nil))
		note(f.get("invocation/next"))
		note(f.post("init/error", []byte("{}"), nil))
		note(f.get("invocation/" + id + "/response"))
		note(f.get("no/such/call"))
	case "twice":
		f.post("invocation/"+id+"/response", []byte(`"first"`), nil)
		status, body := f.post("invocation/"+id+"/response", []byte(`"second"`), nil)
		fmt.Println("twice:", status, strings.TrimSpace(body))
		return
	case "stream":
		f.stream(id, o.N != 0)
		return
	case "pieces": // one, and the rest when the file o.Text is there
		f.pieces(id, o)
		return
	case "family": // a child in the group, and a grandchild that has left it
		out, err := exec.Command("setsid", "--fork", "sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $! $$; exec >/dev/null 2>&1; wait").Output()
		if err != nil {
			panic(err)
		}
		child := exec.Command("sleep", "600")
		if err := child.Start(); err != nil {
			panic(err)
		}
		note(child.Process.Pid, strings.TrimSpace(string(out)))
	case "orphans": // end at once, with nobody but process 1 to wait for them
		for range o.N {
			if err := exec.Command("sh", "-c", "(true &)").Run(); err != nil {
				panic(err)
			}
		}
	case "listen": // at an address that is another's, in every way that there is
		for _, network := range []string{"tcp4", "tcp"} {
			for _, address := range []string{o.Text, o.Text[strings.LastIndexByte(o.Text, ':'):]} {
				for _, option := range []int{0, unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
					config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
						return c.Control(func(fd uintptr) {
							if option != 0 {
								_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, 1)
							}
						})
					}}
					if _, err := config.Listen(context.Background(), network, address); err != nil {
						note(option, "refused")
					} else {
						note(option, "taken") // and left open
					}
				}
			}
		}
	case "register":
		resp, body := extensionCall("POST", "register", "", `{"events":[]}`, "Lambda-Extension-Name: late")
		fmt.Println("late:", resp.StatusCode, body)
	case "quit-after":
		f.post("invocation/"+id+"/response", []byte(`"bye"`), nil)
		os.Exit(3)
	}
	body, _ := json.Marshal(r)
	f.post("invocation/"+id+"/response", body, http.Header{"Content-Type": {"application/vnd.test+json"}})
	if o.Do == "late" {
		fmt.Print("after the answer")
	}
}

func (f *function) post(path string, body []byte, header http.Header) (int, string) {
	req, err := http.NewRequest(http.MethodPost, f.base+path, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	return f.do(req)
}

func (f *function) get(path string) (int, string) {
	req, err := http.NewRequest(http.MethodGet, f.base+path, nil)
	if err != nil {
		panic(err)
	}
	return f.do(req)
}

func (f *function) do(req *http.Request) (int, string) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(err)
	}
	return resp.StatusCode, string(b)
}

// stream posts a chunked response, with an error in its trailers when fail is true.
func (f *function) stream(id string, fail bool) {
	pr, pw := io.Pipe()
	req, err := http.NewRequest(http.MethodPost, f.base+"invocation/"+id+"/response", pr)
	if err != nil {
		panic(err)
	}
	req.Header.Set("Lambda-Runtime-Function-Response-Mode", "streaming")
	req.Header.Set("Content-Type", "text/plain")
	if fail {
		req.Trailer = http.Header{"Lambda-Runtime-Function-Error-Type": nil, "Lambda-Runtime-Function-Error-Body": nil}
	}
	go func() {
		for i := range 3 {
			_, _ = fmt.Fprintf(pw, "part %d;", i)
		}
		if fail {
			req.Trailer.Set("Lambda-Runtime-Function-Error-Type", "Runtime.StreamError")
			req.Trailer.Set("Lambda-Runtime-Function-Error-Body",
				base64.StdEncoding.EncodeToString([]byte(`{"errorType":"Runtime.StreamError"}`)))
		}
		_ = pw.Close()
	}()
	f.do(req)
}

// pieces streams "first;", waits for the file o.Text, and then does as o.Then says.
func (f *function) pieces(id string, o order) {
	pr, pw := io.Pipe()
	req, err := http.NewRequest(http.MethodPost, f.base+"invocation/"+id+"/response", pr)
	if err != nil {
		panic(err)
	}
	if o.Then != "no-mode" { // aws-lambda-go has none
		req.Header.Set("Lambda-Runtime-Function-Response-Mode", "streaming")
	}
	req.Header.Set("Content-Type", "text/event-stream")
	req.Trailer = http.Header{"Lambda-Runtime-Function-Error-Type": nil, "Lambda-Runtime-Function-Error-Body": nil}
	go func() {
		fmt.Println("writing")
		_, _ = io.WriteString(pw, "first;")
		for o.Text != "" {
			if _, err := os.Stat(o.Text); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		switch o.Then {
		case "exit":
			os.Exit(7)
		case "break":
			_ = pw.CloseWithError(io.ErrClosedPipe)
			return
		case "break and exit": // as the kernel ends a process: its connections first
			_ = pw.CloseWithError(io.ErrClosedPipe)
			time.Sleep(500 * time.Millisecond)
			os.Exit(7)
		case "fail":
			req.Trailer.Set("Lambda-Runtime-Function-Error-Type", "Stream.Broken")
			req.Trailer.Set("Lambda-Runtime-Function-Error-Body",
				base64.StdEncoding.EncodeToString([]byte(`{"errorType":"Stream.Broken","errorMessage":"`+strings.Repeat("m", o.N)+`"}`)))
		case "bytes":
			piece := bytes.Repeat([]byte("0123456789abcdef"), 2048)
			for range o.N / len(piece) {
				if _, err := pw.Write(piece); err != nil {
					return
				}
			}
		default:
			_, _ = io.WriteString(pw, "second;")
		}
		_ = pw.Close()
	}()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Println("stream:", err)
		if o.Then == "break and exit" {
			select {}
		}
		return
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(resp.Body)
	fmt.Println("streamed:", resp.StatusCode, strings.TrimSpace(string(body)))
}

package baseline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/functions/runtimes/debian"
	"github.com/edge-serverless-box/esb/guard/freeport"
)

// Worker is where a function's container takes invocations, and what it wants to be called.
type Worker struct{ Addr, ID string }

// InvocationPath is that of the worker contract (docs/lambda-init.md).
const InvocationPath = "/2015-03-31/functions/function/invocations"

// Nginx is Debian's nginx, with one process, as a proxy of workers.
type Nginx struct {
	// Addr is host:port; the nth worker is behind the path /n.
	Addr string
	// PID is the process that does the work.
	PID int
	cmd *exec.Cmd
}

// FetchNginx puts the nginx of this machine's Debian release below the folder of the project's tools, once, without installing it, and
// returns its program and what it says of its version. apt checks signatures and hashes.
func FetchNginx(ctx context.Context, tools string) (program, version string, err error) {
	folder := filepath.Join(tools, "nginx")
	program = filepath.Join(folder, "usr", "sbin", "nginx")
	if _, err := os.Stat(program); errors.Is(err, os.ErrNotExist) {
		if err := fetchNginx(ctx, tools, folder); err != nil {
			return "", "", fmt.Errorf("fetch Debian's nginx: %w", err)
		}
	}
	out, err := exec.CommandContext(ctx, program, "-v").CombinedOutput()
	if err != nil {
		return "", "", fmt.Errorf("%s -v: %w\n%s", program, err, out)
	}
	_, version, _ = strings.Cut(strings.TrimSpace(string(out)), "nginx/")
	return program, "nginx " + version, nil
}

func fetchNginx(ctx context.Context, tools, folder string) error {
	apt, err := debian.New(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(tools, 0o755); err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(tools, ".nginx-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(scratch) }()
	files, err := apt.Download(ctx, scratch, "nginx")
	if err != nil {
		return err
	}
	fresh := filepath.Join(scratch, "root")
	for _, file := range files {
		if err := debian.Unpack(ctx, file, fresh); err != nil {
			return err
		}
	}
	return os.Rename(fresh, folder)
}

// StartNginx starts it in a new folder dir. It keeps connections to its workers, and writes an access log as Debian's does. Close ends it.
func StartNginx(ctx context.Context, program, dir string, workers []Worker) (*Nginx, error) {
	ports, err := freeport.Find(1)
	if err != nil {
		return nil, err
	}
	n := &Nginx{Addr: fmt.Sprintf("127.0.0.1:%d", ports[0])}
	if err := os.MkdirAll(filepath.Join(dir, "tmp"), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), n.configuration(workers), 0o644); err != nil {
		return nil, err
	}
	var said bytes.Buffer
	n.cmd = exec.Command(program, "-p", dir, "-e", "error.log", "-c", "nginx.conf")
	n.cmd.Stdout, n.cmd.Stderr = &said, &said
	if err := n.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start nginx: %w", err)
	}
	n.PID = n.cmd.Process.Pid
	for began := time.Now(); ; {
		connection, err := net.DialTimeout("tcp", n.Addr, time.Second)
		if err == nil {
			return n, connection.Close()
		}
		if time.Since(began) > answerLimit || ctx.Err() != nil {
			n.Close()
			return nil, fmt.Errorf("nginx does not listen: %w\n%s", err, said.Bytes())
		}
		time.Sleep(probePause)
	}
}

func (n *Nginx) configuration(workers []Worker) []byte {
	var c bytes.Buffer
	c.WriteString(`daemon off;
master_process off;
pid nginx.pid;
events { worker_connections 1024; }
http {
  access_log access.log combined;
  client_body_temp_path tmp/body; proxy_temp_path tmp/proxy; fastcgi_temp_path tmp/fastcgi; uwsgi_temp_path tmp/uwsgi; scgi_temp_path tmp/scgi;
  keepalive_requests 1000000;
`)
	for i, w := range workers {
		_, _ = fmt.Fprintf(&c, "  upstream w%d { server %s; keepalive 4; keepalive_requests 1000000; }\n", i, w.Addr)
	}
	_, _ = fmt.Fprintf(&c, "  server {\n    listen %s;\n", n.Addr)
	for i, w := range workers {
		_, _ = fmt.Fprintf(&c, "    location = /%d { proxy_pass http://w%d%s; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header X-Esb-Container-Id %s; }\n",
			i, i, InvocationPath, w.ID)
	}
	c.WriteString("  }\n}\n")
	return c.Bytes()
}

// Close ends it and waits until it has ended.
func (n *Nginx) Close() {
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	_ = n.cmd.Wait() // it was ended by a signal
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/tests/bench/baseline"
	"github.com/edge-serverless-box/esb/tests/stack"
	"github.com/edge-serverless-box/esb/tests/traffic"
)

const (
	// echoTag and rieTag are images of the same program; in the second it stands behind one that behaves as RIE does.
	echoTag, rieTag = "esb/bench-echo:latest", "esb/bench-rie:latest"
	// crowd is how many clients are served at a time, churning how many functions are started again and again.
	crowd, churning = 8, 40
	// message is what functions repeat, so that an answer can be told from another.
	message = "hello"
	// waitLimit bounds every wait for a condition, on a badly loaded machine too.
	waitLimit = 90 * time.Second
)

var (
	body  = []byte(`{"message":"` + message + `"}`)
	event = fmt.Appendf(nil, `{"body":%q,"requestContext":{"authorizer":{"cognito:username":%q}}}`, body, stack.User)
)

// box is what is measured.
type box struct {
	*stack.Stack
	root, token string
	// function is the program that all ways of running it have in common, rieImage the archive of rieTag.
	function, rieImage string
	// containers is the box's containerd, which says what process a container has.
	containers *client.Client
}

// startBox starts a box. One that is returned beside an error is to be closed.
func startBox(ctx context.Context, root, home string) (*box, error) {
	b := &box{root: root}
	config := filepath.Join(home, "config")
	for _, name := range []string{"hello-python", "hello-node"} {
		if err := os.CopyFS(filepath.Join(config, name), os.DirFS(filepath.Join(root, "tests", "bench", "testdata", name))); err != nil {
			return nil, err
		}
	}
	functions, routes := configuration()
	for name, text := range map[string]string{"functions.yml": functions, "routing.yml": routes} {
		if err := os.WriteFile(filepath.Join(config, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	images, err := b.images(home)
	if err != nil {
		return nil, err
	}
	b.Stack, err = stack.Prepare(home, stack.Options{
		FunctionsConfig: filepath.Join(config, "functions.yml"), RoutingConfig: filepath.Join(config, "routing.yml"), Images: images,
		// The bench makes containers that no pool knows.
		Env: []string{"ORPHAN_GRACE_PERIOD_SECONDS=3600", "PARKED_SANDBOXES_MAX=0", park(parking)},
	})
	if err != nil {
		return nil, err
	}
	if err := b.Up(ctx); err != nil {
		return b, err
	}
	if b.token, err = b.Token(ctx); err != nil {
		return b, err
	}
	b.containers, err = client.New(b.containerdSocket(), client.WithDefaultNamespace("esb-runtime"))
	return b, err
}

func (b *box) close() error {
	var err error
	if b.containers != nil {
		err = b.containers.Close()
	}
	return errors.Join(err, b.Down())
}

// images builds both images of the function.
func (b *box) images(home string) ([]string, error) {
	var err error
	if b.function, err = stack.BuildProgram(b.root, home, "./functions/lambda-echo", "-tags", "lambda.norpc", "-ldflags", "-s -w"); err != nil {
		return nil, err
	}
	rie, err := stack.BuildProgram(b.root, home, "./tests/rie", "-ldflags", "-s -w")
	if err != nil {
		return nil, err
	}
	inImage := "/var/task/bootstrap=" + b.function
	echo, err := stack.BuildImage(b.root, home, echoTag, "-file", inImage, "-entrypoint", "/var/task/bootstrap")
	if err != nil {
		return nil, err
	}
	b.rieImage, err = stack.BuildImage(b.root, home, rieTag, "-file", "/usr/local/bin/rie="+rie, "-file", inImage, "-entrypoint", "/usr/local/bin/rie", "-cmd", "/var/task/bootstrap")
	return []string{echo, b.rieImage}, err
}

// configuration is what the box serves. Functions have whole CPUs, so that no quota hides the path; what is to be cold is gone a second
// after its last request.
func configuration() (functions, routes string) {
	var f, r strings.Builder
	f.WriteString("functions:\n")
	r.WriteString("routes:\n")
	add := func(name, what, scaling string) {
		_, _ = fmt.Fprintf(&f, "  %s: {%s, timeout: 30, memory_size: 3538, scaling: {%s}}\n", name, what, scaling)
		_, _ = fmt.Fprintf(&r, "  - {path: /%s, method: POST, function: %s}\n", name, name)
	}
	echo := "image: " + echoTag
	add("warm", echo, fmt.Sprintf("max_capacity: %d, idle_timeout: 3600", crowd))
	add("pausing", echo, "max_capacity: 1, idle_timeout: 3600")
	add("freezing", echo+", freeze: true", "max_capacity: 1, idle_timeout: 3600")
	const cold = "max_capacity: 1, idle_timeout: 1"
	add("cold-go", echo, cold)
	add("cold-python", "code: ./hello-python, runtime: python3.11, handler: app.handler", cold)
	add("cold-node", "code: ./hello-node, runtime: nodejs24.x, handler: index.handler", cold)
	add("standby", echo, "max_capacity: 2, idle_timeout: 1, standby: 1")
	for i := range churning {
		add(fmt.Sprintf("churn%d", i), echo, cold)
	}
	_, _ = fmt.Fprintf(&f, "  sleep: {image: esb/lambda-chaos:latest, timeout: 30, memory_size: 128, scaling: {max_capacity: %d, idle_timeout: 1}}\n", burstSize)
	r.WriteString("  - {path: /sleep, method: POST, function: sleep}\n")
	return f.String(), r.String()
}

func (b *box) runDir() string { return filepath.Join("/run/esb", b.Bridge, "containerd") }

func (b *box) containerdSocket() string { return filepath.Join(b.runDir(), "containerd.sock") }

// open connects to the gateway.
func (b *box) open(ctx context.Context) (*traffic.Line, error) {
	address, err := url.Parse(b.HTTPURL)
	if err != nil {
		return nil, err
	}
	return traffic.Open(ctx, (&net.Dialer{}).DialContext, address.Host)
}

// request is one to a function of the box, with a body.
func (b *box) request(ctx context.Context, function string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.HTTPURL+"/"+function, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+b.token)
	r.Header.Set("Content-Type", "application/json")
	return r, nil
}

// text is request, written.
func (b *box) text(ctx context.Context, function string, body []byte) ([]byte, error) {
	r, err := b.request(ctx, function, body)
	if err != nil {
		return nil, err
	}
	return traffic.Write(r)
}

// instances is how answers say which process has given them.
var instances = regexp.MustCompile(`instance\\?": ?\\?"([0-9a-f]{16})`)

// instance is the process that has given an answer, which must be right.
func instance(answer []byte) (string, error) {
	if found := instances.FindSubmatch(answer); found != nil && bytes.Contains(answer, []byte(message)) {
		return string(found[1]), nil
	}
	return "", fmt.Errorf("the answer is %.200q", answer)
}

// once asks a function on a connection of its own, which is made before the time counts.
func (b *box) once(ctx context.Context, function string) (took time.Duration, process string, err error) {
	line, err := b.open(ctx)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = line.Close() }()
	text, err := b.text(ctx, function, body)
	if err != nil {
		return 0, "", err
	}
	began := time.Now()
	status, answer, err := line.Ask(text)
	took = time.Since(began)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d %.200q", status, answer)
	}
	if err != nil {
		return 0, "", fmt.Errorf("ask %s: %w", function, err)
	}
	process, err = instance(answer)
	return took, process, err
}

// ensure makes a container of the bench's own.
func (b *box) ensure(ctx context.Context, function string, rie bool) (baseline.Worker, error) {
	request := &agentv1.EnsureContainerRequest{FunctionName: function, Image: echoTag, MemorySizeMb: 3538, TimeoutSeconds: 30}
	if rie {
		request.Image, request.RuntimeInterface = rieTag, agentv1.RuntimeInterface_RUNTIME_INTERFACE_RIE
	}
	w, err := b.Agent.EnsureContainer(ctx, request)
	if err != nil {
		return baseline.Worker{}, fmt.Errorf("make a container of %s: %w", function, err)
	}
	return baseline.Worker{Addr: fmt.Sprintf("%s:%d", w.GetIpAddress(), w.GetPort()), ID: w.GetId()}, nil
}

func (b *box) destroy(ctx context.Context, w baseline.Worker) error {
	_, err := b.Agent.DestroyContainer(ctx, &agentv1.DestroyContainerRequest{ContainerId: w.ID})
	return err
}

// straight connects to a worker, and writes the request that the gateway would send.
func straight(ctx context.Context, w baseline.Worker) (*traffic.Line, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+w.Addr+baseline.InvocationPath, bytes.NewReader(event))
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("X-Esb-Container-Id", w.ID)
	text, err := traffic.Write(r)
	if err != nil {
		return nil, nil, err
	}
	line, err := traffic.Open(ctx, (&net.Dialer{}).DialContext, w.Addr)
	return line, text, err
}

// invoke sends a worker one event.
func invoke(ctx context.Context, w baseline.Worker) error {
	line, text, err := straight(ctx, w)
	if err != nil {
		return err
	}
	defer func() { _ = line.Close() }()
	status, answer, err := line.Ask(text)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("worker %s answered %d %.200q", w.ID, status, answer)
	}
	if err == nil {
		_, err = instance(answer)
	}
	return err
}

// process is process 1 of a container.
func (b *box) process(ctx context.Context, id string) (int, error) {
	container, err := b.containers.LoadContainer(ctx, id)
	if errdefs.IsNotFound(err) {
		// One that was made ahead has there the name that it had before it was a function's.
		container, err = b.containers.LoadContainer(ctx, "lambda-"+id[strings.LastIndexByte(id, '-')+1:])
	}
	if err != nil {
		return 0, fmt.Errorf("find the process of %s: %w", id, err)
	}
	task, err := container.Task(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("find the process of %s: %w", id, err)
	}
	return int(task.Pid()), nil
}

// copyBundle takes the bundle of a container that the box makes in the plain way: all that a function's container has, with the program
// that behaves as RIE does in it.
func (b *box) copyBundle(ctx context.Context) (*baseline.Runc, error) {
	w, err := b.ensure(ctx, "bench-bundle", true)
	if err != nil {
		return nil, err
	}
	running := filepath.Join(b.runDir(), "state", "io.containerd.runtime.v2.task", "esb-runtime", w.ID)
	r, err := baseline.CopyBundle(ctx, filepath.Join(b.BinDir, "runc"), running)
	return r, errors.Join(err, b.destroy(ctx, w))
}

// pool is what the gateway says of a function's workers.
type pool struct {
	Function                                        string
	Idle, Frozen, Busy, Starting, Standby, Stopping int
}

// await waits until the pool of each function satisfies a condition.
func (b *box) await(ctx context.Context, condition func(pool) bool, functions ...string) error {
	wanted := map[string]bool{}
	for _, f := range functions {
		wanted[f] = true
	}
	for began := time.Now(); ; {
		answer, err := b.Do(ctx, http.MethodGet, b.AdminURL+"/pools", "", nil)
		if err != nil {
			return err
		}
		var all struct{ Pools []pool }
		if err := json.Unmarshal(answer.Body, &all); err != nil {
			return fmt.Errorf("read the gateway's pools: %w", err)
		}
		met := 0
		for _, p := range all.Pools {
			if wanted[p.Function] && condition(p) {
				met++
			}
		}
		if met == len(wanted) {
			return nil
		}
		if time.Since(began) > waitLimit {
			return fmt.Errorf("the workers of %s are not as they should be after %s: %.1000s", strings.Join(functions, ", "), waitLimit, answer.Body)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// none is true of a function that is scaled to zero.
func none(p pool) bool { return p.Idle+p.Busy+p.Starting+p.Standby+p.Stopping == 0 }

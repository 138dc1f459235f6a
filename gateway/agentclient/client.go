// Package agentclient speaks to the esb agent. It is the only package of the gateway that imports gRPC.
package agentclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/api/reason"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/edge-serverless-box/esb/guard/bearer"
	"golang.org/x/sys/unix"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Limits of one call, besides what the caller's context says.
const (
	// startTimeout leaves time for the first pull of a large image; requests wait for less (acquire_timeout).
	startTimeout  = 5 * time.Minute
	stopTimeout   = 30 * time.Second // the grace comes on top
	listTimeout   = 10 * time.Second
	healthTimeout = 3 * time.Second
	// connectTimeout is how long a start waits for an agent that is down: long enough for one that restarts.
	connectTimeout = time.Second
	// metricsAtOnce bounds the questions to the agent when all containers are asked for.
	metricsAtOnce = 8
)

// Client is a connection to the agent. It connects when it is first used and again whenever the connection is
// lost. It is safe for use by many goroutines.
type Client struct {
	addr   string
	conn   *grpc.ClientConn
	agent  agentv1.AgentServiceClient
	health healthv1.HealthClient
	// workers asks workers for their state: directly, whatever proxy the environment names, and not on the one connection
	// that is for invocations.
	workers *http.Transport
	// env is what containers get over their function's environment; nil for nothing.
	env func(function string) map[string]string
	// owner is whose the containers are.
	owner string
	// notes are those of the agent's last list.
	notes atomic.Pointer[[]string]
}

var (
	_ pool.Provisioner = (*Client)(nil)
	_ pool.Freezer     = (*Client)(nil)
	_ pool.Watcher     = (*Client)(nil)
)

type options struct {
	tls    *tls.Config
	token  bearer.File
	dialer func(context.Context, string) (net.Conn, error)
	env    func(function string) map[string]string
	owner  string
}

// Option changes how Dial connects.
type Option func(*options) error

// WithMutualTLS encrypts the connection: the gateway shows the certificate of certFile and keyFile, and the agent's
// must be signed by one of caFile. All three are PEM files. An address that is not loopback needs it.
func WithMutualTLS(certFile, keyFile, caFile string) Option {
	return func(o *options) error {
		cert, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return fmt.Errorf("reading the gateway's certificate %s and key %s: %w", certFile, keyFile, err)
		}
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return fmt.Errorf("reading the agent's CA: %w", err)
		}
		ca := x509.NewCertPool()
		if !ca.AppendCertsFromPEM(pem) {
			return fmt.Errorf("reading the agent's CA: %s holds no PEM certificate", caFile)
		}
		o.tls = &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: ca, MinVersion: tls.VersionTLS13}
		return nil
	}
}

// WithTokenFile sends the token of a file with each call, as the agent asks for on TCP without mutual TLS.
func WithTokenFile(file string) Option {
	return func(o *options) error {
		o.token = bearer.File(file)
		return nil
	}
}

// WithDialer replaces the TCP connection, for instance by an in-process one.
func WithDialer(dial func(ctx context.Context, addr string) (net.Conn, error)) Option {
	return func(o *options) error {
		o.dialer = dial
		return nil
	}
}

// WithEnvironment gives every container variables of its function's over those that functions.yml says.
func WithEnvironment(env func(function string) map[string]string) Option {
	return func(o *options) error {
		o.env = env
		return nil
	}
}

// Dial returns a client of the agent at addr, host:port or unix:<path>. It does not wait for the agent to be there.
func Dial(addr string, opts ...Option) (*Client, error) {
	var o options
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, fmt.Errorf("agent at %s: %w", addr, err)
		}
	}
	target, creds := addr, insecure.NewCredentials()
	if !strings.HasPrefix(addr, "unix:") {
		target = "passthrough:///" + addr
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("agent address %q: must be host:port: %w", addr, err)
		}
		if o.tls != nil {
			creds = credentials.NewTLS(o.tls)
		} else if ip := net.ParseIP(host); o.dialer == nil && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return nil, fmt.Errorf("agent address %s is not loopback: set the certificate, key and CA of mutual TLS, or use 127.0.0.1", addr)
		}
	}
	dial := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		// An agent that restarts is back within a second or two: no longer pauses between attempts than that.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: 3 * time.Second,
		}),
		// Only while a call runs: an agent that hangs is noticed by the heartbeat otherwise.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 5 * time.Minute, Timeout: 10 * time.Second}),
		grpc.WithDisableServiceConfig(),
		// The agent is of this box: no proxy is between.
		grpc.WithNoProxy(),
	}
	if o.dialer != nil {
		dial = append(dial, grpc.WithContextDialer(o.dialer))
	}
	if o.token != "" {
		dial = append(dial, grpc.WithPerRPCCredentials(o.token))
	}
	conn, err := grpc.NewClient(target, dial...)
	if err != nil {
		return nil, fmt.Errorf("agent at %s: %w", addr, err)
	}
	return &Client{addr: addr, conn: conn, agent: agentv1.NewAgentServiceClient(conn), health: healthv1.NewHealthClient(conn),
		workers: &http.Transport{DisableKeepAlives: true}, env: o.env, owner: o.owner}, nil
}

// Close ends the connection; calls that run fail.
func (c *Client) Close() error {
	if err := c.conn.Close(); err != nil {
		return fmt.Errorf("closing the connection to the agent: %w", err)
	}
	return nil
}

// Health asks whether the agent serves; the answer is nil when it does.
func (c *Client) Health(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	res, err := c.health.Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		return c.toError(err, "health check")
	}
	if res.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		return gateway.Errorf(gateway.CodeUnavailable, "agent at %s: not serving: %s", c.addr, res.GetStatus())
	}
	return nil
}

func (c *Client) environment(fn *gateway.Function) map[string]string {
	logging := fn.Logging.Environment()
	if c.env == nil && logging == nil {
		return fn.Environment
	}
	env := make(map[string]string, len(fn.Environment)+len(logging)+3)
	maps.Copy(env, fn.Environment)
	maps.Copy(env, logging)
	if c.env != nil {
		maps.Copy(env, c.env(fn.Name))
	}
	return env
}

// Start implements pool.Provisioner.
func (c *Client) Start(ctx context.Context, fn *gateway.Function, standby bool, requestID string) (gateway.Worker, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := c.awaitConnection(ctx); err != nil {
		return gateway.Worker{}, err
	}
	request := &agentv1.EnsureContainerRequest{
		FunctionName:       fn.Name,
		Image:              fn.Image,
		Env:                c.environment(fn),
		MemorySizeMb:       uint32(fn.MemoryMB),
		TimeoutSeconds:     uint32(math.Ceil(fn.Timeout.Seconds())),
		RuntimeInterface:   runtimeInterface(fn.Interface),
		PullPolicy:         pullPolicy(fn.PullPolicy),
		Generation:         c.generation(fn.Name, fn.Generation),
		Owner:              c.owner,
		EphemeralStorageMb: uint32(fn.EphemeralStorageMB),
		Standby:            standby,
		Entrypoint:         fn.Entrypoint,
		Command:            fn.Command,
		WorkingDirectory:   fn.WorkingDirectory,
		RequestId:          requestID,
	}
	if err := addCode(request, fn.Code); err != nil {
		return gateway.Worker{}, err
	}
	info, err := c.agent.EnsureContainer(ctx, request)
	if err != nil {
		return gateway.Worker{}, c.toError(err, "starting a container of "+fn.Name)
	}
	if info.GetId() == "" || net.ParseIP(info.GetIpAddress()) == nil || info.GetPort() == 0 || info.GetPort() > math.MaxUint16 {
		return gateway.Worker{}, gateway.Errorf(gateway.CodeUnavailable, "agent at %s: starting a container of %s: answer without id or address: id %q, address %q, port %d",
			c.addr, fn.Name, info.GetId(), info.GetIpAddress(), info.GetPort())
	}
	return gateway.Worker{
		ID:          info.GetId(),
		Name:        info.GetName(),
		Addr:        net.JoinHostPort(info.GetIpAddress(), strconv.FormatUint(uint64(info.GetPort()), 10)),
		Function:    fn.Name,
		Generation:  fn.Generation,
		ImageDigest: info.GetImageDigest(),
		Interface:   fn.Interface,
		Standby:     standby,
		CreatedAt:   time.Now(),
	}, nil
}

// Freeze implements pool.Freezer: it asks lambda-init whether the worker has nothing to do, and then the agent to freeze it.
func (c *Client) Freeze(ctx context.Context, w gateway.Worker) (thaw func() error, err error) {
	if w.Interface != gateway.RIE {
		is, err := c.workerState(ctx, w, flushedPath)
		if err != nil {
			return nil, gateway.Errorf(gateway.CodeUnavailable, "asking worker %s at %s for its state: %w", w.Name, w.Addr, fmt.Errorf("%w: %w", pool.ErrNoAnswer, err))
		}
		// On standby no process runs: it ended by itself, and nothing could start one but a request.
		if is.State != "idle" && is.State != "standby" {
			return nil, pool.ErrWorking
		}
	}
	if !c.connected(ctx) {
		return nil, gateway.Errorf(gateway.CodeUnavailable, "agent at %s: freezing container %s: %w", c.addr, w.ID, pool.ErrNotAsked)
	}
	res, err := c.agent.PauseContainer(ctx, &agentv1.PauseContainerRequest{ContainerId: w.ID})
	if err != nil {
		return nil, c.toError(err, "freezing container "+w.ID)
	}
	return thawBy(res.GetThawFile(), res.GetThawText()), nil
}

// thawBy thaws a container by a file of the kernel's, nil when this process cannot: the file may be one of another machine, or out of
// sight of this one's container.
func thawBy(file, text string) func() error {
	if file == "" || unix.Access(file, unix.W_OK) != nil {
		return nil
	}
	return func() error {
		// Not by package os, which would have the poller watch the file.
		fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err // a container that is gone has none
		}
		_, err = unix.Write(fd, []byte(text))
		return errors.Join(err, unix.Close(fd))
	}
}

const (
	healthPath = "/health"
	// flushedPath answers once all log lines are written.
	flushedPath = healthPath + "?flush=1"
)

// health is what lambda-init says of itself (docs/lambda-init.md).
type health struct {
	State string `json:"state"`
	Init  string `json:"init"`
	// status is that of the answer.
	status int
}

// initTimedOut is Init of one whose init at start was over its limit.
const initTimedOut = "timeout"

// workerState is what lambda-init says at path.
func (c *Client) workerState(ctx context.Context, w gateway.Worker, path string) (is health, _ error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+w.Addr+path, nil)
	if err != nil {
		return is, err
	}
	r.Header.Set("X-Esb-Container-Id", w.ID)
	res, err := c.workers.RoundTrip(r)
	if err != nil {
		return is, err
	}
	defer func() { _ = res.Body.Close() }()
	is.status = res.StatusCode
	if res.StatusCode == http.StatusMisdirectedRequest {
		return is, errors.New("it is gone, and its address is another container's")
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<10)).Decode(&is); err != nil {
		return is, fmt.Errorf("status %d: %w", res.StatusCode, err)
	}
	return is, nil
}

// Thaw implements pool.Freezer.
func (c *Client) Thaw(ctx context.Context, workerID string) error {
	if err := c.awaitConnection(ctx); err != nil {
		return err
	}
	if _, err := c.agent.ResumeContainer(ctx, &agentv1.ResumeContainerRequest{ContainerId: workerID}); err != nil {
		return c.toError(err, "thawing container "+workerID)
	}
	return nil
}

// addCode says which code a function has, when that is not in its image.
func addCode(r *agentv1.EnsureContainerRequest, code *gateway.FunctionCode) error {
	if code == nil {
		return nil
	}
	for _, s := range append([]gateway.CodeSource{code.Source}, code.Layers...) {
		if s.Version != "" {
			continue
		}
		err := gateway.Errorf(gateway.CodeUnavailable, "function %s: its code at %s has not been looked at yet", r.GetFunctionName(), s.Location)
		if s.Problem != "" {
			err = gateway.Errorf(gateway.CodeUnavailable, "function %s: its code at %s cannot be looked at (%s); `esb status` says why", r.GetFunctionName(), s.Location, s.Problem)
			err.Reason, err.Permanent = s.Problem, s.Problem.Permanent()
		}
		err.NotTried = true
		return err
	}
	r.Code = &agentv1.CodeSource{Location: code.Source.Location, Version: code.Source.Version}
	for _, l := range code.Layers {
		r.Layers = append(r.Layers, &agentv1.CodeSource{Location: l.Location, Version: l.Version})
	}
	r.Runtime, r.RuntimeBase, r.Handler = code.Runtime, code.Base, code.Handler
	return nil
}

// Stop implements pool.Provisioner.
func (c *Client) Stop(ctx context.Context, workerID string, grace time.Duration, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, grace+stopTimeout)
	defer cancel()
	_, err := c.agent.DestroyContainer(ctx, &agentv1.DestroyContainerRequest{
		ContainerId:  workerID,
		GraceSeconds: uint32(math.Ceil(grace.Seconds())),
		Reason:       reason,
	})
	if err != nil && status.Code(err) != codes.NotFound {
		return c.toError(err, "destroying container "+workerID)
	}
	return nil
}

// List implements pool.Provisioner.
func (c *Client) List(ctx context.Context) ([]pool.Observed, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	res, err := c.agent.ListContainers(ctx, &agentv1.ListContainersRequest{Owner: c.owner})
	if err != nil {
		return nil, c.toError(err, "listing containers")
	}
	notes := res.GetNotes()
	c.notes.Store(&notes)
	list := make([]pool.Observed, 0, len(res.GetContainers()))
	for _, i := range res.GetContainers() {
		list = append(list, c.observed(i))
	}
	return list, nil
}

// Notes are what the agent says to its operator, one sentence each, as of the last List.
func (c *Client) Notes() []string {
	if notes := c.notes.Load(); notes != nil {
		return *notes
	}
	return nil
}

// Containers lists all function containers with what they use, sorted by name. One that ends meanwhile is left out.
func (c *Client) Containers(ctx context.Context) ([]gateway.Container, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	res, err := c.agent.ListContainers(ctx, &agentv1.ListContainersRequest{})
	if err != nil {
		return nil, c.toError(err, "listing containers")
	}
	infos := res.GetContainers()
	found := make([]*gateway.Container, len(infos))
	errs := make([]error, len(infos))
	var wg sync.WaitGroup
	slots := make(chan struct{}, metricsAtOnce)
	for i, info := range infos {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			found[i], errs[i] = c.container(ctx, info)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, c.toError(err, "reading the metrics of containers")
	}
	containers := make([]gateway.Container, 0, len(found))
	for _, f := range found {
		if f != nil {
			containers = append(containers, *f)
		}
	}
	slices.SortFunc(containers, func(a, b gateway.Container) int { return strings.Compare(a.Name, b.Name) })
	return containers, nil
}

// container returns nil when the container is gone.
func (c *Client) container(ctx context.Context, info *agentv1.ContainerInfo) (*gateway.Container, error) {
	m, err := c.agent.GetContainerMetrics(ctx, &agentv1.GetContainerMetricsRequest{ContainerId: info.GetContainerId()})
	if status.Code(err) == codes.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &gateway.Container{
		ID:               info.GetContainerId(),
		Name:             info.GetContainerName(),
		Function:         info.GetFunctionName(),
		State:            m.GetStatus().String(),
		CreatedAt:        info.GetCreatedAt().AsTime(),
		MemoryCurrent:    m.GetMemoryCurrentBytes(),
		MemoryPeak:       m.GetMemoryPeakBytes(),
		MemoryLimit:      m.GetMemoryLimitBytes(),
		CPU:              time.Duration(min(m.GetCpuUsageNanoseconds(), math.MaxInt64)),
		ThrottledPeriods: m.GetCpuThrottledPeriods(),
		OOMKills:         m.GetOomKills(),
		Processes:        m.GetPidsCurrent(),
	}, nil
}

// awaitConnection waits for a connection for at most connectTimeout, so that a start rides out a restart of the
// agent but is told soon of one that is down.
func (c *Client) awaitConnection(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	for {
		state := c.conn.GetState()
		if state == connectivity.Ready {
			return nil
		}
		c.conn.Connect()
		if !c.conn.WaitForStateChange(ctx, state) {
			err := gateway.Errorf(gateway.CodeUnavailable, "agent at %s: no connection (%s): is the agent running?", c.addr, state)
			err.Reason = reason.AgentAway
			return err
		}
	}
}

// connected says whether there is a connection, and waits for one only while it is being made.
func (c *Client) connected(ctx context.Context) bool {
	for {
		switch state := c.conn.GetState(); state {
		case connectivity.Ready:
			return true
		case connectivity.Idle, connectivity.Connecting:
			c.conn.Connect()
			if !c.conn.WaitForStateChange(ctx, state) {
				return false
			}
		default:
			return false
		}
	}
}

// toError makes the gateway's error of a gRPC status: the only place that knows both.
func (c *Client) toError(err error, doing string) error {
	st := status.Convert(err)
	e := gateway.Errorf(gateway.CodeUnavailable, "agent at %s: %s: %s (%s)", c.addr, doing, st.Message(), st.Code())
	e.Reason = reasonOf(st)
	switch st.Code() {
	case codes.FailedPrecondition, codes.InvalidArgument:
		// A registry that is away, for one, is no reason to give the function up.
		e.Permanent = e.Reason == "" || e.Reason.Permanent()
	case codes.Canceled:
		e.Code = gateway.CodeCanceled
	default: // every other one may pass
	}
	return e
}

// reasonOf is what the agent says of the cause, else what follows from the status.
func reasonOf(st *status.Status) reason.Reason {
	for _, detail := range st.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.GetDomain() == reason.Domain {
			if r := reason.Reason(info.GetReason()); r.Text() != "" {
				return r
			}
		}
	}
	switch st.Code() {
	case codes.InvalidArgument:
		return reason.Configuration
	case codes.Unavailable:
		return reason.AgentAway
	case codes.ResourceExhausted:
		return reason.Exhausted
	case codes.DeadlineExceeded:
		return reason.Slow
	default:
		return ""
	}
}

func runtimeInterface(i gateway.RuntimeInterface) agentv1.RuntimeInterface {
	if i == gateway.RIE {
		return agentv1.RuntimeInterface_RUNTIME_INTERFACE_RIE
	}
	return agentv1.RuntimeInterface_RUNTIME_INTERFACE_SUPERVISOR
}

func pullPolicy(p string) agentv1.PullPolicy {
	switch p {
	case "always":
		return agentv1.PullPolicy_PULL_POLICY_ALWAYS
	case "never":
		return agentv1.PullPolicy_PULL_POLICY_NEVER
	default:
		return agentv1.PullPolicy_PULL_POLICY_IF_NOT_PRESENT
	}
}

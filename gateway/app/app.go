// Package app wires the gateway: settings, configuration, certificate, agent, pools, invoker and HTTP front. The
// program and the end-to-end tests run the same Run.
package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edge-serverless-box/esb/gateway/adminapi"
	"github.com/edge-serverless-box/esb/gateway/agentclient"
	"github.com/edge-serverless-box/esb/gateway/async"
	"github.com/edge-serverless-box/esb/gateway/auth"
	"github.com/edge-serverless-box/esb/gateway/authorizer"
	"github.com/edge-serverless-box/esb/gateway/codewatch"
	"github.com/edge-serverless-box/esb/gateway/config"
	"github.com/edge-serverless-box/esb/gateway/cpugate"
	"github.com/edge-serverless-box/esb/gateway/devca"
	"github.com/edge-serverless-box/esb/gateway/event"
	"github.com/edge-serverless-box/esb/gateway/httpapi"
	"github.com/edge-serverless-box/esb/gateway/imagewatch"
	"github.com/edge-serverless-box/esb/gateway/internal/listener"
	"github.com/edge-serverless-box/esb/gateway/invoke"
	"github.com/edge-serverless-box/esb/gateway/lambdaapi"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/edge-serverless-box/esb/gateway/proven"
	"github.com/edge-serverless-box/esb/gateway/provision"
	"github.com/edge-serverless-box/esb/gateway/schedule"
	"github.com/edge-serverless-box/esb/gateway/settings"
	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/guard/connlimit"
	"github.com/edge-serverless-box/esb/guard/handover"
	"github.com/edge-serverless-box/esb/guard/memlimit"
	"github.com/edge-serverless-box/esb/guard/secretfile"
	"github.com/edge-serverless-box/esb/guard/settingnames"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
)

// letGoFor is how long a gateway that is replaced has clients leave their connections.
const letGoFor = 500 * time.Millisecond

// Run runs a gateway until ctx ends, then stops it gracefully and waits for everything that it started. getenv
// gives the settings; log lines go to stdout and to a file in ESB_LOG_DIR as JSON. Its error, one problem a line, is
// for a person: the caller prints it. SIGHUP reads the configuration again.
func Run(ctx context.Context, getenv func(string) string, stdout io.Writer) (err error) {
	s, err := settings.Load(getenv)
	if err != nil {
		return err
	}
	out, closeLog, err := openLog(s, stdout)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLog()) }()
	memory, err := memlimit.Apply(getenv)
	if err != nil {
		return err
	}
	for _, text := range settingnames.Strange(os.Environ()) {
		slog.New(slog.NewJSONHandler(out, nil)).Warn(text)
	}
	a, err := Open(ctx, s, memory, out)
	if err != nil {
		return err
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-hangup:
			_ = a.Reload() // logged there
		case <-ctx.Done():
			return a.Close(context.WithoutCancel(ctx))
		case <-a.offer.Asked():
			return a.HandOver(context.WithoutCancel(ctx))
		case err := <-a.http.Failed():
			return errors.Join(err, a.Close(context.WithoutCancel(ctx)))
		case err := <-a.admin.Failed():
			return errors.Join(err, a.Close(context.WithoutCancel(ctx)))
		}
	}
}

// App is a running gateway.
type App struct {
	settings settings.Settings
	log      *slog.Logger
	access   *lineBuffer
	watcher  *config.Watcher
	agent    *agentclient.Client
	pool     *pool.Manager
	proven   *proven.Store
	code     *codewatch.Watcher
	images   *imagewatch.Watcher
	cpu      *cpugate.Gate
	invoker  *invoke.Invoker
	stores   *provision.Provisioner
	async    *async.Queue
	// schedules brings events to async.
	schedules *schedule.Scheduler
	// parts are what a configuration is for, guards those of the current one that the next one may share. The watcher calls
	// apply, one call at a time, and nobody else reads them.
	parts  []part
	guards guards
	// substitutes are those of the current configuration (config.Config).
	substitutes atomic.Pointer[[]string]
	lambda      *lambdaapi.API
	// keys are the functions' own.
	keys *functionkeys.Keys
	// auth, issuers and authorizers guard routes.
	auth        *auth.Authenticator
	issuers     *auth.Issuers
	authorizers *authorizer.Authorizers
	http        *httpapi.Server
	admin       *adminapi.Server
	stopping    atomic.Bool
	// offer is for the gateway that takes the place of this one; nil where none can be made.
	offer *handover.Offer
}

// Open starts a gateway that may use so much memory. When a step fails, the earlier ones are undone.
func Open(ctx context.Context, s settings.Settings, memory memlimit.Limit, stdout io.Writer) (_ *App, err error) {
	// Both loggers write whole lines to one output.
	out := &lockedWriter{w: stdout}
	level := &slog.HandlerOptions{Level: s.LogLevel}
	a := &App{settings: s, log: slog.New(slog.NewJSONHandler(out, level)), access: newLineBuffer(out)}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.undo(context.WithoutCancel(ctx), context.WithoutCancel(ctx)))
		}
	}()

	var cfg *config.Config
	a.watcher, cfg, err = config.Open(s.FunctionsConfigPath, s.RoutingConfigPath, configOptions(s), a.log)
	if err != nil {
		return nil, err
	}
	// Everything up to here has been made sure of while the gateway before, if one runs, goes on.
	previous := predecessor(ctx, s, a.log)
	sockets := new(listener.Sockets)
	defer func() { err = errors.Join(err, previous.Close(), sockets.Close()) }()
	if err := bind(ctx, s, sockets, previous); err != nil {
		return nil, err
	}
	a.issuers = auth.OpenIssuers(auth.IssuersOptions{Dir: filepath.Join(s.Home, "jwks"), Logger: a.log})
	if a.auth, err = authenticator(s, a.issuers); err != nil {
		return nil, err
	}
	if a.keys, err = functionkeys.Open(s.FunctionKeysFile); err != nil {
		return nil, fmt.Errorf("FUNCTION_KEYS_FILE: %w", err)
	}
	// Whoever has the state of this gateway has its containers.
	owner, err := secretfile.Open(filepath.Join(s.Home, "owner"))
	if err != nil {
		return nil, fmt.Errorf("whose the containers are: %w", err)
	}
	if a.agent, err = dialAgent(s, a.keys, owner); err != nil {
		return nil, err
	}
	a.proven = proven.Open(filepath.Join(s.Home, "proven.json"), a.log)
	a.pool = pool.Open(a.agent, pool.Options{
		HeartbeatInterval:   s.HeartbeatInterval,
		OrphanGrace:         s.OrphanGracePeriod,
		MaxConcurrentStarts: s.MaxConcurrentStarts,
		MaxWaiting:          maxWaiting(s, memory),
		Freezer:             a.agent,
		Watcher:             a.agent,
		Inits:               a.agent,
		Owner:               owner,
		Proofs:              a.proven,
		Examiner:            a.agent,
		Logger:              a.log,
	})
	a.images = imagewatch.Open(imagewatch.Options{Agent: a.agent, Poll: s.ImagePoll, Logger: a.log}, a.pool.Apply)
	a.code = codewatch.Open(codewatch.Options{Poll: s.CodePoll, Objects: objects(s), Logger: a.log}, a.images.Set)
	if s.CPUTurns {
		a.cpu = cpugate.Open(a.agent, a.log)
	}
	a.invoker = invoke.New(a.pool, invoke.Options{
		BreakerFailures: s.CircuitBreakerFailures,
		BreakerOpenFor:  s.CircuitBreakerOpen,
		StreamLimit:     int64(s.StreamLimitMB) << 20,
		EndWithCaller:   !s.InvocationOutlivesClient,
		CPU:             a.cpu,
		Logger:          a.log,
	})
	events := event.NewBuilder(s.AccountID)
	buffers := budget.New(bufferBytes(s, memory))
	a.authorizers = authorizer.New(authorizer.Options{Invoker: a.invoker, Events: events, Region: s.Region, Memory: buffers, Logger: a.log})
	a.stores = provision.Open(ctx, provision.Options{S3: store(s.S3), DynamoDB: store(s.DynamoDB), Region: s.Region, Logger: a.log})
	certificate, err := openCertificate(s, a.log)
	if err != nil {
		return nil, err
	}
	adminToken, err := openAdminToken(s)
	if err != nil {
		return nil, err
	}
	if previous.Runs() {
		a.log.Info("taking the place of the gateway that runs")
		if err := previous.End(ctx); err != nil {
			return nil, err
		}
	}
	if a.async, err = openQueue(ctx, s, a.invoker, buffers, a.log); err != nil {
		return nil, err
	}
	if a.schedules, err = schedule.Open(schedule.Options{
		Path: filepath.Join(s.Home, "schedules.json"), Region: s.Region, AccountID: s.AccountID, Queue: a.async, Logger: a.log,
	}); err != nil {
		return nil, err
	}
	a.lambda = lambdaAPI(s, a.invoker, a.async, a.keys)
	registry := prometheus.NewRegistry()
	registry.MustRegister(a.pool, a.invoker, a.stores, a.async, a.watcher)
	options := httpapi.Options{
		HTTPSAddrs:  s.HTTPSAddrs,
		HTTPAddrs:   s.HTTPAddrs,
		TLS:         certificate,
		Connections: connections(s, memory),
		Memory:      buffers,
		LoginPath:   s.AuthEndpointPath,
		Auth:        a.auth,
		Events:      events,
		Invoker:     a.invoker,
		Admission:   a.pool,
		Lambda:      a.lambda,
		Containers:  a.agent.Containers,
		Sockets:     sockets,
		Registry:    registry,
		Logger:      a.log,
		AccessLog:   a.access, AccessLevel: s.LogLevel,
	}
	if a.http, err = httpapi.Open(ctx, options); err != nil {
		return nil, err
	}
	if a.admin, err = a.openAdmin(ctx, adminToken, registry, sockets); err != nil {
		return nil, err
	}
	a.parts = a.configurationParts()
	if err := a.apply(cfg); err != nil {
		if cfg, err = a.watcher.FallBack(err); err != nil {
			return nil, err
		}
		if err := a.apply(cfg); err != nil {
			return nil, err
		}
	}
	if a.offer, err = handover.Open(s.Home, a.bound, a.log); err != nil {
		// Some folders that are shared with a virtual machine hold no sockets.
		a.log.Warn("the next gateway cannot take the sockets of this one over: clients are refused between the two", "error", err.Error())
	}
	// Nothing can fail from here on.
	a.http.Serve()
	a.admin.Serve()
	a.watcher.Start(a.apply)
	a.log.Info("gateway started", "functions", len(cfg.Functions), "routes", len(cfg.Routes), "agent", s.AgentAddr,
		"memory_mb", memory.Bytes>>20, "memory_from", memory.Source, "buffer_mb", buffers.Limit()>>20, "connections", options.Connections.Total)
	return a, nil
}

func authenticator(s settings.Settings, issuers *auth.Issuers) (*auth.Authenticator, error) {
	return auth.New(auth.Options{
		Issuers:  issuers,
		APIKey:   string(s.APIKey),
		User:     s.AuthUser,
		Password: string(s.AuthPass),
		Secret:   []byte(s.JWTSecret),
		Expires:  s.JWTExpires,
		Region:   s.Region,
	})
}

// openCertificate opens what the HTTPS listeners identify themselves with, nil without such listeners.
func openCertificate(s settings.Settings, log *slog.Logger) (*tls.Config, error) {
	if len(s.HTTPSAddrs) == 0 {
		return nil, nil
	}
	source, err := devca.Open(devca.Options{
		CertFile: s.TLSCertFile,
		KeyFile:  s.TLSKeyFile,
		Dir:      filepath.Join(s.Home, "tls"),
		Hosts:    append(devca.Hosts(s.HTTPSAddrs), s.BoxAddr().String()),
		Logger:   log,
	})
	if err != nil {
		return nil, err
	}
	return source.TLSConfig(), nil
}

// predecessor is the gateway that this one takes the place of: one that runs, or has left its sockets; nil for none.
func predecessor(ctx context.Context, s settings.Settings, log *slog.Logger) (previous *handover.Predecessor) {
	var err error
	if s.Replaces {
		if previous, err = handover.Ask(ctx, s.Home); err != nil {
			log.Warn("the sockets of the gateway that runs are not taken over", "error", err.Error())
		}
	} else if previous, err = handover.Inherited(s.Sockets); err != nil {
		log.Warn("the sockets of the gateway before are not taken over", "error", err.Error())
	}
	return previous
}

// bind binds all addresses, so that one that is in use is known before anything else has begun, and before the gateway that runs ends.
func bind(ctx context.Context, s settings.Settings, sockets *listener.Sockets, previous *handover.Predecessor) error {
	err := sockets.Bind(ctx, "GATEWAY_HTTPS_ADDR", s.HTTPSAddrs, previous.Socket)
	if err == nil {
		err = sockets.Bind(ctx, "GATEWAY_HTTP_ADDR", s.HTTPAddrs, previous.Socket)
	}
	if err == nil && s.AdminAddr != "" {
		err = sockets.Bind(ctx, "GATEWAY_ADMIN_ADDR", []string{s.AdminAddr}, previous.Socket)
	}
	return err
}

// bound are all sockets that are listened on.
func (a *App) bound() map[string]net.Listener {
	all := a.http.Bound()
	maps.Copy(all, a.admin.Bound())
	return all
}

// bufferBytes is how much bodies, events and answers may hold.
func bufferBytes(s settings.Settings, memory memlimit.Limit) int64 {
	if s.BufferMB > 0 {
		return int64(s.BufferMB) << 20
	}
	return memory.Budget(0.4, 1<<30)
}

// maxWaiting is how many requests may wait for workers.
func maxWaiting(s settings.Settings, memory memlimit.Limit) int {
	if s.MaxWaiting > 0 {
		return s.MaxWaiting
	}
	return max(1, int(min(pool.DefaultMaxWaiting, memory.Bytes>>18)))
}

// connections are the bounds of clients' connections.
func connections(s settings.Settings, memory memlimit.Limit) connlimit.Bounds {
	b := connlimit.Defaults(memory.Bytes, s.Subnet)
	if s.MaxConnections > 0 {
		b = connlimit.Split(s.MaxConnections, s.Subnet)
	}
	if s.MaxConnectionsPerAddress > 0 {
		b.PerAddress = s.MaxConnectionsPerAddress
	}
	if n := s.MaxFunctionConnections; n > 0 {
		b.Networks[0].Total, b.Networks[0].PerAddress = n, max(n/8, 1)
	}
	return b
}

// lambdaAPI makes the data plane of Lambda's API.
func lambdaAPI(s settings.Settings, invoker *invoke.Invoker, queue *async.Queue, keys *functionkeys.Keys) *lambdaapi.API {
	access := make(map[string]string, len(s.LambdaAccessKeys))
	for id, secret := range s.LambdaAccessKeys {
		access[id] = string(secret)
	}
	return lambdaapi.New(lambdaapi.Options{
		Invoker: invoker, Streamer: invoker, Queue: queue, AccessKeys: access, FunctionKeys: keys, Region: s.Region, Account: s.AccountID,
	})
}

func store(s settings.Store) provision.Store {
	return provision.Store{Endpoint: s.Endpoint, AccessKey: s.AccessKey, SecretKey: string(s.SecretKey)}
}

// objects is where function code at s3:// locations is, nil without an S3 store.
func objects(s settings.Settings) codewatch.Objects {
	if s.S3.Endpoint == "" {
		return nil
	}
	return codewatch.NewS3(s.S3.Endpoint, s.Region, s.S3.AccessKey, string(s.S3.SecretKey))
}

// openQueue opens the queue of asynchronous invocations.
func openQueue(ctx context.Context, s settings.Settings, invoker *invoke.Invoker, memory *budget.Budget, log *slog.Logger) (*async.Queue, error) {
	options := async.Options{
		Dir: filepath.Join(s.Home, "async"),
		URL: string(s.Async.NATSURL), CredentialsFile: s.Async.NATSCredentials,
		CAFile: s.Async.NATSTLS.CAFile, CertFile: s.Async.NATSTLS.CertFile, KeyFile: s.Async.NATSTLS.KeyFile,
		Replicas: s.Async.NATSReplicas, Prefix: s.Async.NATSPrefix,
		MaxBytes: int64(s.Async.MaxMB) << 20, DeadMaxBytes: int64(s.Async.DeadLetterMaxMB) << 20,
		DeadRetention: s.Async.DeadLetterRetention, RetryBase: s.Async.RetryBase,
		Region: s.Region, AccountID: s.AccountID,
		Invoker: invoker, Memory: memory, Logger: log,
	}
	if s.S3.Endpoint != "" {
		options.Objects = async.NewS3(s.S3.Endpoint, s.Region, s.S3.AccessKey, string(s.S3.SecretKey))
	}
	q, err := async.Open(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("open the queue of asynchronous invocations: %w", err)
	}
	return q, nil
}

func dialAgent(s settings.Settings, keys *functionkeys.Keys, owner string) (*agentclient.Client, error) {
	options := []agentclient.Option{agentclient.WithOwner(owner)}
	if s.FunctionKeys {
		options = append(options, agentclient.WithEnvironment(func(function string) map[string]string {
			key := keys.Of(function)
			return map[string]string{
				"AWS_ACCESS_KEY_ID": key.AccessKeyID, "AWS_SECRET_ACCESS_KEY": key.SecretAccessKey, "AWS_SESSION_TOKEN": key.SessionToken,
			}
		}))
	}
	setting, addr := "AGENT_GRPC_ADDR", s.AgentAddr
	switch {
	case s.AgentSocket != "":
		setting, addr = "AGENT_SOCKET", "unix:"+s.AgentSocket
	case s.AgentTLS.Enabled():
		options = append(options, agentclient.WithMutualTLS(s.AgentTLS.CertFile, s.AgentTLS.KeyFile, s.AgentTLS.CAFile))
	default:
		options = append(options, agentclient.WithTokenFile(s.AgentTokenFile))
	}
	client, err := agentclient.Dial(addr, options...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setting, err)
	}
	return client, nil
}

// Reload reads the configuration again. When it is refused, the old one stays.
func (a *App) Reload() error { return a.watcher.Reload() }

// Addrs returns the bound addresses for "https", "http" or "admin".
func (a *App) Addrs(scheme string) []net.Addr {
	if scheme == "admin" {
		return a.admin.Addrs()
	}
	return a.http.Addrs(scheme)
}

// HandOver is Close for a gateway whose sockets the next one has: clients, which are served for a moment more, make new connections
// meanwhile. Those that come later wait for the next gateway.
func (a *App) HandOver(ctx context.Context) error {
	a.stopping.Store(true)
	a.log.Info("another gateway takes the place of this one")
	a.http.LetGo(ctx, letGoFor)
	return a.Close(ctx)
}

// Close stops the gateway: no more requests are accepted and no more events begin, those in flight have
// SHUTDOWN_GRACE_SECONDS together, then events go back to the queue. It returns when everything has ended but the workers, which the next gateway of
// this state adopts.
func (a *App) Close(ctx context.Context) error {
	a.stopping.Store(true)
	a.log.Info("gateway stops", "grace_s", a.settings.ShutdownGrace.Seconds())
	grace, cancel := context.WithTimeout(ctx, a.settings.ShutdownGrace)
	defer cancel()
	err := a.schedules.Close()
	a.async.Quiesce()
	// The admin listener goes last, so that readiness and metrics show the stop.
	if broken := errors.Join(a.http.Shutdown(grace), a.admin.Shutdown(grace)); broken != nil {
		a.log.Warn("requests in flight were broken at the stop", "error", broken.Error())
	}
	// After the requests, which may have brought the last events. Functions whose clients have left have what is left of the
	// grace.
	err = errors.Join(err, a.async.Close(grace), a.undo(ctx, grace))
	a.log.Info("gateway stopped")
	return err
}

// undo closes what Open has made so far, in the opposite order. What functions still do has until grace ends.
func (a *App) undo(ctx, grace context.Context) error {
	var errs []error
	// The listeners are closed already but when Open failed.
	if a.admin != nil {
		errs = append(errs, a.admin.Close())
	}
	if a.http != nil {
		errs = append(errs, a.http.Close())
	}
	if a.watcher != nil {
		errs = append(errs, a.watcher.Close())
	}
	if a.code != nil {
		errs = append(errs, a.code.Close())
	}
	if a.images != nil {
		errs = append(errs, a.images.Close())
	}
	if a.schedules != nil {
		// Before the queue, to which it brings events; closed already but when Open failed.
		errs = append(errs, a.schedules.Close())
	}
	if a.async != nil {
		// Closed already but when Open failed, and then nothing is in flight.
		errs = append(errs, a.async.Close(ctx))
	}
	if a.stores != nil {
		a.stores.Close()
	}
	if a.authorizers != nil {
		a.authorizers.Close()
	}
	if a.issuers != nil {
		a.issuers.Close()
	}
	if a.pool != nil {
		errs = append(errs, a.pool.Close(grace))
	}
	if a.proven != nil {
		errs = append(errs, a.proven.Close())
	}
	if a.invoker != nil {
		a.invoker.Wait()
	}
	if a.cpu != nil {
		a.cpu.Close()
	}
	if a.agent != nil {
		errs = append(errs, a.agent.Close())
	}
	if a.offer != nil {
		// Nothing of the state is in use any more.
		errs = append(errs, a.offer.Close())
	}
	errs = append(errs, a.access.Close())
	return errors.Join(errs...)
}

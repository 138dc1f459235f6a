// Package app puts the stores together: their processes, and the listeners in front of them.
package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/edge-serverless-box/esb/guard/budget"
	"github.com/edge-serverless-box/esb/guard/connlimit"
	"github.com/edge-serverless-box/esb/guard/handover"
	"github.com/edge-serverless-box/esb/guard/listen"
	"github.com/edge-serverless-box/esb/guard/secretfile"
	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
	"github.com/edge-serverless-box/esb/stores"
	"github.com/edge-serverless-box/esb/stores/basicauth"
	"github.com/edge-serverless-box/esb/stores/child"
	"github.com/edge-serverless-box/esb/stores/confine"
	"github.com/edge-serverless-box/esb/stores/dynamofront"
	"github.com/edge-serverless-box/esb/stores/front"
	"github.com/edge-serverless-box/esb/stores/lifecycle"
	"github.com/edge-serverless-box/esb/stores/logfront"
	"github.com/edge-serverless-box/esb/stores/logroom"
	"github.com/edge-serverless-box/esb/stores/registryfront"
	"github.com/edge-serverless-box/esb/stores/relay"
	"github.com/edge-serverless-box/esb/stores/s3front"
	"github.com/edge-serverless-box/esb/stores/server"
	"github.com/edge-serverless-box/esb/stores/settings"
	"github.com/edge-serverless-box/esb/stores/ttl"
)

// logsPasswordVariable is where VictoriaLogs finds the password that it asks its front for.
const logsPasswordVariable = "ESB_STORE_PASSWORD"

// Run starts the stores which that have an address, serves until ctx ends, and stops them again in the opposite order.
// ready, when not nil, is called with the process of each store once all of them serve, or could not be started. One that cannot
// be started is tried again, and does not keep the others from serving; Run fails when that is all of them.
func Run(ctx context.Context, s settings.Settings, log *slog.Logger, which []stores.Store, ready func(pids func() map[stores.Store]int)) (err error) {
	which = slices.DeleteFunc(slices.Clone(which), func(store stores.Store) bool { return len(s.Addrs(store)) == 0 })
	if len(which) == 0 {
		return errors.New("every store is off: S3_ADDR, DYNAMODB_ADDR, VICTORIALOGS_ADDR, REGISTRY_ADDR")
	}
	// Before any process is started, which is not to have them.
	previous, err := handover.Inherited(s.Sockets)
	if err != nil {
		log.Warn("the sockets of the stores before are not taken over", "error", err)
	}
	defer func() { err = errors.Join(err, previous.Close()) }()
	running := make([]*store, len(which))
	var offer *handover.Offer
	defer func() {
		err = errors.Join(err, closeAll(running))
		log.Info("stores have stopped")
		if offer != nil {
			err = errors.Join(err, offer.Close()) // nothing of the data is in use any more
		}
	}()
	// Addresses first: one that is taken is known before anything has been started.
	held, err := front.Budget(os.Getenv, log)
	if err != nil {
		return err
	}
	functions := front.Callers{
		Secret: front.NewKeyFile(s.FunctionKeysFile, log).Secret, Rights: functionaccess.NewFile(s.FunctionAccessFile, log).Rights,
		WellKnown: setting.StoreSecretKey, Network: s.Subnet, Box: s.BoxAddr(),
	}
	confined := true
	if err := confine.Check(ctx); err != nil {
		confined = false
		log.Warn("the ports of the stores' own processes are open to all programs of this machine, or of this container: they get no network namespace", "error", err)
	}
	if s.Replaces {
		if previous, err = handover.Ask(ctx, s.DataDir); err != nil {
			log.Warn("the sockets of the stores that run are not taken over", "error", err)
		}
	}
	for i, name := range which {
		r := &store{name: name, settings: s, log: log, functions: functions, held: held, confined: confined}
		running[i] = r
		err := r.listen(ctx, previous.Socket)
		if previous.Runs() && errors.Is(err, syscall.EADDRINUSE) {
			// Those that run may have it under another name, as 127.0.0.1 is part of 0.0.0.0: it is free when they have ended.
			log.Info("waiting for the end of the stores that run, for an address", "reason", err.Error())
			if err = previous.End(ctx); err == nil {
				previous = nil
				err = r.listen(ctx, previous.Socket)
			}
		}
		if err != nil {
			return err
		}
	}
	if previous.Runs() {
		log.Info("taking the place of the stores that run")
		if err := previous.End(ctx); err != nil {
			return err
		}
	}
	if offer, err = openOffer(s.DataDir, running, log); err != nil {
		// Some folders that are shared with a virtual machine hold no sockets.
		log.Warn("those who take the place of these stores cannot take their sockets over: clients are refused between the two", "error", err)
	}
	if err := startAll(ctx, running, log); err != nil {
		return err
	}
	if ready != nil {
		ready(func() map[stores.Store]int {
			pids := map[stores.Store]int{}
			for _, r := range running {
				pids[r.name] = r.process.PID()
			}
			return pids
		})
	}
	select {
	case <-ctx.Done():
		log.Info("stores are stopping")
	case <-offer.Asked():
		log.Info("others take the place of these stores")
		letGo(ctx, running)
	}
	return nil
}

// letGoFor is how long stores that are replaced have clients leave their connections.
const letGoFor = 500 * time.Millisecond

// letGo has clients make new connections, for a moment in which they are served on.
func letGo(ctx context.Context, running []*store) {
	for _, r := range running {
		for _, f := range r.fronts {
			f.LetGo()
		}
	}
	serving, cancel := context.WithTimeout(ctx, letGoFor)
	defer cancel()
	<-serving.Done()
}

// closeAll closes the stores, all at once: whoever takes their place has clients that wait.
func closeAll(running []*store) error {
	errs := make([]error, len(running))
	var closing sync.WaitGroup
	for i, r := range running {
		if r != nil {
			closing.Go(func() { errs[i] = r.close() })
		}
	}
	closing.Wait()
	return errors.Join(errs...)
}

// openOffer offers the sockets of the stores to whoever takes their place, which is who has their data.
func openOffer(dir string, running []*store, log *slog.Logger) (*handover.Offer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the stores' data: %w", err)
	}
	return handover.Open(dir, func() map[string]net.Listener {
		all := map[string]net.Listener{}
		for _, r := range running {
			maps.Copy(all, r.bound)
		}
		return all
	}, log)
}

// startAll starts the stores and waits for them. What keeps a process from serving is most often its data, so it is no error but
// for all of them; what cannot be mended while this program runs is one.
func startAll(ctx context.Context, running []*store, log *slog.Logger) error {
	errs, ails := make([]error, len(running)), make([]error, len(running))
	var starting sync.WaitGroup
	for i, r := range running {
		starting.Go(func() {
			if errs[i] = r.start(); errs[i] == nil {
				ails[i] = r.process.First(ctx)
			}
		})
	}
	starting.Wait()
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		return err
	}
	var serving []stores.Store
	for i, r := range running {
		if ails[i] == nil {
			serving = append(serving, r.name)
			continue
		}
		log.Error("a store cannot be started and is tried again: restore its data from a backup, or move them away and it begins anew",
			"store", r.name, "data", r.data(), "log", r.output(), "error", ails[i])
	}
	if len(serving) == 0 {
		return errors.Join(ails...)
	}
	log.Info("stores are ready", "stores", fmt.Sprint(serving))
	return nil
}

// data is the folder of the store's data, output the log of its process.
func (r *store) data() string { return filepath.Join(r.settings.DataDir, string(r.name)) }

func (r *store) output() string {
	return filepath.Join(r.settings.LogDir, "store-"+string(r.name)+".log")
}

// frontOfHTTP serves clients.
type frontOfHTTP interface {
	// LetGo has clients make new connections for their next requests.
	LetGo()
	Close() error
}

// store is one store of a run.
type store struct {
	name     stores.Store
	settings settings.Settings
	log      *slog.Logger
	api, ui  []net.Listener
	// bound are the listeners by their names.
	bound   map[string]net.Listener
	process *child.Child
	// fronts serve clients of HTTP.
	fronts []frontOfHTTP
	// rules are the lifecycle rules of S3's buckets.
	rules *lifecycle.Rules
	// room bounds what VictoriaLogs keeps.
	room *logroom.Room
	// confined: nobody but this program reaches the process.
	confined bool
	// credentials are what the fronts of VictoriaLogs and the registry ask for, inner what VictoriaLogs itself asks its front for.
	credentials, inner basicauth.Credentials
	// functions are those who may ask besides the operator; held bounds what is held for requests.
	functions front.Callers
	held      *budget.Budget
	// closers end what has been started, the last one first.
	closers []func() error
}

func (r *store) close() error {
	var errs []error
	for _, c := range slices.Backward(r.closers) {
		if err := c(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, fmt.Errorf("stop %s: %w", r.name, err))
		}
	}
	return errors.Join(errs...)
}

// listen opens the store's listeners, or takes those that are given.
func (r *store) listen(ctx context.Context, given func(name string) net.Listener) error {
	setting := map[stores.Store]string{
		stores.S3: "S3_ADDR", stores.DB: "DYNAMODB_ADDR", stores.Logs: "VICTORIALOGS_ADDR", stores.Registry: "REGISTRY_ADDR",
	}[r.name]
	var err error
	if r.api, err = listen.Given(ctx, setting, r.settings.Addrs(r.name), given); err != nil {
		return err
	}
	r.owns(setting, r.settings.Addrs(r.name), r.api)
	if r.name == stores.S3 {
		if r.ui, err = listen.Given(ctx, "S3_UI_ADDR", r.settings.S3UIAddrs, given); err != nil {
			return err
		}
		r.owns("S3_UI_ADDR", r.settings.S3UIAddrs, r.ui)
	}
	return nil
}

func (r *store) owns(setting string, addrs []string, listeners []net.Listener) {
	if r.bound == nil {
		r.bound = map[string]net.Listener{}
	}
	for i, l := range listeners {
		r.bound[listen.Name(setting, addrs[i])] = l
		r.closers = append(r.closers, l.Close)
	}
}

// serves notes who serves the store's clients.
func (r *store) serves(f frontOfHTTP) {
	r.fronts = append(r.fronts, f)
	r.closers = append(r.closers, f.Close)
}

// start begins to start the process, and serves the listeners.
func (r *store) start() error {
	cfg, err := r.config()
	if err != nil {
		return err
	}
	if r.process, err = child.Start(cfg); err != nil {
		return err
	}
	r.closers = append(r.closers, r.process.Close)
	if r.name == stores.S3 {
		if r.rules, err = lifecycle.Open(filepath.Join(cfg.Dir, "lifecycle")); err != nil {
			return err
		}
	}
	if r.name == stores.Logs {
		if r.room, err = logroom.Open(logroom.Config{Dir: cfg.Dir, MaxBytes: int64(r.settings.LogsMaxMB) << 20, Detach: r.detachDay, Logger: r.log}); err != nil {
			return err
		}
		r.closers = append(r.closers, r.room.Close)
	}
	r.serve()
	return nil
}

// serve serves the listeners.
func (r *store) serve() {
	dial := func(ctx context.Context) (net.Conn, error) { return r.process.Dial(ctx, 0) }
	few := connlimit.Bounds{Total: server.FewConns}
	switch r.name {
	case stores.Logs:
		front := logfront.Handler(logfront.Options{Credentials: r.credentials, Store: r.inner, Dial: dial, Take: r.room.Take, Logger: r.log})
		r.serves(server.Start(r.api, front, few, r.log))
	case stores.Registry:
		front := registryfront.Handler(registryfront.Options{Credentials: r.credentials, Dial: dial, Logger: r.log})
		r.serves(server.Start(r.api, front, few, r.log))
	case stores.S3:
		r.serveS3(dial)
		if len(r.ui) > 0 {
			dialUI := func(ctx context.Context) (net.Conn, error) { return r.process.Dial(ctx, 1) }
			r.closers = append(r.closers, relay.Start(r.ui, dialUI, r.log).Close)
		}
	case stores.DB:
		r.serveDynamoDB(dial)
	}
}

// callers are those who may ask a store whose key is keys.
func (r *store) callers(keys settings.Keys) front.Callers {
	c := r.functions
	c.Store = sigv4.Credentials{AccessKeyID: keys.Access, SecretAccessKey: string(keys.Secret)}
	return c
}

// serveS3 serves versitygw, which has no lifecycle rules.
func (r *store) serveS3(dial func(context.Context) (net.Conn, error)) {
	keys := r.settings.S3Keys
	r.serves(s3front.Start(r.api, s3front.Options{
		Callers: r.callers(keys), Dial: dial, Budget: r.held, Logger: r.log,
		Region: r.settings.Region, Domains: r.settings.S3Domains(), Ignorant: true, EncryptedDisk: r.settings.S3EncryptedDisk, Lifecycle: r.rules,
	}))
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	client := s3.New(s3.Options{
		Region: r.settings.Region, BaseEndpoint: aws.String("http://s3"), HTTPClient: &http.Client{Transport: transport}, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(keys.Access, string(keys.Secret), ""),
	})
	r.closers = append(r.closers, func() error { transport.CloseIdleConnections(); return nil })
	r.closers = append(r.closers, lifecycle.Start(client, r.rules, r.settings.LifecycleInterval, r.log).Close)
}

// serveDynamoDB serves dynoxide, which takes anybody's signature.
func (r *store) serveDynamoDB(dial func(context.Context) (net.Conn, error)) {
	r.serves(dynamofront.Start(r.api, dynamofront.Options{
		Callers: r.callers(r.settings.DynamoDBKeys), Dial: dial, Budget: r.held, Logger: r.log,
		// dynoxide (v1.2.1) has no setting for them.
		Names: dynamofront.Names{Region: r.settings.Region, Account: r.settings.Account, StoreRegion: "dynoxide", StoreAccount: "000000000000"},
	}))
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
	client := dynamodb.New(dynamodb.Options{
		Region: r.settings.Region, BaseEndpoint: aws.String("http://dynamodb"), HTTPClient: &http.Client{Transport: transport},
		// dynoxide wants a signature and does not check it.
		Credentials: credentials.NewStaticCredentialsProvider("sweeper", "sweeper", ""),
	})
	r.closers = append(r.closers, func() error { transport.CloseIdleConnections(); return nil })
	r.closers = append(r.closers, ttl.Start(client, r.settings.TTLInterval, r.log).Close)
}

// config says how the store's process is run.
func (r *store) config() (child.Config, error) {
	s := r.settings
	dir, health := r.data(), r.name.HealthPath()
	cfg := child.Config{
		Name: string(r.name), Ports: 1, Dir: dir, Env: environment(), Logger: r.log,
		Log:      r.output(),
		Confined: r.confined,
		Probe: func(ctx context.Context, dial func(context.Context) (net.Conn, error)) error {
			transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }}
			return ask(ctx, transport, "http://127.0.0.1"+health)
		},
	}
	env, args, err := bounds(r.name == stores.Logs)
	if err != nil {
		return cfg, err
	}
	cfg.Env = append(cfg.Env, env...)
	switch r.name {
	case stores.Logs:
		password, err := passwordOf(s.LogsPassword, s.LogsPasswordFile)
		if err != nil {
			return cfg, fmt.Errorf("VICTORIALOGS_PASSWORD_FILE: %w", err)
		}
		r.credentials = basicauth.Credentials{User: s.LogsUser, Password: password}
		r.inner = basicauth.Credentials{User: "front", Password: secretfile.Random()}
		cfg.Env = append(cfg.Env, logsPasswordVariable+"="+r.inner.Password)
		cfg.Binary = filepath.Join(s.BinDir, "victoria-logs")
		cfg.Args = func(addrs []string) []string {
			return append([]string{
				"-httpListenAddr=" + addrs[0],
				"-storageDataPath=" + dir,
				fmt.Sprintf("-retentionPeriod=%dd", s.LogsRetentionDays),
				fmt.Sprintf("-retention.maxDiskSpaceUsageBytes=%dMiB", s.LogsMaxMB),
				// What is not on disk yet is lost when the process is killed; the default would lose five times as much.
				"-inmemoryDataFlushInterval=1s",
				"-loggerFormat=json",
				"-http.disableCORS",
				// What it serves beyond queries and inserts is for nobody who finds its port. It reads the password from its
				// environment, which no other user can look at.
				"-httpAuth.username=" + r.inner.User,
				"-httpAuth.password=%{" + logsPasswordVariable + "}",
			}, args...)
		}
	case stores.S3:
		cfg.Binary = filepath.Join(s.BinDir, "versitygw")
		cfg.Env = append(cfg.Env, "S3_ACCESS_KEY="+s.S3Keys.Access, "S3_SECRET_KEY="+string(s.S3Keys.Secret))
		var endpoints []string
		for _, addr := range s.S3Addrs {
			endpoints = append(endpoints, "http://"+reachable(addr))
		}
		if len(r.ui) > 0 {
			cfg.Ports = 2
		}
		cfg.Args = func(addrs []string) []string {
			args := []string{"-addr=" + addrs[0], "-dir=" + dir, "-region=" + s.Region}
			if len(addrs) > 1 {
				args = append(args, "-ui-addr="+addrs[1], "-endpoints="+strings.Join(endpoints, ","))
			}
			return args
		}
	case stores.DB:
		if runtime.GOARCH != "amd64" {
			return cfg, fmt.Errorf("the native DynamoDB API, dynoxide, is there for amd64 only, and this machine is %s: set DYNAMODB_ADDR=off, and DYNAMODB_ENDPOINT to another one", runtime.GOARCH)
		}
		cfg.Binary = filepath.Join(s.BinDir, "dynoxide")
		cfg.Args = func(addrs []string) []string {
			host, port, _ := net.SplitHostPort(addrs[0])
			return []string{"serve", "--host", host, "--port", port, "--db-path", filepath.Join(dir, "dynamodb.sqlite")}
		}
	case stores.Registry:
		password, err := passwordOf(s.RegistryPassword, s.RegistryPasswordFile)
		if err != nil {
			return cfg, fmt.Errorf("ESB_REGISTRY_PASSWORD_FILE: %w", err)
		}
		r.credentials = basicauth.Credentials{User: s.RegistryUser, Password: password}
		// The registry itself, which asks for nothing.
		health = "/v2/"
		cfg.Binary = filepath.Join(s.BinDir, "registry")
		cfg.Args = func(addrs []string) []string { return []string{"-addr=" + addrs[0], "-dir=" + dir} }
	}
	return cfg, nil
}

// detachDay makes VictoriaLogs let go of the files of a day (https://docs.victoriametrics.com/victorialogs/#partitions-lifecycle).
func (r *store) detachDay(ctx context.Context, day string) error {
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return r.process.Dial(ctx, 0) }}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://victorialogs/internal/partition/detach?name="+day, nil)
	if err != nil {
		return err
	}
	req.SetBasicAuth(r.inner.User, r.inner.Password)
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("detach a day of logs: %w", err)
	}
	defer func() { _ = res.Body.Close() }()
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	// One that is not attached was on its way out when this program ended.
	if res.StatusCode != http.StatusOK && !strings.Contains(string(text), "isn't attached") {
		return fmt.Errorf("detach a day of logs: VictoriaLogs answered %d: %s", res.StatusCode, text)
	}
	return nil
}

// passwordOf is a password that is set, or the one of a file, which is made.
func passwordOf(set setting.Secret, file string) (string, error) {
	if set != "" {
		return string(set), nil
	}
	return secretfile.Open(file)
}

// environment is what the processes see: none of the box's settings, which may be secrets.
func environment() []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	// ESB_HOME tells whose processes they are.
	for _, name := range []string{"ESB_HOME", "HOME", "TMPDIR", "TZ"} {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// reachable is the address that a browser on this machine uses for a listener.
func reachable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Health asks the stores which that have an address, at that address, whether they work.
func Health(ctx context.Context, s settings.Settings, which []stores.Store) error {
	var errs []error
	for _, name := range which {
		if addrs := s.Addrs(name); len(addrs) > 0 {
			if err := Probe(ctx, "http://"+reachable(addrs[0])+name.HealthPath()); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Probe asks a URL once and wants the answer 200.
func Probe(ctx context.Context, url string) error {
	return ask(ctx, &http.Transport{DisableKeepAlives: true}, url)
}

func ask(ctx context.Context, transport *http.Transport, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: transport}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if res.StatusCode != http.StatusOK {
		return errors.New(url + " answered " + strconv.Itoa(res.StatusCode))
	}
	return nil
}

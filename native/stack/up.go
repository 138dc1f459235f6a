package stack

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/guard/credentials"
	"github.com/edge-serverless-box/esb/guard/handover"
	"github.com/edge-serverless-box/esb/guard/logfile"
	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/guard/settingnames"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/agentclient"
	"github.com/edge-serverless-box/esb/native/leftovers"
	"github.com/edge-serverless-box/esb/native/preflight"
	"github.com/edge-serverless-box/esb/native/process"
	"github.com/edge-serverless-box/esb/native/settings"
)

const (
	// logLimit is the size from which a service's log is moved aside at its next start.
	logLimit = 20 << 20
	// tailSize is how much of a failing service's log is shown.
	tailSize = 4 << 10
	// diskBuilt is how many bytes a box should have free for containers and logs; one that is built starts with less, as it
	// works with less. diskFresh is what must be free before the first build: for the Go build cache and images on top
	// (measured: 1.1 GB of cache, 1.4 of modules, 1.2 of programs and images).
	diskBuilt = 512 << 20
	diskFresh = 5 << 30
)

// Up starts what is not running, and starts again what runs with other binaries or settings than it would be started
// with now. When it fails, what it had started is stopped again. Unless brief, it says where the box is.
func (s *Stack) Up(ctx context.Context, brief bool) error {
	if os.Geteuid() != 0 {
		return preflight.Run(preflight.Options{})
	}
	if err := s.endTrial(); err != nil {
		return err
	}
	held, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }()
	if err := s.bring(ctx); err != nil {
		return err
	}
	if err := s.superviseRunning(); err != nil {
		return err
	}
	if !brief {
		s.hello()
		s.sayNotes(ctx)
	}
	return s.served(ctx)
}

// bring does the work of Up. Nobody watches the services afterwards, unless it fails: then those are watched that were before,
// as far as they run.
func (s *Stack) bring(ctx context.Context) error {
	if err := s.understood(); err != nil {
		return err
	}
	if err := s.unattended(); err != nil {
		return err
	}
	s.heal(ctx)
	if err := s.sameNetwork(); err != nil {
		return err
	}
	s.sayStrange()
	if err := s.console.Step("checking this machine", s.preflight); err != nil {
		return err
	}
	var st starts
	if s.layout == nil {
		if err := s.make(ctx, &st); err != nil {
			return err
		}
	} else if err := s.bringImages(ctx); err != nil {
		return err
	}
	watched, err := s.release(ctx)
	if err != nil {
		return errors.Join(err, s.takeBack(ctx, &st))
	}
	if err := s.unhealed(s.begin(ctx, &st, s.services())); err != nil {
		if watched {
			err = errors.Join(err, s.superviseRunning())
		}
		return err
	}
	return nil
}

// sayNotes prints what the agent has to say to its operator.
func (s *Stack) sayNotes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	client, err := agentclient.Dial(s.settings)
	if err != nil {
		return // it was ready a moment ago, and status says what is wrong since
	}
	defer func() { _ = client.Close() }()
	notes, _ := client.Notes(ctx)
	for _, text := range notes {
		s.console.Printf("==> note: %s", text)
	}
}

// served makes sure that the box serves what its files say now. A gateway that has just been started has read them, and serves what they
// said when they were last right where they are not.
func (s *Stack) served(ctx context.Context) error {
	if !s.gatewayFresh {
		return s.reload(ctx)
	}
	c, err := s.configuration(ctx)
	if err == nil && c.Refused {
		err = notServed(c.Problems)
	}
	return err
}

// sayStrange names variables that were meant as settings and are none, and the stores that this machine cannot have.
func (s *Stack) sayStrange() {
	for _, text := range settingnames.Strange(s.environ) {
		s.console.Printf("==> note: %s", text)
	}
	for _, store := range s.settings.NotAvailable {
		s.console.Printf("==> note: there is no store %s: %s", store.Name, store.Why)
	}
}

// sameNetwork refuses to move a stack to another network while things of the old one are there: they would be lost
// track of.
func (s *Stack) sameNetwork() error {
	record, err := Recorded(s.settings.Home)
	if err != nil || record == nil {
		return err
	}
	now := s.settings
	for name, value := range map[string]string{"ESB_BRIDGE": now.Bridge, "ESB_SUBNET": now.Subnet.String(), "ESB_RUN_DIR": now.AgentRunDir} {
		if record[name] != "" && record[name] != value {
			return &native.Problem{
				What: fmt.Sprintf("this stack (%s) is up with %s=%s, and now %s is asked for", now.Home, name, record[name], value),
				Do:   "Run `" + s.command() + " down` first, or set ESB_HOME to another folder for a second stack.",
			}
		}
	}
	return nil
}

func (s *Stack) preflight() error {
	now := s.settings
	o := preflight.Options{Home: now.Home, Network: preflight.Network{Subnet: now.Subnet, Bridge: now.Bridge}, Owns: s.owns}
	if _, err := os.Stat(filepath.Join(now.BinDir, native.Agent)); err != nil {
		o.FreeBytes = diskFresh
	} else if problem := preflight.Disk(now.Home, diskBuilt); problem != nil {
		s.console.Printf("==> warning: %v", problem)
	}
	for _, addr := range now.HTTPSAddrs {
		o.Listeners = append(o.Listeners, preflight.Listener{Addr: addr, Setting: "GATEWAY_HTTPS_ADDR"})
	}
	for _, addr := range now.HTTPAddrs {
		o.Listeners = append(o.Listeners, preflight.Listener{Addr: addr, Setting: "GATEWAY_HTTP_ADDR"})
	}
	for setting, addrs := range map[string][]string{
		"S3_ADDR": now.S3Addrs, "S3_UI_ADDR": now.S3UIAddrs, "DYNAMODB_ADDR": now.DynamoDBAddrs,
		"VICTORIALOGS_ADDR": now.LogsAddrs, "REGISTRY_ADDR": now.RegistryAddrs,
	} {
		for _, addr := range addrs {
			o.Listeners = append(o.Listeners, preflight.Listener{Addr: addr, Setting: setting})
		}
	}
	if now.FunctionLogsAddr != setting.Off {
		o.Listeners = append(o.Listeners, preflight.Listener{Addr: now.FunctionLogsAddr, Setting: "FUNCTION_LOGS_ADDR"})
	}
	o.Listeners = append(o.Listeners,
		preflight.Listener{Addr: now.AdminAddr, Setting: "GATEWAY_ADMIN_ADDR"},
		preflight.Listener{Addr: now.AgentAddr, Setting: "AGENT_GRPC_ADDR"})
	return preflight.Run(o)
}

// owns says whether a process is of this stack.
func (s *Stack) owns(pid int) bool {
	for _, service := range allServices {
		if r, err := process.Read(s.pidFile(service)); err == nil && r.PID == pid && r.Alive() {
			return true
		}
	}
	items, err := leftovers.Find(s.certain())
	return err == nil && slices.ContainsFunc(items, func(i leftovers.Item) bool { return i.Kind == leftovers.Process && i.PID == pid })
}

// lines hands whole lines to print as they come. exec.Cmd writes to it from one goroutine, because standard output
// and error are the same writer.
type lines struct {
	print func(string)
	rest  string
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.rest += string(p)
	for {
		line, rest, ok := strings.Cut(l.rest, "\n")
		if !ok {
			return len(p), nil
		}
		l.print(line)
		l.rest = rest
	}
}

// starts is what an `up` has started, and takes back when it fails.
type starts struct {
	services []string
	// begun: what follows is known. clean: before it there was nothing of this stack on the machine.
	begun, clean bool
}

// start starts all services in order.
func (s *Stack) start(ctx context.Context) error { return s.begin(ctx, &starts{}, s.services()) }

// begin starts services in order, and takes back all that this `up` has started when one does not become ready.
func (s *Stack) begin(ctx context.Context, st *starts, services []string) (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.takeBack(ctx, st))
		}
	}()
	if err := s.folders(); err != nil {
		return err
	}
	if err := s.keepSecrets(); err != nil {
		return err
	}
	if !st.begun {
		before, err := leftovers.Find(s.scope())
		if err != nil {
			return err
		}
		st.begun, st.clean = true, len(before) == 0
	}
	if err := s.writeRecord(); err != nil {
		return err
	}
	if !slices.Contains(s.services(), native.Stores) {
		// They may be up from a time when they were switched on.
		if err := s.stop(ctx, native.Stores); err != nil {
			return err
		}
	}
	for _, service := range services {
		fresh, err := s.ensure(ctx, service)
		if fresh {
			st.services = append(st.services, service)
		}
		if service == native.Gateway {
			s.gatewayFresh = fresh
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// takeBack stops what has been started, also when ctx is what has ended.
func (s *Stack) takeBack(ctx context.Context, st *starts) error {
	ctx = context.WithoutCancel(ctx)
	var errs []error
	for _, service := range slices.Backward(st.services) {
		s.console.Printf("    stopping %s again", service)
		errs = append(errs, s.stop(ctx, service))
	}
	// What was there before this `up` is not this one's to remove: containers may live without their agent.
	if slices.Contains(st.services, native.Agent) && st.clean {
		errs = append(errs, s.remove(ctx))
	}
	st.services = nil
	return errors.Join(errs...)
}

// ensure makes sure that a service runs as it should and is ready. It returns true when it has started a process.
func (s *Stack) ensure(ctx context.Context, service string) (started bool, err error) {
	user := s.user(service)
	fingerprint, err := s.fingerprint(service, user)
	if err != nil {
		return false, err
	}
	record, alive, err := s.running(service)
	if err != nil {
		return false, err
	}
	var before *process.Record
	if alive {
		reason := ""
		if record.Fingerprint != fingerprint {
			reason = "its program or settings have changed"
		} else if err := s.recovers(ctx, service); err != nil {
			reason = err.Error()
		}
		if reason == "" {
			s.console.Printf("==> %s is up already (pid %d)", service, record.PID)
			return false, nil
		}
		if service == native.Gateway {
			// A gateway that serves is not given up for one that would not start.
			if _, err := s.readFiles(ctx, "-as-reload"); err != nil {
				return false, err
			}
		}
		s.console.Printf("==> restarting %s: %s", service, reason)
		if s.replaceable(ctx, service, record, user) {
			before = &record
		} else if err := s.stop(ctx, service); err != nil {
			return false, err
		}
	}
	err = s.console.Step("starting "+service, func() error {
		var told []string
		if before != nil {
			told = append(told, replaces[service]+"=true")
		}
		child, err := s.launch(service, user, fingerprint, nil, told...)
		if err != nil {
			return err
		}
		started = true
		if before == nil {
			return s.await(ctx, service, s.settings.StartTimeout, child, func(ctx context.Context) error { return s.serves(ctx, service) })
		}
		err = s.replaced(ctx, service, *before, child)
		// What serves as before is not this `up`'s to stop.
		started = err == nil || !before.Alive()
		return err
	})
	return started, err
}

// launch starts the process of a service, which has the sockets that are held for it. It is told what is no part of its fingerprint,
// besides its environment.
func (s *Stack) launch(service string, user *process.User, fingerprint string, held *handover.Held, told ...string) (*process.Child, error) {
	if err := s.settle(service, user); err != nil {
		return nil, err
	}
	if err := logfile.Rotate(s.settings.LogFile(service), logLimit); err != nil {
		return nil, err
	}
	dir := s.settings.Root
	if user != nil {
		dir = "/" // the user may not get to the repository
	}
	names, files, err := held.Files()
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	spec := process.Spec{
		Path: filepath.Join(s.settings.BinDir, service), Dir: dir, Files: files,
		Log: s.settings.LogFile(service), PIDFile: s.pidFile(service), Fingerprint: fingerprint, User: user,
		// Not the stores: VictoriaLogs can be the largest of all, and is started again.
		Protected: service != native.Stores,
	}
	if len(files) > 0 {
		text, err := handover.Describe(spec.FirstFile(), names)
		if err != nil {
			return nil, err
		}
		told = append(told, inherits[service]+"="+text)
	}
	spec.Env = append(s.env(service), told...)
	return process.Start(spec)
}

// serves is ready, for `up`: a gateway that has nothing but too little disk space, or lacks a store whose data are damaged, serves
// what it can, and another one would do no more; and so do the other stores. `status` goes on calling them unhealthy.
func (s *Stack) serves(ctx context.Context, service string) error {
	err := s.ready(ctx, service)
	var lacks *lackError
	var missing *missingError
	switch {
	case errors.As(err, &lacks) && lacks.stores && s.early:
		return nil
	case errors.As(err, &lacks) && (!lacks.stores || s.wanting):
		s.console.Printf("==> warning: %v", lacks)
		return nil
	case errors.As(err, &missing) && missing.refused:
		if s.missingSince.IsZero() {
			s.missingSince = time.Now()
		}
		if s.wanting = time.Since(s.missingSince) >= patience; s.wanting {
			s.console.Printf("==> warning: %v", missing)
			return nil
		}
	case service == native.Stores:
		s.missingSince = time.Time{}
	}
	return err
}

// recovers waits for a running service that is not ready: what it lacks may be a service that has just been started
// again, and a restart would cost the containers that it serves with.
func (s *Stack) recovers(ctx context.Context, service string) error {
	waiting, cancel := context.WithTimeout(ctx, recoverLimit)
	defer cancel()
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		reason := s.serves(waiting, service)
		if reason == nil {
			return nil
		}
		select {
		case <-waiting.Done():
			return reason
		case <-ticker.C:
		}
	}
}

// await waits until a service is ready, as serves says, and no longer than its process lives and limit.
func (s *Stack) await(ctx context.Context, service string, limit time.Duration, child *process.Child, serves func(ctx context.Context) error) error {
	waiting, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(readyPoll)
	defer ticker.Stop()
	for {
		reason := serves(waiting)
		if reason == nil {
			return nil
		}
		if ended := child.Exited(); ended != nil {
			return s.failed(service, child, ended.Error())
		}
		select {
		case <-waiting.Done():
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("wait for %s: %w", service, err)
			}
			return s.failed(service, child, fmt.Sprintf("was not ready after %s (ESB_START_TIMEOUT_SECONDS): %v", limit, reason))
		case <-ticker.C:
		}
	}
}

func (s *Stack) failed(service string, child *process.Child, reason string) error {
	tail := child.LogTail(tailSize)
	if tail == "" {
		tail = "(it has logged nothing)"
	}
	return &native.Problem{
		What: fmt.Sprintf("%s %s. The end of its log:\n%s", service, reason, native.Indent(tail, "      ")),
		Do:   "Cure what the log names (all of it is in " + s.settings.LogFile(service) + "), and run `" + s.command() + " up` again.",
	}
}

// hello says where the box is and how to talk to it.
func (s *Stack) hello() {
	s.sayWhere()
	if len(s.secrets) > 0 {
		s.console.Printf("\nSecrets that it has made for itself, kept in %s:\n", s.settings.SecretsFile())
		for _, name := range slices.Sorted(maps.Keys(s.secrets)) {
			s.console.Printf("  %s=%s", name, s.secrets[name])
		}
	}
	s.console.Printf("\nAsk for a token, then call a function with one:\n")
	login := s.login("-k")
	s.console.Printf("  %s\n", login)
	s.console.Printf("  TOKEN=$(%s | sed 's/.*\"IdToken\":\"\\([^\"]*\\)\".*/\\1/')", s.login("-sk"))
	s.console.Printf("  curl -k -X POST %s/api/echo -H \"Authorization: Bearer $TOKEN\" -d '{\"message\":\"hello\"}'\n", s.urls()[0])
	s.console.Printf("%s status | logs | down", s.command())
}

// sayWhere says where the box is, and no secret.
func (s *Stack) sayWhere() {
	now := s.settings
	s.console.Printf("\nThe box is up.\n")
	for _, url := range s.urls() {
		s.console.Printf("  %s", url)
	}
	s.console.Printf("  http://%s  (admin: /readyz /metrics /pools, for the token in %s)", now.AdminAddr, now.AdminTokenFile())
	for _, store := range []struct {
		what  string
		addrs []string
	}{
		{"S3", now.S3Addrs}, {"S3 web UI", now.S3UIAddrs}, {"DynamoDB API", now.DynamoDBAddrs},
		{fmt.Sprintf("VictoriaLogs: /select/vmui, user %s, password in %s", now.LogsUser, now.LogsPasswordFile), now.LogsAddrs},
		{fmt.Sprintf("image registry, user %s, password in %s", now.RegistryUser, now.RegistryPasswordFile), now.RegistryAddrs},
	} {
		if len(store.addrs) > 0 {
			s.console.Printf("  http://%s  (%s)", settings.Reachable(store.addrs[0]), store.what)
		}
	}
	switch {
	case now.WellKnown:
		s.console.Printf("\nIt serves this machine alone, not even its functions, because X_API_KEY, AUTH_PASS or LAMBDA_ACCESS_KEYS is set to a value that everybody knows. Unset them: the box makes its own.")
	case !slices.ContainsFunc(slices.Concat(now.HTTPSAddrs, now.HTTPAddrs), now.Outside):
		s.console.Printf("\nIt serves this machine and its functions. GATEWAY_HTTPS_ADDR=:443 offers it to the network.")
	}
}

// login is a curl line for the auth endpoint that works as pasted. Secrets that somebody has set are not printed: the line
// takes them from the environment.
func (s *Stack) login(flags string) string {
	now := s.settings
	key := s.secrets[credentials.APIKey]
	if key == "" {
		key = "$X_API_KEY"
	}
	body := fmt.Sprintf(`'{"AuthParameters":{"USERNAME":"%s","PASSWORD":"%s"}}'`, now.User, s.secrets[credentials.Password])
	if s.secrets[credentials.Password] == "" {
		body = fmt.Sprintf(`"{\"AuthParameters\":{\"USERNAME\":\"%s\",\"PASSWORD\":\"$AUTH_PASS\"}}"`, now.User)
	}
	return fmt.Sprintf(`curl %s -X POST %s%s -H "x-api-key: %s" -d %s`, flags, s.urls()[0], now.AuthPath, key, body)
}

// urls are where clients on this machine reach the gateway, HTTPS first.
func (s *Stack) urls() []string {
	var urls []string
	for _, addr := range s.settings.HTTPSAddrs {
		urls = append(urls, settings.URL("https", addr))
	}
	for _, addr := range s.settings.HTTPAddrs {
		urls = append(urls, settings.URL("http", addr))
	}
	return slices.Compact(urls)
}

// Package stack brings the box up and down on this machine and says how it is.
package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/guard/credentials"
	"github.com/edge-serverless-box/esb/guard/statefile"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/agentclient"
	"github.com/edge-serverless-box/esb/native/console"
	"github.com/edge-serverless-box/esb/native/leftovers"
	"github.com/edge-serverless-box/esb/native/lock"
	"github.com/edge-serverless-box/esb/native/process"
	"github.com/edge-serverless-box/esb/native/release"
	"github.com/edge-serverless-box/esb/native/settings"
)

const (
	// recoverLimit is how long a running service that is not ready is left to recover before it is restarted.
	recoverLimit = 10 * time.Second
	// maxAnswer is how much of an answer about readiness is read, maxShown how much of it an error shows, in bytes.
	maxAnswer = 1 << 20
	maxShown  = 4 << 10
	// readyPoll is how often a starting service is asked whether it is ready.
	readyPoll = 100 * time.Millisecond
	// askTimeout bounds one question to a service, reloadTimeout a reload, which looks at new code.
	askTimeout    = 3 * time.Second
	reloadTimeout = time.Minute
	// agentGrace is how long the agent may take to stop; it stops its containerd meanwhile.
	agentGrace = 30 * time.Second
	// storesGrace is how long the stores may take to stop, one after the other.
	storesGrace = 75 * time.Second
)

// allServices are the services in the order of their start; they are stopped in the opposite one.
var allServices = []string{native.Stores, native.Agent, native.Gateway}

// services are those that this stack has, in the order of their start.
func (s *Stack) services() []string {
	if len(s.settings.Stores()) == 0 {
		return []string{native.Agent, native.Gateway}
	}
	return allServices
}

// Stack is one stack of this machine, named by its home.
type Stack struct {
	settings settings.Settings
	// environ is what services inherit.
	environ []string
	// secrets are those that the box has made for itself, by their variables; start knows them.
	secrets map[string]string
	// runtimes are those that the images of this box run, "nodejs24.x,python3.11"; images knows them.
	runtimes string
	// gatewayFresh is true when start has started the gateway.
	gatewayFresh bool
	// missingSince is since when some of the stores say that they cannot be started, wanting is true when `up` goes on without them.
	missingSince time.Time
	wanting      bool
	// early is true while agent and gateway are started before the stores, whose programs are still to be built.
	early bool
	// layout is the installation that this is the box of, nil for one of a working copy.
	layout *release.Layout
	// said are lines that need not be printed again.
	said    []string
	console *console.Console
}

// New returns the stack of s. environ is passed on to the services, with the settings put over it.
func New(s settings.Settings, environ []string, c *console.Console) *Stack {
	// What only a service that is started in the place of another one is told.
	environ = slices.DeleteFunc(slices.Clone(environ), func(v string) bool {
		return slices.ContainsFunc(slices.Collect(maps.Values(replaces)), func(name string) bool { return strings.HasPrefix(v, name+"=") })
	})
	return &Stack{settings: s, environ: environ, console: c}
}

// Installed says that this is the box of an installation: its programs and images are those of the present release, and nothing is built.
func (s *Stack) Installed(l release.Layout) *Stack {
	s.layout = &l
	return s
}

// command is how a person calls this program.
func (s *Stack) command() string {
	if s.layout != nil {
		return "esb"
	}
	return "go tool task"
}

func (s *Stack) lock(ctx context.Context) (*lock.Lock, error) {
	return lock.Take(ctx, filepath.Join(s.settings.RunDir(), "lock"), func() {
		s.console.Printf("waiting for another up or down of %s to end", s.settings.Home)
	})
}

func (s *Stack) pidFile(service string) string {
	return filepath.Join(s.settings.RunDir(), service+".pid")
}

// running returns the record of a service's process when that is alive. Without a pid file, or with one that a power cut
// has damaged, the process is found by what it runs; its record has no fingerprint then.
func (s *Stack) running(service string) (process.Record, bool, error) {
	if r, err := process.Read(s.pidFile(service)); err == nil {
		return r, r.Alive(), nil
	}
	strays, err := s.strays(service)
	if err != nil || len(strays) == 0 {
		return process.Record{}, false, err
	}
	return strays[0], true, nil
}

// keepSecrets makes the secrets that nobody has set, or reads them.
func (s *Stack) keepSecrets() error {
	kept, made, err := credentials.Keep(s.settings.SecretsFile(), s.settings.MadeSecrets...)
	if err != nil {
		return err
	}
	s.secrets = kept
	if len(made) > 0 {
		s.console.Printf("==> made secrets of the box's own in %s: %s", s.settings.SecretsFile(), strings.Join(made, ", "))
	}
	return nil
}

// foreign are the secrets that are not a service's business: it does not get them.
func foreign(service string) []string {
	gateways := []string{credentials.APIKey, credentials.Password, credentials.LambdaKeys, "JWT_SECRET_KEY", "ESB_NATS_URL"}
	switch service {
	case native.Agent:
		return append(gateways, credentials.DynamoDBAccessKey, credentials.DynamoDBSecretKey)
	case native.Stores:
		return append(gateways, "FUNCTION_ACCESS_KEY", "FUNCTION_SECRET_KEY")
	case native.Gateway:
		return []string{"VICTORIALOGS_PASSWORD", "ESB_REGISTRY_PASSWORD"}
	}
	return nil
}

// env is the environment of a service.
func (s *Stack) env(service string) []string {
	own := s.settings.Env()
	for name, secret := range s.secrets {
		own = append(own, name+"="+secret)
	}
	for _, v := range s.serviceEnv(service) {
		name, _, _ := strings.Cut(v, "=")
		own = slices.DeleteFunc(own, func(o string) bool { return strings.HasPrefix(o, name+"=") })
		own = append(own, v)
	}
	hidden := foreign(service)
	env := slices.DeleteFunc(slices.Clone(s.environ), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.ContainsFunc(own, func(o string) bool { return strings.HasPrefix(o, name+"=") })
	})
	return slices.DeleteFunc(append(env, own...), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(hidden, name)
	})
}

// ready asks a service whether it is ready; the error says why it is not.
func (s *Stack) ready(ctx context.Context, service string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if service == native.Agent {
		client, err := agentclient.Dial(s.settings)
		if err != nil {
			return err
		}
		defer func() { _ = client.Close() }()
		return client.Ready(ctx)
	}
	if service == native.Stores {
		return s.storesReady(ctx)
	}
	return s.gatewayReady(ctx)
}

func answerOf(req *http.Request, who string) (status int, body []byte, err error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("ask %s whether it is ready: %w", who, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return 0, nil, fmt.Errorf("read %s: %w", req.URL, err)
	}
	return resp.StatusCode, body, nil
}

func notOK(req *http.Request, status int, body []byte) error {
	return fmt.Errorf("%s answered %d: %s", req.URL, status, strings.TrimSpace(string(body[:min(len(body), maxShown)])))
}

// scope says how to recognise what this stack has made.
func (s *Stack) scope() leftovers.Scope {
	return leftovers.Scope{Home: s.settings.Home, RunDir: s.settings.AgentRunDir, BinDir: s.settings.BinDir, Bridge: s.settings.Bridge}
}

// certain is scope for a stack of which there is no record: another stack may have the bridge and the folder of sockets that this one
// would get.
func (s *Stack) certain() leftovers.Scope {
	return leftovers.Scope{Home: s.settings.Home, BinDir: s.settings.BinDir}
}

// recordFile is where `up` keeps the settings that it has started the stack with, so that the other commands
// find the stack without being given them again. It holds no secrets.
func recordFile(home string) string { return filepath.Join(home, "run", "stack.json") }

func (s *Stack) writeRecord() error {
	record := map[string]string{}
	for _, v := range s.settings.Env() {
		name, value, _ := strings.Cut(v, "=")
		record[name] = value
	}
	if err := statefile.Stack().Write(recordFile(s.settings.Home), record, 0o600); err != nil {
		return fmt.Errorf("keep the stack's settings: %w", err)
	}
	return nil
}

// Recorded returns the settings that the stack of home was started with, nil when it is not up.
func Recorded(home string) (map[string]string, error) {
	var record map[string]string
	err := statefile.Stack().Read(recordFile(home), &record)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the stack's settings: %w", err)
	}
	return record, nil
}

// Package stack runs a whole esb box for tests: on free ports, with its own state folder, bridge and subnet, so
// that it lives beside any other. It drives the box as a user does: by the esb command, HTTP and gRPC.
package stack

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/guard/bearer"
	"github.com/edge-serverless-box/esb/guard/freeport"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
)

// Secrets that every box of the tests is given, unless Options.Env sets another or, by an empty value, lets the box make
// its own. AccessKey and SecretKey open Lambda's API, S3 and the DynamoDB API.
const (
	APIKey    = "api-key-of-the-tests"
	User      = "onpremise-user"
	Password  = "password-of-the-tests"
	AccessKey = "AKIDESBTESTS"
	SecretKey = "secret-key-of-the-tests-of-the-box"
)

// secrets sets them, "NAME=value".
func secrets() []string {
	return []string{
		"X_API_KEY=" + APIKey, "AUTH_USER=" + User, "AUTH_PASS=" + Password, "LAMBDA_ACCESS_KEYS=" + AccessKey + ":" + SecretKey,
		"S3_ACCESS_KEY=" + AccessKey, "S3_SECRET_KEY=" + SecretKey, "DYNAMODB_ACCESS_KEY=" + AccessKey, "DYNAMODB_SECRET_KEY=" + SecretKey,
	}
}

// waitLimit bounds every wait for a condition. It is an upper bound for a badly loaded machine, not an
// expectation.
const waitLimit = 90 * time.Second

// downLimit bounds the end of a box.
const downLimit = 3 * time.Minute

// Options of Prepare.
type Options struct {
	// Way is how the box runs; Native when empty.
	Way Way
	// FunctionsConfig, RoutingConfig and ResourcesConfig are paths; the samples of the repository when empty. A box in Docker
	// gets the folder with functions.yml, routing.yml and resources.yml: there they are all or none in one folder.
	FunctionsConfig, RoutingConfig, ResourcesConfig string
	// Images are extra image archives to put into the box's image folder before it starts.
	Images []string
	// SubnetBits is the size of the function network; 24 when 0.
	SubnetBits int
	// OwnLogs: the VictoriaLogs at LogsURL is the test's own affair, a native box starts none.
	OwnLogs bool
	// Supervised: a native box starts again by itself what ends or hangs, as it does unless told otherwise. Most tests look at what is
	// when a service has ended, and start it by Up.
	Supervised bool
	// Env are further settings, "NAME=value".
	Env []string
}

// Stack is one box and how to reach it from the host.
type Stack struct {
	Way Way
	// Home is the folder of the box's state, and of what the tests keep about it.
	Home string
	// BinDir holds the programs that a native box runs.
	BinDir string
	// Bridge and Subnet are the function network; Box is the box's address on it.
	Bridge, Subnet, Box string
	// HTTPSURL, HTTPURL and AdminURL are the gateway's listeners, AgentAddr is the agent's.
	HTTPSURL, HTTPURL, AdminURL, AgentAddr string
	// S3URL, DynamoDBURL and LogsURL are the stores; LogsURL is VictoriaLogs.
	S3URL, DynamoDBURL, LogsURL string
	// Registry is host:port of the image registry.
	Registry string
	// HTTP trusts the development CA. Agent and Health, the agent's, are there after Up.
	HTTP   *http.Client
	Agent  agentv1.AgentServiceClient
	Health healthpb.HealthClient

	root string
	// installed: it is the box of an installation, which has nothing to do with the repository.
	installed  bool
	ports      ports
	driver     driver
	connection *grpc.ClientConn
}

// ports are the ports of one box on 127.0.0.1.
type ports struct{ https, http, admin, agent, s3, s3UI, dynamoDB, logs, registry int }

// RepositoryRoot is the folder that holds go.work.
func RepositoryRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.work above the working directory: run the tests inside the repository")
		}
		dir = parent
	}
}

// Prepare chooses ports, names and a state folder, and makes what is needed to start the box. Nothing runs yet.
func Prepare(home string, opts Options) (*Stack, error) {
	root, err := RepositoryRoot()
	if err != nil {
		return nil, err
	}
	free, err := freeport.Find(9)
	if err != nil {
		return nil, err
	}
	suffix := make([]byte, 3)
	if _, err := rand.Read(suffix); err != nil {
		return nil, err
	}
	network := fmt.Sprintf("10.%d.%d.", 100+int(suffix[0])%100, suffix[1])
	p := ports{free[0], free[1], free[2], free[3], free[4], free[5], free[6], free[7], free[8]}
	local := func(scheme string, port int) string { return fmt.Sprintf("%s://127.0.0.1:%d", scheme, port) }
	s := &Stack{
		Way:         opts.Way,
		Home:        home,
		BinDir:      filepath.Join(root, ".esb", "bin"),
		Bridge:      "esbt" + hex.EncodeToString(suffix),
		Subnet:      fmt.Sprintf("%s0/%d", network, cmp.Or(opts.SubnetBits, 24)),
		Box:         network + "1",
		HTTPSURL:    local("https", p.https),
		HTTPURL:     local("http", p.http),
		AdminURL:    local("http", p.admin),
		AgentAddr:   fmt.Sprintf("127.0.0.1:%d", p.agent),
		S3URL:       local("http", p.s3),
		DynamoDBURL: local("http", p.dynamoDB),
		LogsURL:     local("http", p.logs),
		Registry:    fmt.Sprintf("127.0.0.1:%d", p.registry),
		root:        root,
		ports:       p,
	}
	if opts.FunctionsConfig == "" {
		opts.FunctionsConfig = filepath.Join(root, "functions", "functions.yml")
	}
	if opts.RoutingConfig == "" {
		opts.RoutingConfig = filepath.Join(root, "functions", "routing.yml")
	}
	if opts.ResourcesConfig == "" {
		opts.ResourcesConfig = filepath.Join(root, "functions", "resources.yml")
	}
	s.HTTP = &http.Client{
		Timeout: 2 * time.Minute,
		Transport: &http.Transport{
			// The development CA is made by the box itself; a test of its own checks the chain.
			TLSClientConfig:     &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // development CA
			MaxIdleConnsPerHost: 64,
			DialContext:         func(ctx context.Context, _, addr string) (net.Conn, error) { return s.driver.dial(ctx, addr) },
		},
	}
	switch s.Way {
	case "", Native:
		s.Way = Native
		s.driver, err = prepareNative(s, opts)
	case Compose, DinD:
		s.driver, err = prepareDocker(s, opts)
	default:
		err = fmt.Errorf("there is no way %q to run a box: there are %s, %s and %s", s.Way, Native, Compose, DinD)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func copyImages(folder string, images []string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, image := range images {
		data, err := os.ReadFile(image)
		if err != nil {
			return fmt.Errorf("image archive of a test: %w", err)
		}
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(image)), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Up starts the box, or what of it is not running, waits until it is ready, and connects to the agent. Output of a
// failed command is in the error.
func (s *Stack) Up(ctx context.Context) error {
	if err := s.driver.up(ctx); err != nil {
		return err
	}
	if s.connection != nil {
		return nil
	}
	token, err := s.driver.agentToken(ctx)
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient("passthrough:///"+s.AgentAddr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(s.driver.dial), grpc.WithPerRPCCredentials(bearer.Token(token)))
	if err != nil {
		return err
	}
	s.connection = connection
	s.Agent, s.Health = agentv1.NewAgentServiceClient(connection), healthpb.NewHealthClient(connection)
	return nil
}

// Down stops the box and removes what it has made, with a time of its own. Data of the stores is removed with Home.
func (s *Stack) Down() error {
	ctx, cancel := context.WithTimeout(context.Background(), downLimit)
	defer cancel()
	if s.connection != nil {
		_ = s.connection.Close()
		s.connection = nil
	}
	s.HTTP.CloseIdleConnections()
	return s.driver.down(ctx)
}

// DevelopmentCA is the certificate, in PEM, of the CA that the gateway has made for itself.
func (s *Stack) DevelopmentCA(ctx context.Context) ([]byte, error) {
	return s.GatewayFile(ctx, filepath.Join("tls", "ca.crt"))
}

// GatewayFile reads a file of the folder in which the gateway keeps its state.
func (s *Stack) GatewayFile(ctx context.Context, name string) ([]byte, error) {
	return s.driver.gatewayFile(ctx, name)
}

// FunctionKeys are the keys of the box's functions.
func (s *Stack) FunctionKeys(ctx context.Context) (*functionkeys.Keys, error) {
	secret, err := s.GatewayFile(ctx, "function-keys")
	if err != nil {
		return nil, err
	}
	return functionkeys.New(bytes.TrimSpace(secret))
}

// AdminToken is what the admin listener asks for.
func (s *Stack) AdminToken(ctx context.Context) (string, error) {
	token, err := s.GatewayFile(ctx, "admin-token")
	return strings.TrimSpace(string(token)), err
}

// run runs a command, which gets no terminal, and returns what it printed. Processes that it leaves behind do not hold
// the call: the output goes to a file.
func (s *Stack) run(ctx context.Context, env []string, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	if cmd.Dir = s.root; s.installed {
		cmd.Dir = "/"
	}
	cmd.Env = env
	out, err := os.CreateTemp("", "esb-output-*") // Home may be removed, or its disk be full
	if err != nil {
		return "", err
	}
	defer func() { _ = out.Close(); _ = os.Remove(out.Name()) }()
	cmd.Stdout, cmd.Stderr = out, out
	runErr := cmd.Run()
	text, err := os.ReadFile(out.Name())
	if err != nil {
		return "", err
	}
	return string(text), runErr
}

// Answer is a response with its whole body.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request with token (none when empty, that of the operator to AdminURL) and reads the whole answer.
func (s *Stack) Do(ctx context.Context, method, url, token string, body []byte, header ...string) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	if token == "" && strings.HasPrefix(url, s.AdminURL+"/") {
		if token, err = s.AdminToken(ctx); err != nil {
			return Answer{}, err
		}
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := s.HTTP.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	return Answer{Status: res.StatusCode, Header: res.Header, Body: data}, err
}

// Post sends a JSON body over plain HTTP and fails the test when no answer comes.
func (s *Stack) Post(t testing.TB, path, token, body string) Answer {
	t.Helper()
	answer, err := s.Do(t.Context(), http.MethodPost, s.HTTPURL+path, token, []byte(body), "Content-Type", "application/json")
	require.NoError(t, err)
	return answer
}

// Token authenticates with the tests' secrets over HTTPS.
func (s *Stack) Token(ctx context.Context) (string, error) {
	body := fmt.Sprintf(`{"AuthParameters":{"USERNAME":%q,"PASSWORD":%q}}`, User, Password)
	answer, err := s.Do(ctx, http.MethodPost, s.HTTPSURL+"/user/auth/ver1.0", "", []byte(body), "x-api-key", APIKey)
	if err != nil {
		return "", err
	}
	var result struct {
		AuthenticationResult struct{ IdToken string }
	}
	if answer.Status != http.StatusOK {
		return "", fmt.Errorf("authentication answered %d %s", answer.Status, answer.Body)
	}
	if err := json.Unmarshal(answer.Body, &result); err != nil {
		return "", err
	}
	return result.AuthenticationResult.IdToken, nil
}

// Containers lists the function's containers as the agent observes them. The connection to an agent that has been started again may not
// know that yet.
func (s *Stack) Containers(t testing.TB, function string) []*agentv1.ContainerInfo {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	list, err := s.Agent.ListContainers(ctx, &agentv1.ListContainersRequest{FunctionName: function}, grpc.WaitForReady(true))
	require.NoError(t, err)
	return list.GetContainers()
}

// Eventually waits for a condition, for as long as a loaded machine may need.
func Eventually(t testing.TB, condition func() bool, format string, args ...any) {
	t.Helper()
	require.Eventually(t, condition, waitLimit, 50*time.Millisecond, append([]any{format}, args...)...)
}

// BuildImage builds a static Go program of the repository into an image archive that runs it, with the files
// added at the given places. It uses the esb-image command, as a user does.
func BuildImage(root, folder, tag string, arguments ...string) (string, error) {
	command := filepath.Join(folder, "esb-image")
	if out, err := goBuild(root, command, "./functions/cmd/esb-image"); err != nil {
		return "", fmt.Errorf("build functions/cmd/esb-image: %w\n%s", err, out)
	}
	archive := filepath.Join(folder, strings.NewReplacer("/", "_", ":", "_").Replace(tag)+".tar")
	cmd := exec.Command(command, append([]string{"build", "-tag", tag, "-out", archive}, arguments...)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("esb-image build %s: %w\n%s", tag, err, out)
	}
	return archive, nil
}

// BuildProgram builds a Go program of the repository, static, and returns its path.
func BuildProgram(root, folder, pkg string, flags ...string) (string, error) {
	out := filepath.Join(folder, filepath.Base(pkg))
	if text, err := goBuild(root, out, pkg, flags...); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, text)
	}
	return out, nil
}

// Package stack runs a whole esb box for tests: on free ports, with its own state folder, bridge and subnet, so
// that it lives beside any other. It drives the box as a user does: by the esb command, HTTP and gRPC.
package stack

import (
	"bytes"
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

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
)

// Development defaults of design.md 7.
const (
	APIKey   = "dev-api-key-change-in-production"
	User     = "onpremise-user"
	Password = "onpremise-pass"
)

// waitLimit bounds every wait for a condition. It is an upper bound for a badly loaded machine, not an
// expectation.
const waitLimit = 90 * time.Second

// Options of Up.
type Options struct {
	// FunctionsConfig and RoutingConfig are paths; the samples of the repository when empty.
	FunctionsConfig, RoutingConfig string
	// Images are extra image archives to link into the box's image folder before it starts.
	Images []string
	// Env are further settings, "NAME=value".
	Env []string
}

// Stack is one running box.
type Stack struct {
	Home       string
	Bridge     string
	Subnet     string
	HTTPSURL   string
	HTTPURL    string
	AdminURL   string
	AgentAddr  string
	HTTP       *http.Client
	Agent      agentv1.AgentServiceClient
	env        []string
	command    string
	connection *grpc.ClientConn
}

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

// Prepare chooses ports, names and a state folder, and builds the esb command. Nothing runs yet.
func Prepare(home string, opts Options) (*Stack, error) {
	root, err := RepositoryRoot()
	if err != nil {
		return nil, err
	}
	command := filepath.Join(home, "esb-command")
	if out, err := goBuild(root, command, "./native/cmd/esb"); err != nil {
		return nil, fmt.Errorf("build native/cmd/esb: %w\n%s", err, out)
	}
	ports, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	suffix := make([]byte, 3)
	if _, err := rand.Read(suffix); err != nil {
		return nil, err
	}
	s := &Stack{
		Home:      home,
		Bridge:    "esbt" + hex.EncodeToString(suffix),
		Subnet:    fmt.Sprintf("10.%d.%d.0/24", 100+int(suffix[0])%100, suffix[1]),
		HTTPSURL:  fmt.Sprintf("https://127.0.0.1:%d", ports[0]),
		HTTPURL:   fmt.Sprintf("http://127.0.0.1:%d", ports[1]),
		AdminURL:  fmt.Sprintf("http://127.0.0.1:%d", ports[2]),
		AgentAddr: fmt.Sprintf("127.0.0.1:%d", ports[3]),
		command:   command,
	}
	if opts.FunctionsConfig == "" {
		opts.FunctionsConfig = filepath.Join(root, "functions", "functions.yml")
	}
	if opts.RoutingConfig == "" {
		opts.RoutingConfig = filepath.Join(root, "functions", "routing.yml")
	}
	s.env = append(os.Environ(),
		"ESB_HOME="+home,
		"ESB_BIN_DIR="+filepath.Join(root, ".esb", "bin"),
		fmt.Sprintf("GATEWAY_HTTPS_ADDR=127.0.0.1:%d", ports[0]),
		fmt.Sprintf("GATEWAY_HTTP_ADDR=127.0.0.1:%d", ports[1]),
		fmt.Sprintf("GATEWAY_ADMIN_ADDR=127.0.0.1:%d", ports[2]),
		fmt.Sprintf("AGENT_GRPC_ADDR=127.0.0.1:%d", ports[3]),
		"ESB_BRIDGE="+s.Bridge,
		"ESB_SUBNET="+s.Subnet,
		"FUNCTIONS_CONFIG_PATH="+opts.FunctionsConfig,
		"ROUTING_CONFIG_PATH="+opts.RoutingConfig,
	)
	s.env = append(s.env, opts.Env...)
	if err := linkImages(filepath.Join(home, "images"), opts.Images); err != nil {
		return nil, err
	}
	s.HTTP = &http.Client{
		Timeout: 2 * time.Minute,
		Transport: &http.Transport{
			// The development CA is made by the box itself; a test of its own checks the chain.
			TLSClientConfig:     &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // development CA
			MaxIdleConnsPerHost: 64,
		},
	}
	return s, nil
}

func linkImages(folder string, images []string) error {
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

// Up runs "esb up" and connects to the agent. Output of a failed command is in the error.
func (s *Stack) Up(ctx context.Context) error {
	if out, err := s.Esb(ctx, "up"); err != nil {
		return fmt.Errorf("esb up: %w\n%s", err, out)
	}
	connection, err := grpc.NewClient(s.AgentAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	s.connection = connection
	s.Agent = agentv1.NewAgentServiceClient(connection)
	return nil
}

// Down runs "esb down" with a time of its own.
func (s *Stack) Down() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if s.connection != nil {
		_ = s.connection.Close()
	}
	s.HTTP.CloseIdleConnections()
	if out, err := s.Esb(ctx, "down"); err != nil {
		return fmt.Errorf("esb down: %w\n%s", err, out)
	}
	return nil
}

// Esb runs the esb command with the stack's settings and returns what it printed.
func (s *Stack) Esb(ctx context.Context, args ...string) (string, error) {
	root, err := RepositoryRoot()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, s.command, args...)
	cmd.Dir = root
	cmd.Env = s.env
	// Services started by "up" must not hold the pipe of this command open.
	out, err := os.CreateTemp(s.Home, "esb-output-*")
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

// Do sends a request with token (none when empty) and reads the whole answer.
func (s *Stack) Do(ctx context.Context, method, url, token string, body []byte, header ...string) (Answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
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

// Token authenticates with the development defaults over HTTPS.
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

// Containers lists the function's containers as the agent observes them.
func (s *Stack) Containers(t testing.TB, function string) []*agentv1.ContainerInfo {
	t.Helper()
	list, err := s.Agent.ListContainers(t.Context(), &agentv1.ListContainersRequest{FunctionName: function})
	require.NoError(t, err)
	return list.GetContainers()
}

// Eventually waits for a condition, for as long as a loaded machine may need.
func Eventually(t testing.TB, condition func() bool, format string, args ...any) {
	t.Helper()
	require.Eventually(t, condition, waitLimit, 50*time.Millisecond, append([]any{format}, args...)...)
}

// FunctionLog is the text of all log files of a function's containers.
func (s *Stack) FunctionLog(t testing.TB, function string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Home, "logs", "functions", "lambda-"+function+"-*.log*"))
	require.NoError(t, err)
	var text strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		text.Write(data)
	}
	return text.String()
}

func goBuild(root, out string, pkg string, flags ...string) (string, error) {
	args := append([]string{"build", "-trimpath", "-o", out}, append(flags, pkg)...)
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	text, err := cmd.CombinedOutput()
	return string(text), err
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

// freePorts finds n ports that nobody listens on. All are held until all are found, so that they differ.
func freePorts(n int) ([]int, error) {
	ports := make([]int, 0, n)
	for range n {
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

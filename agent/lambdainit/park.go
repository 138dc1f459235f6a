package lambdainit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Call is what the agent tells a lambda-init that was started with -park, once it has a function for it: what the arguments, the
// environment and the working folder of another one are from the start.
type Call struct {
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Cwd  string   `json:"cwd"`
	// Start says that there is no function yet: Args are a runtime, which is started ahead of it in this environment, and another Call
	// follows.
	Start bool `json:"start,omitempty"`

	ahead *Ahead
}

// Waits is what lambda-init answers to a Call with Start.
const Waits = "\n"

// Ahead is the runtime that was started ahead; nil for none.
func (c *Call) Ahead() *Ahead { return c.ahead }

// Park connects to the agent's unix stream socket, which says that this container is there, and waits for its Call. By then the agent has
// given the container another root filesystem. Before it there may be one with Start: Waits on the connection says that the runtime
// is there and waits, too, and anything else why it does not. It is nil when the connection ends without a Call: nobody will ask any more.
func Park(socket string) (*Call, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("tell the agent that the container waits: %w", err)
	}
	defer func() { _ = conn.Close() }()
	calls := json.NewDecoder(conn)
	c, err := nextCall(calls)
	if err == nil && c != nil && c.Start {
		// One that ends is no use to anybody.
		ahead, startErr := startAhead(*c, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
		if startErr != nil {
			_, _ = conn.Write([]byte(startErr.Error())) // it is said once more by who calls this
			return nil, startErr
		}
		if _, err := conn.Write([]byte(Waits)); err != nil {
			return nil, nil // as below
		}
		if c, err = nextCall(calls); c != nil {
			c.ahead = ahead
		}
	}
	if err != nil || c == nil {
		return nil, err
	}
	setCommandLine(append([]string{os.Args[0]}, c.Args...))
	// Of all variables this process itself looks at one, to find programs: see ConfigFromEnv for the others.
	os.Clearenv()
	for _, kv := range c.Env {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok {
			if err := os.Setenv("PATH", path); err != nil {
				return nil, err
			}
		}
	}
	return c, enter(c.Cwd)
}

// nextCall reads one JSON object; nil when the agent has ended, in one way or another.
func nextCall(calls *json.Decoder) (*Call, error) {
	var c Call
	err := calls.Decode(&c)
	var ended net.Error
	if errors.Is(err, io.EOF) || errors.As(err, &ended) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what to start: %w", err)
	}
	return &c, nil
}

// enter goes to the working folder, which is made when it is in /tmp: that is empty yet.
func enter(dir string) error {
	var err error
	if dir == tmpDir || strings.HasPrefix(dir, tmpDir+"/") {
		err = os.MkdirAll(filepath.Clean(dir), 0o755)
	}
	if err := errors.Join(err, os.Chdir(dir)); err != nil {
		return fmt.Errorf("go to the working folder: %w", err)
	}
	return nil
}

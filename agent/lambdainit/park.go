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
)

// Call is what the agent tells a lambda-init that was started with -park, once it has a function for it: what the arguments, the
// environment and the working folder of another one are from the start.
type Call struct {
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Cwd  string   `json:"cwd"`
}

// Park connects to the agent's unix stream socket, which says that this container is there, and waits for its Call: one JSON object
// up to the end of the stream. By then the agent has given the container another root filesystem. It is nil when the connection
// ends without one: nobody will ask any more.
func Park(socket string) (*Call, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("tell the agent that the container waits: %w", err)
	}
	defer func() { _ = conn.Close() }()
	data, err := io.ReadAll(conn)
	if err != nil || len(data) == 0 {
		return nil, nil // the agent has ended, in one way or another
	}
	var c Call
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, fmt.Errorf("read what to start: %w", err)
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
	return &c, enter(c.Cwd)
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

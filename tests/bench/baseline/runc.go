package baseline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Runc runs a bundle again and again, each time as a new container.
type Runc struct {
	program, bundle, state string
	started                int
}

// CopyBundle copies the bundle of a running container to a folder of its own, and returns what runs it with runc: the configuration
// without the parts that belong to that one container (paths of namespaces, cgroup path, sockets, log), and the root filesystem. Close
// removes it.
func CopyBundle(ctx context.Context, runc, running string) (r *Runc, err error) {
	dir, err := os.MkdirTemp("", "esb-bench-bundle-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	// The user of the container has to come by.
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	if err := run(ctx, dir, "cp", "-a", filepath.Join(running, "rootfs"), filepath.Join(dir, "rootfs")); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(running, "config.json"))
	if err != nil {
		return nil, err
	}
	if text, err = anybody(text); err != nil {
		return nil, fmt.Errorf("read the bundle %s: %w", running, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600); err != nil {
		return nil, err
	}
	return &Runc{program: runc, bundle: dir, state: filepath.Join(dir, "state")}, nil
}

// anybody makes of a container's config.json one that any container can have.
func anybody(text []byte) ([]byte, error) {
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		return nil, err
	}
	linux, _ := config["linux"].(map[string]any)
	process, _ := config["process"].(map[string]any)
	if linux == nil || process == nil {
		return nil, fmt.Errorf("config.json has no linux or no process")
	}
	linux["cgroupsPath"] = "/esb-bench-runc"
	namespaces, _ := linux["namespaces"].([]any)
	for _, n := range namespaces {
		switch entry, _ := n.(map[string]any); entry["type"] {
		case "network":
			delete(entry, "path")
		case "user":
			// One made by runc itself, with as many ids.
			delete(entry, "path")
			ids := []map[string]int{{"containerID": 0, "hostID": 1879048192, "size": 65536}}
			linux["uidMappings"], linux["gidMappings"] = ids, ids
		}
	}
	mounts, _ := config["mounts"].([]any)
	config["mounts"] = slices.DeleteFunc(mounts, func(m any) bool {
		mount, _ := m.(map[string]any)
		source, _ := mount["source"].(string)
		return strings.HasPrefix(source, "/run/esb/") || strings.HasPrefix(source, "/sys/fs/cgroup/")
	})
	process["terminal"] = false
	environment, _ := process["env"].([]any)
	process["env"] = slices.DeleteFunc(environment, func(e any) bool {
		variable, _ := e.(string)
		return strings.HasPrefix(variable, "ESB_INIT_NOTIFY=") || strings.HasPrefix(variable, "ESB_INIT_CGROUP=")
	})
	return json.Marshal(config)
}

// Close removes the copy of the bundle.
func (r *Runc) Close() error { return os.RemoveAll(r.bundle) }

// Start is "runc run --detach", from its start to its end: the process of the container runs then, and has answered nothing yet.
func (r *Runc) Start(ctx context.Context) (took time.Duration, end func() error, err error) {
	r.started++
	id := fmt.Sprintf("esb-bench-%d-%d", os.Getpid(), r.started)
	began := time.Now()
	if err := run(ctx, r.bundle, r.program, "--root", r.state, "run", "--detach", "--bundle", r.bundle, id); err != nil {
		return 0, nil, err
	}
	took = time.Since(began)
	return took, func() error {
		return run(context.WithoutCancel(ctx), r.bundle, r.program, "--root", r.state, "delete", "--force", id)
	}, nil
}

// run runs a command in dir; what it printed is in the error. It goes to a file, not to a pipe: a container that it leaves keeps the
// descriptor.
func run(ctx context.Context, dir, name string, args ...string) error {
	out, err := os.CreateTemp(dir, "out-")
	if err != nil {
		return err
	}
	defer func() { _ = out.Close(); _ = os.Remove(out.Name()) }()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, text)
	}
	return nil
}

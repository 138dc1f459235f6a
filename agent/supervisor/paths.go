package supervisor

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"golang.org/x/sys/unix"
)

// maxSocketDir is containerd's limit for the folder of the shims' sockets, whose names are 64 bytes long
// (containerd v2.4.2, core/runtime/v2/socket_linux.go).
const maxSocketDir = 42

// paths are the places of one containerd.
type paths struct {
	run    string // the folder of all below but root and log
	root   string
	state  string
	shims  string // sockets of the shims
	socket string
	config string
	pid    string
	log    string
}

func pathsOf(cfg Config) paths {
	run := cfg.RunDir
	if len(filepath.Join(run, "s")) > maxSocketDir {
		sum := sha256.Sum256([]byte(run))
		run = "/run/esb-" + hex.EncodeToString(sum[:8])
	}
	return paths{
		run:    run,
		root:   cfg.Dir,
		state:  filepath.Join(run, "state"),
		shims:  filepath.Join(run, "s"),
		socket: filepath.Join(run, "containerd.sock"),
		config: filepath.Join(run, "containerd.toml"),
		pid:    filepath.Join(run, "containerd.pid"),
		log:    filepath.Join(filepath.Dir(cfg.Dir), "logs", "containerd.log"),
	}
}

// prepare makes the folders and writes the configuration.
func (p paths) prepare(cfg Config) error {
	for _, dir := range []string{p.run, p.root, p.state, p.shims, filepath.Dir(p.log)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make a folder for containerd: %w", err)
		}
	}
	// A container's root filesystem is mounted below these, and reached by its own users. They cannot list them.
	for _, dir := range []string{p.run, p.state} {
		if err := os.Chmod(dir, 0o711); err != nil {
			return fmt.Errorf("open a folder for containerd to the users of containers: %w", err)
		}
	}
	var text strings.Builder
	if err := configTemplate.Execute(&text, map[string]string{
		"Root": p.root, "State": p.state, "Socket": p.socket, "Shims": p.shims,
	}); err != nil {
		return fmt.Errorf("build containerd's configuration: %w", err)
	}
	if err := os.WriteFile(p.config, []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("write containerd's configuration: %w", err)
	}
	return nil
}

// remove deletes what is of no use without containerd. What running containers need stays, and with it their folders.
func (p paths) remove() error {
	var errs []error
	for _, file := range []string{p.socket, p.socket + ".ttrpc", p.config, p.pid} {
		if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove a file of containerd: %w", err))
		}
	}
	removeEmpty(p.state)
	if _, err := os.Stat(filepath.Join(p.state, "io.containerd.runtime.v2.task")); errors.Is(err, os.ErrNotExist) {
		// No container is left, so nobody's mounts are on record in here. (Only the file: below the state folder may
		// be mounts, and a recursive removal would go into them.)
		_ = os.Remove(filepath.Join(p.state, "io.containerd.mount-manager.v1.bolt", "mounts.db"))
		removeEmpty(p.state)
	}
	removeEmpty(p.shims)
	_ = os.Remove(p.run) // Only when nothing is left in it.
	return errors.Join(errs...)
}

// removeEmpty removes the folders of a tree that have nothing but such folders in them. A folder in use stays, so
// errors mean nothing here. A folder with a file in it is left as a whole: it may be the bundle of a running container,
// and to remove an empty folder of its root filesystem takes away what is mounted there inside of the container.
func removeEmpty(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return !e.IsDir() }) {
		return
	}
	for _, e := range entries {
		if sub := filepath.Join(dir, e.Name()); sameDevice(dir, sub) {
			removeEmpty(sub)
		}
	}
	_ = os.Remove(dir)
}

// sameDevice is false for a mount point below dir.
func sameDevice(dir, sub string) bool {
	var a, b unix.Stat_t
	return unix.Lstat(dir, &a) == nil && unix.Lstat(sub, &b) == nil && a.Dev == b.Dev
}

// configTemplate is for containerd 2.4. Left out is what the agent does not use: CRI and its sandboxes, NRI, tracing,
// metrics, debugging, restarting of containers, TCP, and all snapshotters but overlayfs. Nothing is outside of the
// folders of this stack.
var configTemplate = template.Must(template.New("containerd.toml").Funcs(template.FuncMap{"quote": quote}).Parse(`# Written by the esb agent at each start.
version = 4
root = {{quote .Root}}
state = {{quote .State}}
imports = []

disabled_plugins = [
  'io.containerd.cri.v1.images',
  'io.containerd.cri.v1.runtime',
  'io.containerd.grpc.v1.cri',
  'io.containerd.podsandbox.controller.v1.podsandbox',
  'io.containerd.nri.v1.nri',
  'io.containerd.internal.v1.opt',
  'io.containerd.internal.v1.tracing',
  'io.containerd.tracing.processor.v1.otlp',
  'io.containerd.ttrpc.v1.otelttrpc',
  'io.containerd.metrics.v1.grpc-prometheus',
  'io.containerd.metrics.v1.grpc-otel',
  'io.containerd.server.v1.metrics',
  'io.containerd.server.v1.grpc-tcp',
  'io.containerd.server.v1.debug',
  'io.containerd.http.v1.pprof',
  'io.containerd.image-verifier.v1.bindir',
  'io.containerd.monitor.container.v1.restart',
  'io.containerd.monitor.task.v1.cgroups',
  'io.containerd.snapshotter.v1.blockfile',
  'io.containerd.snapshotter.v1.devmapper',
  'io.containerd.snapshotter.v1.erofs',
  'io.containerd.snapshotter.v1.native',
  'io.containerd.snapshotter.v1.zfs',
  'io.containerd.differ.v1.erofs',
  'io.containerd.mount-handler.v1.erofs',
]

# Without one of these no function can start: containerd ends, and its log says why.
required_plugins = [
  'io.containerd.metadata.v1.bolt',
  'io.containerd.snapshotter.v1.overlayfs',
  'io.containerd.differ.v1.walking',
  'io.containerd.runtime.v2.task',
  'io.containerd.grpc.v1.tasks',
]

[plugins.'io.containerd.server.v1.grpc']
  address = {{quote .Socket}}

[plugins.'io.containerd.server.v1.ttrpc']
  address = {{quote (print .Socket ".ttrpc")}}

[plugins.'io.containerd.shim.v1.manager']
  socket_dir = {{quote .Shims}}

[plugins.'io.containerd.service.v1.diff-service']
  default = ['walking']
`))

// quote writes a TOML basic string.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}

// Package preflight looks at the machine before anything is started and says, all at once, what keeps the box from
// running on it. Its checks change nothing that outlives them.
package preflight

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/native"
)

// root is the user that may make namespaces, mounts and links.
const root = 0

// Options say what the stack needs.
type Options struct {
	// Home is where the stack keeps its state; it may not exist yet.
	Home string
	// FreeBytes that the file system of Home must have, 0 for any.
	FreeBytes uint64
	// Listeners that the stack is going to open.
	Listeners []Listener
	// Owns says whether a process is this stack's: its ports are not in the way. It is asked when one is found, as a supervisor may have
	// started it a moment ago. Nil: none is.
	Owns func(pid int) bool
	// Network of the functions.
	Network Network
}

// Run runs all checks. The error holds one *native.Problem for each that failed.
func Run(o Options) error {
	if runtime.GOOS != "linux" {
		return &native.Problem{What: "this machine runs " + runtime.GOOS, Do: "Use a Linux machine: function containers are Linux namespaces."}
	}
	if uid := os.Geteuid(); uid != root {
		// The other checks would fail for this reason, and name another one.
		return &native.Problem{
			What: fmt.Sprintf("not running as root (uid %d)", uid),
			Do:   "Run it as root (sudo -E env \"PATH=$PATH\" go tool task up): containers, networks and firewall rules need it.",
		}
	}
	errs := []error{Disk(o.Home, o.FreeBytes)}
	errs = append(errs, checkKernel()...)
	errs = append(errs, checkCgroups("/proc/self/mountinfo", "/sys/fs/cgroup")...)
	errs = append(errs, checkNetwork(o.Network)...)
	errs = append(errs, checkListeners(o.Listeners, o.Owns)...)
	return errors.Join(errs...)
}

// Disk measures the file system of dir or of its nearest parent that exists; that it has less than need bytes free is a
// *native.Problem.
func Disk(dir string, need uint64) error {
	existing := dir
	for {
		if _, err := os.Stat(existing); err == nil || existing == filepath.Dir(existing) {
			break
		}
		existing = filepath.Dir(existing)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(existing, &fs); err != nil {
		return fmt.Errorf("measure the disk of %s: %w", existing, err)
	}
	const mib = 1 << 20
	if free := fs.Bavail * uint64(fs.Bsize); free < need {
		return &native.Problem{
			What: fmt.Sprintf("%s has %d MiB free, %d MiB are needed", existing, free/mib, need/mib),
			Do:   "Free some space, or set ESB_HOME to a folder on a larger disk.",
		}
	}
	return nil
}

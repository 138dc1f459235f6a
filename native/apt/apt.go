// Package apt installs Debian packages that building needs.
package apt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/edge-serverless-box/esb/native"
)

// lockTimeout is how long apt-get may wait for another one to end, in seconds.
const lockTimeout = "120"

// Installer installs packages and asks for the package lists once.
type Installer struct {
	updated bool
}

// Install installs packages. Where there is no apt-get, or it fails, the error is a *native.Problem that names them.
func (i *Installer) Install(ctx context.Context, packages []string) error {
	if _, err := exec.LookPath("apt-get"); errors.Is(err, exec.ErrNotFound) {
		return &native.Problem{
			What: "needed to build, and not installed: " + strings.Join(packages, ", "),
			Do:   "Install them (these are Debian's names; this machine has no apt-get) and run the command again.",
		}
	}
	if !i.updated {
		if err := i.run(ctx, packages, "update", "-qq"); err != nil {
			return err
		}
		i.updated = true
	}
	return i.run(ctx, packages, append([]string{"install", "-y", "-qq", "--no-install-recommends"}, packages...)...)
}

func (i *Installer) run(ctx context.Context, packages []string, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-o", "DPkg::Lock::Timeout=" + lockTimeout}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	// Killed, it would leave dpkg's work half done; so it ends what it is at.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		return &native.Problem{
			What: fmt.Sprintf("apt-get %s failed (%v), needed for %s:\n%s", args[0], err, strings.Join(packages, ", "), native.Indent(string(out), "      ")),
			Do:   "Put apt right (network, mirror, disk), or install " + strings.Join(packages, " ") + " yourself, and run the command again.",
		}
	}
	return nil
}

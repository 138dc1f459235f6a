// Command esb-runc is what containerd and its shim start in place of containerd-shim-runc-v2 and runc: it does the small things that they
// are started for itself, in a tenth of their time, and becomes the one or the other, from its own folder, for everything else.
package main

import (
	"os"
	"path/filepath"
	"syscall"

	"github.com/edge-serverless-box/esb/agent/runcfront"
)

func main() {
	program, output, done := runcfront.Do(os.Args[1:])
	if done {
		if _, err := os.Stdout.Write(output); err != nil {
			os.Exit(1)
		}
		return
	}
	self, err := os.Executable()
	if err == nil {
		program = filepath.Join(filepath.Dir(self), program)
		err = syscall.Exec(program, append([]string{program}, os.Args[1:]...), os.Environ())
	}
	_, _ = os.Stderr.WriteString("esb-runc: start " + program + ": " + err.Error() + "\n")
	os.Exit(1)
}

package lambdainit

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

// Exec sets the limits that environ names and becomes the program of command, with the environment but for what is meant for
// lambda-init. It returns only when that fails.
func Exec(environ, command []string) error {
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	// Of all settings these are of interest: the others have their defaults.
	limits := slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return !slices.Contains([]string{"ESB_INIT_NOFILE", "ESB_INIT_NPROC", "ESB_INIT_HOME"}, name)
	})
	cfg, err := ConfigFromEnv(limits, command)
	if err != nil {
		return err
	}
	if err := setLimits(cfg); err != nil {
		return err
	}
	dumpNoMemory()
	path, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("the entrypoint cannot be executed: %w", err)
	}
	env := slices.DeleteFunc(slices.Clone(environ), func(kv string) bool { return strings.HasPrefix(kv, envPrefix) })
	if cfg.Home == HomeNone {
		env = withoutHome(env)
	}
	err = syscall.Exec(path, command, env)
	return fmt.Errorf("the entrypoint cannot be executed: %w", &programError{program: path, err: err, cause: cause(path, err)})
}

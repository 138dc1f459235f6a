package lambdainit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// killedBy is added to the number of the signal that has ended a program, for an exit status (bash(1)).
const killedBy = 128

// Exec runs the program of command, an image's that brings the Runtime Interface Emulator, with the limits, and as the user, that environ
// names, and with that environment but for what is meant for lambda-init. It brings what the program and its children write to the log
// (ESB_INIT_LOG, else out), passes signals on, and returns the exit status for this process when the program has ended, and nothing of what
// it started is left. An error says that it could not be started.
func Exec(environ, command []string, out io.Writer) (status int, err error) {
	if len(command) > 0 && command[0] == "--" {
		command = command[1:]
	}
	cfg, err := ConfigFromEnv(ownSettings(environ), command)
	if err != nil {
		return 0, err
	}
	// As with the Supervisor: nothing of this process is the function's to see.
	if err := harden(cfg); err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPIPE)
	defer signal.Stop(signals)
	procs, err := openProcesses(cfg.User)
	if err != nil {
		return 0, err
	}
	defer procs.close()
	if cfg.Log != "" {
		if file, err := os.OpenFile(cfg.Log, os.O_WRONLY|os.O_APPEND, 0); err != nil {
			_, _ = fmt.Fprintln(out, "lambda-init: open the log (ESB_INIT_LOG); it goes to standard output:", err)
		} else {
			defer func() { _ = file.Close() }()
			out = file
		}
	}
	log := openRawLog(out, cfg.LogRate)
	defer log.close(stuckLimit)
	ended, err := run(procs, command, execEnv(environ, cfg), log)
	if err != nil {
		return 0, fmt.Errorf("the entrypoint cannot be executed: %w", err)
	}
	for {
		select {
		case sig := <-signals:
			if sig != syscall.SIGPIPE {
				_ = syscall.Kill(ended.pid, sig.(syscall.Signal)) // it may be gone
			}
		case s := <-ended.status:
			procs.killAll(shutdownLimit)
			ended.output.close(stuckLimit)
			if s.Signaled() {
				return killedBy + int(s.Signal()), nil
			}
			return s.ExitStatus(), nil
		}
	}
}

// ownSettings are those of environ that count for a program that is only run; the others have their defaults.
func ownSettings(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return !slices.Contains([]string{
			"ESB_INIT_NOFILE", "ESB_INIT_NPROC", "ESB_INIT_HOME", "ESB_INIT_USER", "ESB_INIT_LOG", "ESB_INIT_LOG_RATE",
		}, name)
	})
}

// execEnv is the program's environment.
func execEnv(environ []string, cfg Config) []string {
	env := slices.DeleteFunc(slices.Clone(environ), func(kv string) bool { return strings.HasPrefix(kv, envPrefix) })
	switch {
	case cfg.Home == HomeNone:
		env = withoutHome(env)
	case cfg.Home == HomeUser && cfg.User != nil:
		env = append(withoutHome(env), "HOME="+cfg.User.home("/etc/passwd"))
	}
	return env
}

// program is one that Exec runs.
type program struct {
	pid    int
	status <-chan syscall.WaitStatus
	output *outputPipe
}

// run starts a program whose output goes to log.
func run(procs *processes, command, env []string, log *rawLog) (program, error) {
	output, w, err := openOutputPipe(log)
	if err != nil {
		return program{}, err
	}
	status := make(chan syscall.WaitStatus, 1)
	pid, err := procs.start(command, env, []uintptr{os.Stdin.Fd(), w.Fd(), w.Fd()}, func(s syscall.WaitStatus) { status <- s })
	err = errors.Join(err, w.Close())
	if err != nil {
		output.close(0)
		return program{}, err
	}
	return program{pid: pid, status: status, output: output}, nil
}

package lambdainit

import (
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
)

// envWrapper names a program that starts a managed runtime: it gets the runtime's command as arguments, changes what it likes of
// the environment, and becomes that command (AWS: Lambda developer guide, "Modifying the runtime environment", wrapper scripts).
const envWrapper = "AWS_LAMBDA_EXEC_WRAPPER"

// Exit statuses of AWS's start scripts, which are a shell's: the program is not there, or cannot be executed.
const (
	statusNoExecute = 126
	statusNotFound  = 127
)

// clientPrefix begins the paths of the box's runtime clients.
const clientPrefix = "/var/runtime/bootstrap."

// wrapped puts the wrapper in front of a command, which ends with the runtime's client as AWS's does: the handler is not an
// argument but the variable _HANDLER, which layers replace by their own; and what a wrapper puts before the last argument, as
// the example of the developer guide does, is the interpreter's.
func (c Config) wrapped() []string {
	if c.Wrapper == "" {
		return c.Command
	}
	command := c.Command
	if at := slices.IndexFunc(command, func(arg string) bool { return strings.HasPrefix(arg, clientPrefix) }); at >= 0 {
		command = command[:at+1]
	}
	wrapper := c.Wrapper
	if !strings.ContainsRune(wrapper, '/') {
		wrapper = "./" + wrapper // AWS looks for it in the working folder
	}
	return append([]string{wrapper}, command...)
}

// wrapperFault is what AWS's start scripts print, and the status that they end with, when the wrapper cannot be started; failed
// is the kernel's refusal, nil before it was asked. Status 0: it can.
func wrapperFault(wrapper string, failed error) (line string, status int) {
	info, err := os.Stat(wrapper)
	var refused *programError
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR), err == nil && !info.Mode().IsRegular():
		return wrapper + ": does not exist", statusNotFound
	case err == nil && info.Mode()&0o111 == 0:
		return wrapper + ": is not an executable", statusNoExecute
	case !errors.As(failed, &refused):
		return "", 0
	case errors.Is(refused.err, syscall.ENOENT):
		return refused.Error(), statusNotFound
	}
	return refused.Error(), statusNoExecute
}

// exitOf is the status of a process that has ended with code.
func exitOf(code int) syscall.WaitStatus { return syscall.WaitStatus(code << 8) }

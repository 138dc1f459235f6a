// Package storedb looks whether the databases of a containerd are whole, and makes room for new ones where they are not: what
// they list comes again from image archives and registries.
package storedb

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	// lockTimeout bounds the wait for a database that somebody has open.
	lockTimeout = 5 * time.Second
	// checkTimeout bounds one look.
	checkTimeout = time.Minute
	// exitDamaged is how a look ends that has found damage; exitPanic is Go's own for what it cannot go on after, damage or not.
	exitDamaged, exitPanic = 3, 2
)

// Inspect looks at databases and returns the exit code of the process that does nothing else: bbolt panics at some damage, also in
// goroutines of its own, and a file that is shorter than it says makes reading it fault.
func Inspect(files []string) (code int, said string) {
	defer func() {
		if p := recover(); p != nil {
			code, said = exitDamaged, fmt.Sprint(p)
		}
	}()
	debug.SetPanicOnFault(true)
	for _, file := range files {
		switch err := inspect(file); {
		case err == nil:
		case errors.Is(err, berrors.ErrTimeout), errors.Is(err, os.ErrPermission), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
			return 1, fmt.Sprintf("%s: %v", file, err)
		default:
			return exitDamaged, fmt.Sprintf("%s: %v", file, err)
		}
	}
	if len(files) < 2 {
		return 0, ""
	}
	missing, err := missingLayer(files[0], files[1])
	switch {
	case err != nil:
		return 1, err.Error()
	case missing != "":
		return exitDamaged, fmt.Sprintf("%s: has no layer %s", files[1], missing)
	}
	return 0, ""
}

// leak is the end of what bbolt says of a page that nothing uses and that its list of free ones lacks: room is lost, and nothing else.
const leak = ": unreachable unfreed"

func inspect(file string) error {
	if empty(file) {
		return nil
	}
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockTimeout})
	if err != nil {
		return err
	}
	err = db.View(func(tx *bbolt.Tx) error {
		// What is cut off may be pages that nothing uses: bbolt finds nothing wrong then, and ends whoever writes with a fault.
		info, err := os.Stat(file)
		if err != nil {
			return err
		}
		if info.Size() < tx.Size() {
			return fmt.Errorf("it has %d bytes of %d", info.Size(), tx.Size())
		}
		var first error
		for err := range tx.Check() {
			if first == nil && !strings.HasSuffix(err.Error(), leak) {
				first = err
			}
		}
		return first
	})
	return errors.Join(err, db.Close())
}

// Check looks at the databases of a containerd that does not run. command looks at them: it gets their paths as its last arguments,
// and ends with the exit code of Inspect. damage is "" when they are whole; the error says why that could not be learned.
func Check(ctx context.Context, command []string, root, state string) (damage string, err error) {
	damage, err = Judge(ctx, command, Databases(root, state))
	if err != nil {
		err = fmt.Errorf("look at the databases in %s: %w", root, err)
	}
	return damage, err
}

// Judge is Check of some databases.
func Judge(ctx context.Context, command, files []string) (damage string, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], append(slices.Clone(command[1:]), files...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	err = cmd.Run()
	if err == nil {
		return "", nil
	}
	if damage := Damage(err, said.String()); damage != "" && ctx.Err() == nil {
		return damage, nil
	}
	first, _, _ := strings.Cut(strings.TrimSpace(said.String()), "\n")
	return "", fmt.Errorf("%w: %s", errors.Join(err, ctx.Err()), first)
}

// Damage is what a process that looks at databases has found, by how it ended and what it said; "" when they are whole, or when it is
// the machine's fault that it could not look: for want of memory or threads Go ends a process with the code of a panic.
func Damage(ended error, said string) string {
	var exit *exec.ExitError
	if !errors.As(ended, &exit) {
		return ""
	}
	first, _, _ := strings.Cut(strings.TrimSpace(said), "\n")
	switch exit.ExitCode() {
	case exitDamaged:
		return cmp.Or(first, "it cannot be read")
	case exitPanic:
		for _, start := range []string{"panic: ", "unexpected fault address", "fatal error: fault", "runtime: goroutine stack exceeds"} {
			if strings.HasPrefix(first, start) {
				return first
			}
		}
	}
	return ""
}

// empty says whether a file is not there, or has nothing in it: containerd makes it.
func empty(file string) bool {
	info, err := os.Stat(file)
	return errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0
}

package stack

import (
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/edge-serverless-box/esb/guard/statefile"
	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/process"
)

// stateFile is a file in which the box keeps something.
type stateFile struct {
	path string
	// owner is the service that has it open, "" for none: it is not touched while that runs.
	owner string
	// form is that of a file of JSON, whole says what is wrong with the content of another one.
	form  statefile.Form
	whole func([]byte) error
	// again: the box makes a new one, and nothing is lost that it cannot do without.
	again bool
	// cure is what a person can do about one that has no form and is not set aside unasked.
	cure string
}

// stateFiles are those of this box.
func (s *Stack) stateFiles() []stateFile {
	home, gateway := s.settings.Home, s.settings.ServiceHome(native.Gateway)
	key := "Restore it from a backup, or remove it, for a new one: what the old one has signed or opens is void then."
	files := []stateFile{
		{path: recordFile(home), form: statefile.Stack(), again: true},
		{path: s.supervisorFile(), form: statefile.Supervisor(), again: true},
		{path: s.imagesFile(), form: statefile.Images(), again: true},
		{path: filepath.Join(gateway, "schedules.json"), owner: native.Gateway, form: statefile.Schedules(), again: true},
		{path: filepath.Join(gateway, "configuration.json"), owner: native.Gateway, form: statefile.Configuration(), again: true},
		{path: filepath.Join(gateway, "proven.json"), owner: native.Gateway, form: statefile.Proven(), again: true},
		{path: filepath.Join(gateway, "function-access.json"), owner: native.Gateway, form: statefile.FunctionAccess(), again: true},
		{path: filepath.Join(s.settings.LogsDir(), "shipped.json"), owner: native.Agent, form: statefile.Shipped(), again: true},
		{path: filepath.Join(s.settings.LogsDir(), "shipped-since.json"), owner: native.Agent, form: statefile.Shipped(), again: true},
		{path: filepath.Join(gateway, "jwt.key"), owner: native.Gateway, whole: notEmpty, cure: key},
		{path: filepath.Join(gateway, "admin-token"), owner: native.Gateway, whole: notEmpty, cure: key},
		{path: filepath.Join(gateway, "owner"), owner: native.Gateway, whole: notEmpty,
			cure: "Remove it, for a new one: containers that run are another gateway's then, and are replaced."},
		{path: filepath.Join(home, "agent-token"), owner: native.Agent, whole: notEmpty, cure: key},
		{path: filepath.Join(home, "function-keys"), whole: notEmpty, cure: key},
		{path: s.settings.SecretsFile(), whole: notEmpty, cure: key},
	}
	for _, name := range []string{"ca.key", "ca.crt", "server.key", "server.crt"} {
		files = append(files, stateFile{path: filepath.Join(gateway, "tls", name), owner: native.Gateway, whole: isPEM, cure: "Restore it from a backup, or remove the folder, for a new development CA, which clients have to trust anew."})
	}
	issuers, _ := filepath.Glob(filepath.Join(gateway, "jwks", "*.json")) // the pattern is right
	for _, file := range issuers {
		files = append(files, stateFile{path: file, owner: native.Gateway, form: statefile.IssuerKeys(), again: true})
	}
	for _, service := range allServices {
		files = append(files, stateFile{path: s.pidFile(service), form: statefile.Process(), again: true, whole: func([]byte) error {
			_, err := process.Read(s.pidFile(service))
			return err
		}})
	}
	return files
}

// look says of which version a file is, 0 where it is not there or says none, and what is wrong with it.
func (f stateFile) look() (version int, there bool, err error) {
	data, err := readRegular(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err == nil && f.form.Version > 0 {
		version, err = f.form.VersionIn(f.path, data)
	}
	if err == nil && f.whole != nil {
		if err = f.whole(data); err != nil {
			err = fmt.Errorf("%s is damaged: %w", f.path, err)
		}
	}
	return version, true, err
}

// maxStateFile is what one may have: the largest, of issuers' keys and functions' rights, stay far below it.
const maxStateFile = 64 << 20

// readRegular reads a file that another user may have put there: no link, nothing that blocks or never ends.
func readRegular(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("it is no regular file")}
	case info.Size() > maxStateFile:
		return nil, &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("it has %d bytes, and %d at most are read", info.Size(), maxStateFile)}
	}
	return io.ReadAll(io.LimitReader(f, maxStateFile))
}

// problem is what is wrong with a file, and what a person can do.
func (f stateFile) problem(err error) native.Problem {
	var useless *statefile.Error
	if errors.As(err, &useless) {
		return native.Problem{What: useless.What(), Do: useless.Cure()}
	}
	do := f.cure
	switch {
	case unread(err):
		do = "See to it that the file can be read, and look again: it may be whole."
	case f.form.Version > 0:
		do = "Move the file away. " + f.form.Lost
	}
	return native.Problem{What: err.Error(), Do: do}
}

// unread says whether a file could not be read, which says nothing of what is in it.
func unread(err error) bool {
	var failed *fs.PathError
	return errors.As(err, &failed)
}

// newer says whether an error is that of a file that a newer esb has written.
func newer(err error) bool {
	var useless *statefile.Error
	return errors.As(err, &useless) && useless.Newer()
}

// understood refuses to touch a box whose files a newer esb has written: half understood, they would be lost.
func (s *Stack) understood() error {
	var errs []error
	for _, f := range s.stateFiles() {
		if _, _, err := f.look(); newer(err) {
			problem := f.problem(err)
			errs = append(errs, &problem)
		}
	}
	return errors.Join(errs...)
}

// heal sets damaged files aside that the box makes anew, before anything reads them.
func (s *Stack) heal(ctx context.Context) {
	for _, f := range s.damagedFiles() {
		if f.fix == nil {
			continue // it may not be in use at all: who needs it says so, and then unhealed names its cure
		}
		s.console.Printf("==> warning: %s", f.What)
		if err := f.fix(ctx); err != nil {
			// The service that has it may still do without: that is no reason for a box to stay down.
			s.console.Printf("==> warning: %v", err)
		}
	}
}

// unhealed adds to an error of a start what is wrong with files that the box cannot make anew.
func (s *Stack) unhealed(err error) error {
	if err == nil {
		return nil
	}
	errs := []error{err}
	for _, f := range s.damagedFiles() {
		if f.fix == nil {
			errs = append(errs, &f.Problem)
		}
	}
	return errors.Join(errs...)
}

// sayFiles lists the files of state and what is wrong with which.
func (s *Stack) sayFiles() {
	s.console.Printf("files of state:")
	for _, f := range s.stateFiles() {
		version, there, err := f.look()
		text := "whole"
		switch {
		case !there:
			continue // it is made when it is needed
		case newer(err):
			text = fmt.Sprintf("version %d, and version %d at most is understood", version, f.form.Version)
		case unread(err):
			text = "cannot be read"
		case err != nil:
			text = "damaged"
		case f.form.Version > 0:
			text = fmt.Sprintf("version %d", version)
		}
		s.console.Printf("  %s: %s", f.path, text)
	}
}

func notEmpty(data []byte) error {
	if len(strings.TrimSpace(string(data))) == 0 {
		return errors.New("it is empty")
	}
	return nil
}

func isPEM(data []byte) error {
	if block, _ := pem.Decode(data); block == nil {
		return errors.New("it has no PEM block")
	}
	return nil
}

// lookFiles looks at the files of state, and at the store of images.
func (s *Stack) lookFiles(ctx context.Context) ([]finding, error) {
	s.sayFiles()
	store, err := s.lookStore(ctx)
	return append(s.damagedFiles(), store...), err
}

// damagedFiles are the files of state that are of no use. One that is not there is none: it is made when it is needed.
func (s *Stack) damagedFiles() []finding {
	var found []finding
	for _, f := range s.stateFiles() {
		_, _, err := f.look()
		if err == nil {
			continue
		}
		one := finding{Problem: f.problem(err)}
		if f.again && !newer(err) && !unread(err) {
			one.Do = "Set it aside: the box makes another. " + f.form.Lost
			one.fix = func(context.Context) error { return s.setAside(f.path) }
			if f.owner != "" {
				if _, alive, err := s.running(f.owner); err != nil || alive {
					one.fix, one.Do = nil, fmt.Sprintf("The %s writes it anew; stop the box and look again when it does not.", f.owner)
				}
			}
		}
		found = append(found, one)
	}
	return found
}

// exitDamaged is how the agent's program ends when it has found damage. Any other end, a crash of it too, says nothing of that.
const exitDamaged = 3

// lookStore has the agent's program look at the databases of a containerd that does not run.
func (s *Stack) lookStore(ctx context.Context) ([]finding, error) {
	for _, program := range []string{native.Agent, native.Containerd} {
		if strays, err := s.strays(program); err != nil || len(strays) > 0 {
			return nil, err
		}
	}
	root := filepath.Join(s.settings.Home, "containerd")
	files, err := filepath.Glob(filepath.Join(root, "*", "meta*.db"))
	binary := filepath.Join(s.settings.BinDir, native.Agent)
	if _, statErr := os.Stat(binary); err != nil || statErr != nil || len(files) == 0 {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, binary, append([]string{"judge-database"}, files...)...).CombinedOutput()
	if err == nil {
		return nil, nil
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitDamaged { // somebody has them open, or the machine lacks something
		return []finding{{Problem: native.Problem{
			What: fmt.Sprintf("the store of images in %s could not be looked at: %s", root, cmp.Or(first, err.Error())),
			Do:   "Run `esb doctor` again; when it says the same, end what has these files open.",
		}}}, nil
	}
	return []finding{{Problem: native.Problem{
		What: fmt.Sprintf("the store of images in %s is damaged: %s", root, first),
		Do:   "Run `esb up`: the agent sets it aside and makes it anew from archives and registries.",
	}}}, nil
}

// setAside moves a file to the folder of what was damaged, or gives it another name where it is: it may be on another disk, and there may
// be no room for a folder.
func (s *Stack) setAside(file string) error {
	dir := filepath.Join(s.settings.Home, "damaged", time.Now().UTC().Format("20060102T150405.000Z"))
	to := filepath.Join(dir, filepath.Base(file))
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = os.Rename(file, to)
	}
	if err != nil {
		to = file + ".damaged"
		if again := os.Rename(file, to); again != nil {
			return fmt.Errorf("set a damaged file aside: %w", errors.Join(err, again))
		}
	}
	s.console.Printf("set aside: %s is %s now", file, to)
	return nil
}

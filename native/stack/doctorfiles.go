package stack

import (
	"cmp"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/native"
	"github.com/edge-serverless-box/esb/native/process"
)

// stateFile is a file in which the box keeps something.
type stateFile struct {
	path string
	// owner is the service that has it open, "" for none: it is not touched while that runs.
	owner string
	// whole says what is wrong with its content.
	whole func([]byte) error
	// again: the box makes a new one, and nothing is lost that it cannot do without.
	again bool
	// cure is what a person can do about one that is not set aside unasked.
	cure string
}

// stateFiles are those of this box.
func (s *Stack) stateFiles() []stateFile {
	home, gateway := s.settings.Home, s.settings.ServiceHome(native.Gateway)
	key := "Restore it from a backup, or remove it, for a new one: what the old one has signed or opens is void then."
	files := []stateFile{
		{path: recordFile(home), whole: isJSON(0), again: true},
		{path: filepath.Join(gateway, "schedules.json"), owner: native.Gateway, whole: isJSON(1), again: true},
		{path: filepath.Join(gateway, "function-access.json"), owner: native.Gateway, whole: isJSON(0), again: true},
		{path: filepath.Join(s.settings.LogsDir(), "shipped.json"), owner: native.Agent, whole: isJSON(1), again: true},
		{path: filepath.Join(gateway, "jwt.key"), owner: native.Gateway, whole: notEmpty, cure: key},
		{path: filepath.Join(gateway, "admin-token"), owner: native.Gateway, whole: notEmpty, cure: key},
		{path: filepath.Join(home, "agent-token"), owner: native.Agent, whole: notEmpty, cure: key},
		{path: filepath.Join(home, "function-keys"), whole: notEmpty, cure: key},
		{path: s.settings.SecretsFile(), whole: notEmpty, cure: key},
	}
	for _, name := range []string{"ca.key", "ca.crt", "server.key", "server.crt"} {
		files = append(files, stateFile{path: filepath.Join(gateway, "tls", name), owner: native.Gateway, whole: isPEM, cure: "Restore it from a backup, or remove the folder, for a new development CA, which clients have to trust anew."})
	}
	for _, service := range allServices {
		files = append(files, stateFile{path: s.pidFile(service), again: true, whole: func([]byte) error {
			_, err := process.Read(s.pidFile(service))
			return err
		}})
	}
	return files
}

// errNewer is a file that a later version of esb has written.
var errNewer = errors.New("it was made by a newer esb")

// isJSON takes an object, of that version at most when it names one.
func isJSON(version int) func([]byte) error {
	return func(data []byte) error {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(data, &object); err != nil {
			return fmt.Errorf("it is no JSON object: %w", err)
		}
		var has int
		if err := json.Unmarshal(object["version"], &has); err == nil && has > version && version > 0 {
			return fmt.Errorf("%w: its version is %d, this one writes %d", errNewer, has, version)
		}
		return nil
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

// lookFiles reads the files of state. One that is not there is none: it is made when it is needed.
func (s *Stack) lookFiles(ctx context.Context) ([]finding, error) {
	var found []finding
	for _, f := range s.stateFiles() {
		data, err := os.ReadFile(f.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = f.whole(data)
		}
		if err == nil {
			continue
		}
		one := finding{Problem: native.Problem{What: fmt.Sprintf("%s is damaged: %v", f.path, err), Do: f.cure}}
		switch {
		case errors.Is(err, errNewer):
			one.What, one.Do = fmt.Sprintf("%s cannot be used: %v", f.path, err), "Use that esb again, or restore the file from a backup of this one."
		case f.again:
			one.Do = "Set it aside: the box makes another."
			one.fix = func(context.Context) error { return s.setAside(f.path) }
			if f.owner != "" {
				if _, alive, err := s.running(f.owner); err != nil || alive {
					one.fix, one.Do = nil, fmt.Sprintf("The %s writes it anew; stop the box and look again when it does not.", f.owner)
				}
			}
		}
		found = append(found, one)
	}
	store, err := s.lookStore(ctx)
	return append(found, store...), err
}

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
	out, err := exec.CommandContext(ctx, binary, append([]string{"check-database"}, files...)...).CombinedOutput()
	if err == nil {
		return nil, nil
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() == 1 { // somebody has them open, or the machine lacks something
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

// setAside moves a file to the folder of what was damaged.
func (s *Stack) setAside(file string) error {
	dir := filepath.Join(s.settings.Home, "damaged", time.Now().UTC().Format("20060102T150405.000Z"))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder for damaged files: %w", err)
	}
	if err := os.Rename(file, filepath.Join(dir, filepath.Base(file))); err != nil {
		return fmt.Errorf("set a damaged file aside: %w", err)
	}
	s.console.Printf("set aside: %s is in %s", file, dir)
	return nil
}

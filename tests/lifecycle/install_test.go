package lifecycle

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/native/release"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// workshop makes releases of this repository's programs.
type workshop struct {
	dir      string
	contents release.Contents
}

func mustOpenWorkshop(t *testing.T, box *stack.Stack) *workshop {
	t.Helper()
	root, err := stack.RepositoryRoot()
	require.NoError(t, err)
	out, err := box.Esb(t.Context(), "build")
	require.NoError(t, err, out)
	w := &workshop{dir: t.TempDir()}
	images, samples := filepath.Join(w.dir, "images"), filepath.Join(w.dir, "samples")
	require.NoError(t, os.Mkdir(images, 0o755))
	for _, name := range []string{"lambda-echo", "lambda-s3"} {
		program, err := stack.BuildProgram(root, w.dir, "./functions/"+name, "-tags", "lambda.norpc")
		require.NoError(t, err)
		archive, err := stack.BuildImage(root, w.dir, "esb/"+name+":latest", "-binary", program)
		require.NoError(t, err)
		require.NoError(t, os.Rename(archive, filepath.Join(images, name+".tar")))
	}
	mustWrite(t, filepath.Join(samples, "functions.yml"), `functions:
  echo: {image: "esb/lambda-echo:latest", timeout: 10, scaling: {min_capacity: 2, max_capacity: 4}}
  cold: {image: "esb/lambda-echo:latest", timeout: 10, scaling: {max_capacity: 6, idle_timeout: 1}}
  files: {image: "esb/lambda-s3:latest", timeout: 20, s3: [{bucket: esb-files, access: write}], scaling: {min_capacity: 1, max_capacity: 6}}
`)
	mustWrite(t, filepath.Join(samples, "routing.yml"), `routes:
  - {path: /echo, method: POST, function: echo}
  - {path: /cold, method: POST, function: cold}
  - {path: /files, method: POST, function: files}
`)
	mustWrite(t, filepath.Join(samples, "resources.yml"), "buckets: {esb-files: {}}\n")
	command, err := stack.BuildProgram(root, w.dir, "./native/cmd/esb")
	require.NoError(t, err)
	w.contents = release.Contents{Images: images, Samples: samples, Programs: map[string][]string{"esb": {command}}}
	for target, programs := range map[string][]string{
		"containerd": {"containerd", "containerd-shim-runc-v2"}, "runc": {"runc"}, "cni-plugins": {"bridge", "host-local", "loopback"},
		"agent": {"agent"}, "lambda-init": {"lambda-init"}, "esb-runc": {"esb-runc"}, "gateway": {"gateway"}, "esb-image": {"esb-image"},
		"stores": {"stores"}, "versitygw": {"versitygw"},
	} {
		for _, name := range programs {
			w.contents.Programs[target] = append(w.contents.Programs[target], filepath.Join(box.BinDir, name))
		}
	}
	return w
}

func mustWrite(t *testing.T, file, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
}

// make makes a release whose esb, agent, gateway and stores are other files than those of any other, and do the same.
func (w *workshop) make(t *testing.T, version string) string {
	t.Helper()
	for _, name := range []string{"esb", "agent", "gateway", "stores"} {
		data, err := os.ReadFile(w.contents.Programs[name][0])
		require.NoError(t, err)
		other := filepath.Join(w.dir, "of-"+version, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(other), 0o755))
		require.NoError(t, os.WriteFile(other, append(data, version...), 0o755)) // nobody reads what is behind the end of an ELF file
		w.contents.Programs[name] = []string{other}
	}
	made, err := release.Make(filepath.Join(w.dir, version), version, w.contents)
	require.NoError(t, err)
	return made.Dir
}

// asked is a function that openLoop asks: where, with what, and how often.
type asked struct {
	path, body string
	each       time.Duration
}

// allAsked are a function that is warm, one that has to be started for each request, and one that uses a store.
var allAsked = []asked{
	{"/echo", `{"message":"x"}`, 50 * time.Millisecond},
	{"/cold", `{"message":"x"}`, 2500 * time.Millisecond},
	{"/files", `{"action":"put","key":"x","body":"x"}`, 200 * time.Millisecond},
}

// openLoops asks all functions until stop, which says how often the one that answered least did, and asserts that they always did.
func openLoops(t *testing.T, box *stack.Stack, token string) (stop func() int) {
	t.Helper()
	var stops []func() int
	for _, a := range allAsked {
		stops = append(stops, openLoop(t, box, token, a))
	}
	return func() int {
		t.Helper()
		least := stops[0]()
		for i, stop := range stops[1:] {
			n := stop()
			t.Logf("%s answered %d times", allAsked[i+1].path, n)
			least = min(least, n)
		}
		return least
	}
}

// openLoop asks a function, however long answers take, until stop, which says how often it answered, and asserts that it always did.
func openLoop(t *testing.T, box *stack.Stack, token string, a asked) (stop func() int) {
	t.Helper()
	var mu sync.Mutex
	answered, failures := 0, []string{}
	done := make(chan struct{})
	var asking, ticking sync.WaitGroup
	ticking.Go(func() {
		ticker := time.NewTicker(a.each)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			asking.Go(func() {
				// net/http may send it once more, on another connection, if the one that it has kept is closed as it sends.
				answer, err := box.Do(t.Context(), http.MethodPost, box.HTTPURL+a.path, token, []byte(a.body), "Content-Type", "application/json", "Idempotency-Key", "x")
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
					failures = append(failures, err.Error())
				case answer.Status != http.StatusOK:
					failures = append(failures, fmt.Sprintf("%d: %s", answer.Status, answer.Body))
				default:
					answered++
				}
			})
		}
	})
	var once sync.Once
	end := func() {
		once.Do(func() { close(done) })
		ticking.Wait()
		asking.Wait()
	}
	t.Cleanup(end)
	return func() int {
		t.Helper()
		end()
		assert.Empty(t, failures, a.path)
		return answered
	}
}

// mustMove moves a process into a control group of its own, and returns what is in /proc/PID/cgroup of all that begin in that.
func mustMove(t *testing.T, pid int) string {
	t.Helper()
	group := fmt.Sprintf("esb-test-%d", pid)
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup", "/sys/fs/cgroup/freezer"} { // version 2, or 1
		if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err != nil {
			continue
		}
		dir := filepath.Join(root, group)
		require.NoError(t, os.Mkdir(dir, 0o755))
		t.Cleanup(func() {
			stack.Eventually(t, func() bool { return os.Remove(dir) == nil }, "nothing of the box must be left in "+dir)
		})
		require.NoError(t, os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, pid), 0))
		return "/" + group + "\n"
	}
	require.Fail(t, "there are no control groups")
	return ""
}

// TestInstallation: a box that has neither Go nor sources is installed, upgraded under load, and goes back from a release that is no good.
func TestInstallation(t *testing.T) {
	prefix := t.TempDir()
	home := filepath.Join(prefix, "var", "lib", "esb")
	require.NoError(t, os.MkdirAll(home, 0o755))
	if os.Getuid() != 0 {
		t.Fatal("the lifecycle tests start containers: run them as root")
	}
	box, err := stack.Prepare(home, stack.Options{Supervised: true, Env: []string{"DYNAMODB_ADDR=off", "VICTORIALOGS_ADDR=off", "REGISTRY_ADDR=off"}})
	require.NoError(t, err)
	w := mustOpenWorkshop(t, box)
	first, second := w.make(t, "1"), w.make(t, "2")
	root, err := stack.RepositoryRoot()
	require.NoError(t, err)
	broken, err := stack.BuildProgram(root, w.dir, "./tests/lifecycle/brokengateway", "-ldflags", "-X main.good="+w.contents.Programs["gateway"][0])
	require.NoError(t, err)
	require.NoError(t, os.Rename(broken, filepath.Join(w.dir, "gateway")))
	w.contents.Programs["gateway"] = []string{filepath.Join(w.dir, "gateway")}
	third := w.make(t, "3")

	// Whoever asks for Go leaves a mark.
	path, mark := filepath.Join(w.dir, "path"), filepath.Join(w.dir, "go-was-asked-for")
	mustWrite(t, filepath.Join(path, "go"), "#!/bin/sh\ntouch "+mark+"\nexit 99\n")
	require.NoError(t, os.Chmod(filepath.Join(path, "go"), 0o755))
	require.NoError(t, box.Install(t.Context(), prefix, first, path+":/usr/sbin:/usr/bin:/sbin:/bin"))
	ended := make(chan error, 1)
	go func() {
		said, err := box.Esb(t.Context(), "run")
		if err != nil {
			err = fmt.Errorf("%w:\n%s", err, said)
		}
		ended <- err
	}()
	installed := true
	t.Cleanup(func() {
		if installed {
			assert.NoError(t, box.Down())
		}
	})
	stack.Eventually(t, func() bool {
		s, err := box.Status(t.Context())
		return err == nil && s.State == "healthy" && s.Supervisor > 0
	}, "the box must be up")
	token, err := box.Token(t.Context())
	require.NoError(t, err)
	for _, a := range allAsked {
		stack.Eventually(t, func() bool {
			answer, err := box.Do(t.Context(), http.MethodPost, box.HTTPURL+a.path, token, []byte(a.body), "Content-Type", "application/json")
			return err == nil && answer.Status == http.StatusOK
		}, "%s must run", a.path)
	}
	release := func(name string) string {
		version, err := os.Readlink(filepath.Join(prefix, "opt", "esb", name))
		require.NoError(t, err)
		return version
	}
	before := mustStatus(t, box)
	group := mustMove(t, before.Supervisor) // as if systemd had started it

	stop := openLoops(t, box, token)
	said, err := box.Esb(t.Context(), "upgrade", second)
	require.NoError(t, err, said)
	assert.Positive(t, stop(), "no request fails")
	now := mustStatus(t, box)
	assert.Equal(t, "healthy", now.State)
	assert.Equal(t, []string{"2", "1"}, []string{release("current"), release("previous")})
	assert.Equal(t, before.Supervisor, now.Supervisor, "whoever started the supervisor sees it go on")
	for name, pid := range map[string]int{"gateway": now.PIDs()["gateway"], "agent": now.PIDs()["agent"], "stores": now.PIDs()["stores"], "esb": now.Supervisor} {
		program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		require.NoError(t, err)
		assert.Equal(t, filepath.Join(prefix, "opt", "esb", "2", name), program)
		groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		require.NoError(t, err)
		assert.Contains(t, string(groups), group, "the end of the session in which the upgrade was called is not the box's")
	}

	stop = openLoops(t, box, token)
	said, err = box.Esb(t.Context(), "upgrade", third)
	require.Error(t, err)
	assert.Positive(t, stop(), "nor when it goes back")
	assert.Contains(t, said, "this gateway is broken")
	assert.Contains(t, said, "went back to 2 by itself")
	assert.Equal(t, []string{"2", "1"}, []string{release("current"), release("previous")})
	back := mustStatus(t, box)
	assert.Equal(t, "healthy", back.State)
	assert.Equal(t, now.PIDs()["gateway"], back.PIDs()["gateway"], "it has served all the time")
	mustSignal(t, back.Supervisor, syscall.SIGTERM)
	require.NoError(t, <-ended)
	said, err = box.Esb(t.Context(), "uninstall", "-purge")
	require.NoError(t, err, said)
	installed = false
	for _, dir := range []string{"opt/esb", "etc/esb", "var/lib/esb", "usr/local/bin/esb", "etc/systemd/system/esb.service"} {
		assert.NoFileExists(t, filepath.Join(prefix, dir))
		assert.NoDirExists(t, filepath.Join(prefix, dir))
	}
	assert.NoFileExists(t, mark, "an installation must not want Go")
}

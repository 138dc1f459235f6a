package app

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/edge-serverless-box/esb/agent/settings"
	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
)

// mustParkedSettings are settings of a stack with so many parked containers, and an image for its functions.
func mustParkedSettings(t *testing.T, parked int) settings.Settings {
	t.Helper()
	s := mustSettings(t)
	s.ParkedSandboxes, s.ParkedSandboxesMax = parked, parked
	fn := filepath.Join(t.TempDir(), "fn")
	mustBuild(t, "./testdata/fn", fn)
	mustArchive(t, filepath.Join(s.ArchivesDir, "fn.tar"), "test/fn:1", fn, "one", "/fn")
	mustArchiveAs(t, filepath.Join(s.ArchivesDir, "user.tar"), "test/user:1", fmt.Sprint(theirs), fn, "user", "/fn")
	return s
}

// parkedIn counts the containers of a stack that are nobody's: lambda-init processes that wait.
func parkedIn(t *testing.T, s settings.Settings) (pids []int) {
	t.Helper()
	for _, pid := range processesWith(t, "lambda-init\x00-park\x00") {
		if groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid)); err == nil && strings.Contains(string(groups), "esb-"+s.Bridge+"/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// times counts how often something was logged.
func (l *logBuffer) times(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), s)
}

func (b *box) eventuallyParked(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return b.log.times(`"container parked"`) >= n }, patience, 10*time.Millisecond)
}

// inside asks a container what its sandbox is like, without what each has of its own.
func inside(t *testing.T, s settings.Settings, w *agentv1.WorkerInfo) map[string]any {
	t.Helper()
	text := string(mustJSON(t, invokeWith(t, w, `"inside"`)))
	suffix := w.GetId()[strings.LastIndexByte(w.GetId(), '-')+1:]
	text = strings.NewReplacer("lambda-fn-"+suffix, "<id>", "lambda-"+suffix, "<host>", w.GetIpAddress(), "<ip>").Replace(text)
	var out map[string]any
	require.NoError(t, json.Unmarshal([]byte(text), &out))
	var env []any
	for _, kv := range out["env"].([]any) {
		if !strings.HasPrefix(kv.(string), "AWS_LAMBDA_LOG_STREAM_NAME=") {
			env = append(env, kv)
		}
	}
	out["env"] = env
	// How many connections the function has, and the folder that it reads, is its own.
	var kinds []string
	for _, to := range out["descriptors"].(map[string]any) {
		kinds = append(kinds, to.(string))
	}
	slices.Sort(kinds)
	out["descriptors"] = slices.Compact(kinds)
	texts := out["text"].(map[string]any)
	for _, name := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		f := strings.Fields(texts[name].(string))
		require.Len(t, f, 3)
		texts[name] = f[0] + " " + f[2]
	}
	mounts := out["mounts"].([]any)
	slices.SortFunc(mounts, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
	delete(texts, "/proc/1/mountinfo") // the same, with other numbers
	return out
}

func TestAgent_Parked_IsAsAContainerThatWasMadeForItsFunction(t *testing.T) {
	s := mustParkedSettings(t, 1)
	b := mustStart(t, s)
	b.eventuallyParked(t, 1)
	assert.Empty(t, b.statuses(t), "they are nobody's business")
	w := b.ensure(t, request(supervised, map[string]string{"MINE": "1"}))
	require.True(t, b.log.contains(`"parked":true`))
	assert.Regexp(t, "^lambda-fn-[0-9a-f]{8}$", w.GetName())
	assert.Equal(t, w.GetName(), w.GetId())
	assert.Equal(t, map[string]string{w.GetId(): "RUNNING"}, b.statuses(t))
	got := inside(t, s, w)
	m := b.metrics(t, w.GetId())
	assert.EqualValues(t, 128<<20, m.GetMemoryLimitBytes())
	assert.FileExists(t, filepath.Join(s.LogDir, "functions", w.GetId()+".log"))
	b.stop()

	s.ParkedSandboxes = 0
	plain := mustStart(t, s)
	assert.Equal(t, map[string]string{w.GetId(): "RUNNING"}, plain.statuses(t), "what was bound lives on")
	assert.Equal(t, got, inside(t, s, w))
	w2 := plain.ensure(t, request(supervised, map[string]string{"MINE": "1"}))
	require.False(t, plain.log.contains(`"parked":true`))
	want := inside(t, s, w2)
	assert.Equal(t, "/run/esb/lambda-init\x00--\x00/fn\x00handler.main\x00", want["process 1"])
	for key := range want {
		assert.Equal(t, want[key], got[key], key)
	}
	plain.destroy(t, w.GetId())
	assert.Equal(t, map[string]string{w2.GetId(): "RUNNING"}, plain.statuses(t))
	plain.stop()
}

// One after the other fails when there is nothing to mount an image on.
func TestAgent_Parked_CannotBeBound_FunctionsStartAllTheSame(t *testing.T) {
	s := mustParkedSettings(t, 2)
	b := mustStart(t, s)
	b.eventuallyParked(t, 2)
	require.NoError(t, os.RemoveAll(filepath.Join(s.RunDir, "c", "parked", "views")))
	for i := range 3 {
		b.eventuallyParked(t, i+1)
		w := b.ensure(t, request(supervised, nil))
		invoke(t, w)
		b.destroy(t, w.GetId())
	}
	assert.False(t, b.log.contains(`"parked":true`))
	assert.Equal(t, 3, b.log.times("could not be bound to the function, which gets another one"))
	require.Eventually(t, func() bool { return len(parkedIn(t, s)) == 0 }, patience, 10*time.Millisecond, "they are of no use any more")
	assert.True(t, b.log.contains("no containers are made ahead for a while"))
	said, err := b.ListContainers(t.Context(), &agentv1.ListContainersRequest{})
	require.NoError(t, err)
	assert.Contains(t, strings.Join(said.GetNotes(), " "), "PARKED_SANDBOXES")
	w := b.ensure(t, request(supervised, nil))
	invoke(t, w)
	b.destroy(t, w.GetId())
	b.stop()
}

func TestAgent_Parked_LifeAndDeath(t *testing.T) {
	s := mustParkedSettings(t, 2)
	b := mustStart(t, s)
	b.eventuallyParked(t, 2)

	t.Run("each serves one function, and others come", func(t *testing.T) {
		first, second := b.ensure(t, request(supervised, nil)), b.ensure(t, request(supervised, map[string]string{"SECOND": "1"}))
		assert.Equal(t, 2, b.log.times(`"parked":true`))
		b.eventuallyParked(t, 4)
		env := invoke(t, second)["env"].(map[string]any)
		assert.Equal(t, "1", env["SECOND"])
		assert.NotContains(t, invoke(t, first)["env"], "SECOND")
		require.Eventually(t, func() bool { return len(parkedIn(t, s)) == 2 }, patience, 10*time.Millisecond)
		for _, w := range []*agentv1.WorkerInfo{first, second} {
			b.destroy(t, w.GetId())
		}
		assert.Empty(t, b.statuses(t))
	})

	t.Run("an image with a user of its own, and RIE, take none", func(t *testing.T) {
		before := b.log.times(`"parked":true`)
		r := request(supervised, nil)
		r.Image = "test/user:1"
		for _, r := range []*agentv1.EnsureContainerRequest{r, request(rie, nil)} {
			b.destroy(t, b.ensure(t, r).GetId())
		}
		assert.Equal(t, before, b.log.times(`"parked":true`))
	})

	t.Run("one that is killed is replaced", func(t *testing.T) {
		pids := parkedIn(t, s)
		require.Len(t, pids, 2)
		require.NoError(t, syscall.Kill(pids[0], syscall.SIGKILL))
		require.Eventually(t, func() bool {
			now := parkedIn(t, s)
			return len(now) == 2 && !slices.Contains(now, pids[0])
		}, patience, 10*time.Millisecond)
		b.eventuallyParked(t, b.log.times(`"container parked"`))
		w := b.ensure(t, request(supervised, nil))
		invoke(t, w)
		b.destroy(t, w.GetId())
	})

	t.Run("more at once than there are", func(t *testing.T) {
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				w, err := b.EnsureContainer(t.Context(), request(supervised, nil))
				if assert.NoError(t, err) {
					invoke(t, w)
					b.destroy(t, w.GetId())
				}
			})
		}
		all.Wait()
		assert.Empty(t, b.statuses(t))
	})

	t.Run("a standby container is bound, and starts its process with the first request", func(t *testing.T) {
		require.Eventually(t, func() bool { return len(parkedIn(t, s)) == 2 }, patience, 10*time.Millisecond)
		before := b.log.times(`"parked":true`)
		r := request(supervised, nil)
		r.Standby = true
		var w *agentv1.WorkerInfo
		require.Eventually(t, func() bool {
			w = b.ensure(t, r)
			bound := b.log.times(`"parked":true`) > before
			if !bound {
				b.destroy(t, w.GetId())
			}
			return bound
		}, patience, 100*time.Millisecond)
		invoke(t, w)
		b.destroy(t, w.GetId())
	})

	t.Run("a container that ends by itself is reported", func(t *testing.T) {
		w := b.ensure(t, request(supervised, nil))
		invoke(t, w)
		groups, err := filepath.Glob("/sys/fs/cgroup/*/esb-" + s.Bridge + "/lambda-*" + w.GetId()[len(w.GetId())-8:] + "/cgroup.procs")
		require.NoError(t, err)
		require.NotEmpty(t, groups)
		procs, err := os.ReadFile(groups[0])
		require.NoError(t, err)
		var pid int
		_, err = fmt.Sscan(string(procs), &pid)
		require.NoError(t, err)
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		require.Eventually(t, func() bool { return b.statuses(t)[w.GetId()] == "STOPPED" }, patience, 10*time.Millisecond)
		assert.EqualValues(t, 137, b.metrics(t, w.GetId()).GetExitCode())
		b.destroy(t, w.GetId())
	})

	t.Run("the agent ends those that are nobody's, and no others", func(t *testing.T) {
		w := b.ensure(t, request(supervised, nil))
		b.stop()
		require.Empty(t, slices.DeleteFunc(parkedIn(t, s), func(pid int) bool {
			root, _ := os.Stat(fmt.Sprintf("/proc/%d/root/fn", pid))
			return root != nil
		}))
		invoke(t, w)
		waiting, err := filepath.Glob(filepath.Join(s.LogDir, "functions", "*.parked"))
		require.NoError(t, err)
		assert.Empty(t, waiting)
	})
}

// mustProcess runs an agent as a process of its own, and returns how to kill it.
func mustProcess(t *testing.T, s settings.Settings) (b *box, kill func()) {
	t.Helper()
	program := filepath.Join(s.BinDir, "agent-under-test")
	if _, err := os.Stat(program); err != nil {
		mustBuild(t, "../cmd/agent", program)
	}
	b = &box{settings: s, log: new(logBuffer)}
	cmd := exec.Command(program)
	cmd.Stdout, cmd.Stderr = io.MultiWriter(t.Output(), b.log), t.Output()
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "ESB_HOME=" + s.Home, "ESB_BIN_DIR=" + s.BinDir, "AGENT_GRPC_ADDR=127.0.0.1:0", "ESB_BRIDGE=" + s.Bridge,
		"ESB_SUBNET=" + s.Subnet.String(), "ESB_DNS=192.0.2.53", "LOG_LEVEL=DEBUG", "PARKED_SANDBOXES=" + fmt.Sprint(s.ParkedSandboxes), "PARKED_SANDBOXES_MAX=" + fmt.Sprint(s.ParkedSandboxesMax),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, cmd.Start())
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	conn, err := grpc.NewClient("unix:"+s.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	b.AgentServiceClient = agentv1.NewAgentServiceClient(conn)
	require.Eventually(t, func() bool {
		_, err := b.ListContainers(t.Context(), &agentv1.ListContainersRequest{})
		return err == nil
	}, patience, 10*time.Millisecond)
	return b, kill
}

// An agent that is killed while it gives containers to functions leaves none that is nobody's, and none that has half of what it should.
func TestAgent_Parked_KilledWhileItBinds(t *testing.T) {
	s := mustParkedSettings(t, 3)
	known := map[string]*agentv1.WorkerInfo{}
	for round := range 4 {
		b, kill := mustProcess(t, s)
		require.Eventually(t, func() bool { return len(parkedIn(t, s)) >= 3 }, patience, 10*time.Millisecond)
		running := b.statuses(t)
		for id, w := range known {
			require.Equal(t, "RUNNING", running[id], "round %d: who was told of it may be using it", round)
			assert.Equal(t, "fn", invoke(t, w)["env"].(map[string]any)["AWS_LAMBDA_FUNCTION_NAME"], "round %d", round)
		}
		for id := range running { // also one of which nobody was told: it has ended, or is as any other
			b.destroy(t, id)
		}
		require.Eventually(t, func() bool { return len(parkedIn(t, s)) == 3 }, patience, 10*time.Millisecond, "what an agent before has parked has gone")
		clear(known)
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				w, err := b.EnsureContainer(t.Context(), request(supervised, nil))
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					known[w.GetId()] = w
				}
			})
		}
		time.Sleep(time.Duration(1+3*round) * time.Millisecond) // anywhere in the middle
		kill()
		all.Wait()
	}
	b, kill := mustProcess(t, s)
	for id := range b.statuses(t) {
		b.destroy(t, id)
	}
	assert.Empty(t, b.statuses(t))
	kill()
}

// containerd writes a container's new record when there is time. By then somebody uses it.
func TestAgent_Parked_KilledAsSoonAsItHasAnswered(t *testing.T) {
	s := mustParkedSettings(t, 3)
	b, kill := mustProcess(t, s)
	require.Eventually(t, func() bool { return len(parkedIn(t, s)) == 3 }, patience, 10*time.Millisecond)
	known := map[string]*agentv1.WorkerInfo{}
	for i := range 3 {
		w := b.ensure(t, request(supervised, map[string]string{"MINE": fmt.Sprint(i)}))
		known[w.GetId()] = w
	}
	kill()
	require.Equal(t, 3, b.log.times(`"parked":true`))
	for range 2 { // the second one knows them by containerd's record
		b, kill = mustProcess(t, s)
		running := b.statuses(t)
		for id, w := range known {
			require.Equal(t, "RUNNING", running[id])
			invoke(t, w)
		}
		require.Eventually(t, func() bool { return len(parkedIn(t, s)) == 3 }, patience, 10*time.Millisecond)
		notes, err := filepath.Glob(filepath.Join(s.RunDir, "c", "*", "bound.json"))
		require.NoError(t, err)
		for _, note := range notes {
			require.NoError(t, os.Remove(note))
		}
		kill()
	}
	b, kill = mustProcess(t, s)
	for id := range known {
		b.destroy(t, id)
	}
	assert.Empty(t, b.statuses(t))
	kill()
}

func TestAgent_Parked_AsManyAsWereWantedAtOnce(t *testing.T) {
	s := mustParkedSettings(t, 1)
	s.ParkedSandboxesMax = 3
	b := mustStart(t, s)
	b.eventuallyParked(t, 1)
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			if w, err := b.EnsureContainer(t.Context(), request(supervised, nil)); assert.NoError(t, err) {
				b.destroy(t, w.GetId())
			}
		})
	}
	all.Wait()
	require.Eventually(t, func() bool { return len(parkedIn(t, s)) == 3 }, patience, 10*time.Millisecond)
	b.stop()
	assert.Empty(t, parkedIn(t, s))
}

// What is left of damaged layers is the root filesystem of containers that were made of them.
func TestAgent_Parked_MendLeavesTheLayersOfContainers(t *testing.T) {
	s := mustParkedSettings(t, 1)
	b := mustStart(t, s)
	b.eventuallyParked(t, 1)
	w := b.ensure(t, request(supervised, nil))
	require.True(t, b.log.contains(`"parked":true`))
	// The image's own layer has the program; the one above has what is mounted on.
	folders, err := filepath.Glob(filepath.Join(s.Home, "containerd", "io.containerd.snapshotter.v1.overlayfs", "snapshots", "*", "fs"))
	require.NoError(t, err)
	var whole []string
	for _, dir := range folders {
		if _, err := os.Stat(filepath.Join(dir, "fn")); err == nil {
			require.NoError(t, os.RemoveAll(dir))
		} else {
			whole = append(whole, dir)
		}
	}
	require.NotEmpty(t, whole)
	b.eventuallyParked(t, 2)
	_, err = b.EnsureContainer(t.Context(), request(supervised, nil))
	require.Error(t, err, "it cannot be made again under the other one")
	for _, dir := range whole {
		assert.DirExists(t, dir)
	}
	invoke(t, w)
	b.destroy(t, w.GetId())
	b.stop()
}

// lambda-init may be installed anew while its agent runs: what is started from then on has that one.
func TestAgent_Parked_ProgramIsReplaced_OthersAreMade(t *testing.T) {
	s := mustParkedSettings(t, 1)
	b := mustStart(t, s)
	b.eventuallyParked(t, 1)
	program := filepath.Join(s.BinDir, "lambda-init")
	text, err := os.ReadFile(program)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(program+".new", text, 0o755))
	require.NoError(t, os.Rename(program+".new", program))
	for parked := range 2 {
		b.eventuallyParked(t, 1+parked)
		w := b.ensure(t, request(supervised, nil))
		invoke(t, w)
		b.destroy(t, w.GetId())
		assert.Equal(t, parked, b.log.times(`"parked":true`))
	}
	assert.Zero(t, b.log.times("could not be bound"))
	b.stop()
}

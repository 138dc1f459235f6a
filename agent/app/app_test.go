package app

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/edge-serverless-box/esb/agent/settings"
	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/guard/bearer"
	"github.com/edge-serverless-box/esb/guard/timeslice"
)

const (
	rie        = agentv1.RuntimeInterface_RUNTIME_INTERFACE_RIE
	supervised = agentv1.RuntimeInterface_RUNTIME_INTERFACE_SUPERVISOR
	// patience is a generous limit for what should take milliseconds.
	patience = 60 * time.Second
)

// box is an agent with its own stack, and a client of it.
type box struct {
	agentv1.AgentServiceClient
	settings settings.Settings
	log      *logBuffer
	health   healthpb.HealthClient
	stop     func()
}

// logBuffer keeps what an agent logs.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBuffer) contains(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.text.String(), s)
}

// needBinaries returns the folder of built binaries, or skips.
func needBinaries(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it starts real containers")
	}
	dir := os.Getenv("ESB_BIN_DIR")
	if dir == "" {
		dir = "../../.esb/bin"
	}
	dir, err := filepath.Abs(dir)
	require.NoError(t, err)
	for _, name := range []string{"containerd", "containerd-shim-runc-v2", "runc", "bridge", "host-local"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Skipf("needs %s, made by \"go tool task build\", or ESB_BIN_DIR: %v", name, err)
		}
	}
	return dir
}

// mustBuild builds a Go command of this module statically.
func mustBuild(t *testing.T, pkg, out string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	b, err := cmd.CombinedOutput()
	require.NoError(t, err, string(b))
}

// mustSettings makes settings of a stack that nothing else on the machine uses. What it leaves is purged at the end.
func mustSettings(t *testing.T) settings.Settings {
	t.Helper()
	bin, tools := t.TempDir(), needBinaries(t)
	entries, err := os.ReadDir(tools)
	require.NoError(t, err)
	for _, e := range entries {
		if e.Name() != "lambda-init" && e.Name() != "esb-runc" {
			require.NoError(t, os.Symlink(filepath.Join(tools, e.Name()), filepath.Join(bin, e.Name())))
		}
	}
	mustBuild(t, "../cmd/lambda-init", filepath.Join(bin, "lambda-init"))
	mustBuild(t, "../cmd/esb-runc", filepath.Join(bin, "esb-runc"))
	var random [3]byte
	_, _ = rand.Read(random[:])
	env := map[string]string{
		"ESB_HOME": t.TempDir(), "ESB_BIN_DIR": bin, "AGENT_GRPC_ADDR": "127.0.0.1:0", "CODE_ROOTS": os.TempDir(), "IMAGE_MAX_MB": "64",
		"ESB_BRIDGE": "esba" + hex.EncodeToString(random[:]),
		// The tests of agent/cni, which may run at the same time, have 10.192 and up, those of whole boxes 10.100 and up.
		"ESB_SUBNET": fmt.Sprintf("10.%d.%d.0/24", 20+random[0]%60, random[1]),
		"ESB_DNS":    "192.0.2.53", "FUNCTION_CPU_WEIGHT": "100", "CONTAINER_READY_TIMEOUT_SECONDS": "10", "LOG_LEVEL": "DEBUG",
		"GATEWAY_UID": "4242", "PARKED_SANDBOXES": "0", // most tests count what a container has
	}
	s, err := settings.Load(func(name string) string { return env[name] }, "")
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, Purge(ctx, s, slog.New(slog.NewJSONHandler(t.Output(), nil))))
		assertNothingLeft(t, s)
	})
	return s
}

// disksOf lists the loop devices of a stack's disks.
func disksOf(s settings.Settings) (devices []string) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(text), s.Home+"/") {
			devices = append(devices, strings.Split(file, "/")[3])
		}
	}
	return devices
}

// assertNothingLeft looks for everything that a stack makes on the machine.
func assertNothingLeft(t *testing.T, s settings.Settings) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	require.NoError(t, err)
	for _, path := range []string{s.Home, s.RunDir} {
		assert.NotContains(t, string(mounts), path+"/", "mounts")
	}
	assert.Eventually(t, func() bool { return len(disksOf(s)) == 0 }, patience, 10*time.Millisecond, "loop devices")
	assert.NoDirExists(t, s.RunDir)
	groups, err := filepath.Glob("/sys/fs/cgroup/*/esb-" + s.Bridge)
	require.NoError(t, err)
	assert.Empty(t, groups)
	assert.NoDirExists(t, "/sys/fs/cgroup/esb-"+s.Bridge)
	links, err := net.Interfaces()
	require.NoError(t, err)
	for _, l := range links {
		assert.NotEqual(t, s.Bridge, l.Name)
	}
	assert.Empty(t, processesWith(t, s.RunDir+"/"))
}

// kernelAtLeast says whether this is Linux major.minor or later.
func kernelAtLeast(major, minor int) bool {
	var name unix.Utsname
	var a, b int
	if unix.Uname(&name) != nil {
		return false
	}
	_, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &a, &b)
	return err == nil && (a > major || a == major && b >= minor)
}

// processesWith lists the processes whose command line has text in it.
func processesWith(t *testing.T, text string) []int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	var pids []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.Contains(string(b), text) {
			pid, err := strconv.Atoi(path.Base(path.Dir(f)))
			require.NoError(t, err)
			pids = append(pids, pid)
		}
	}
	return pids
}

// mustStart runs an agent until the test ends or stop is called.
func mustStart(t *testing.T, s settings.Settings) *box {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	addr, done := make(chan net.Addr, 1), make(chan error, 1)
	b := &box{settings: s, log: new(logBuffer)}
	go func() {
		out := io.MultiWriter(t.Output(), b.log)
		done <- Run(ctx, s, slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: s.LogLevel})), func(a net.Addr) { addr <- a })
	}()
	stopped := false
	b.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		require.NoError(t, <-done)
	}
	t.Cleanup(b.stop)
	select {
	case a := <-addr:
		conn, err := grpc.NewClient(a.String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithPerRPCCredentials(bearer.File(s.TokenFile)))
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		b.AgentServiceClient, b.health = agentv1.NewAgentServiceClient(conn), healthpb.NewHealthClient(conn)
	case err := <-done:
		stopped = true
		cancel()
		require.NoError(t, err, "the agent ended")
	}
	return b
}

// request asks for one container of the test's image.
func request(ri agentv1.RuntimeInterface, env map[string]string) *agentv1.EnsureContainerRequest {
	return &agentv1.EnsureContainerRequest{
		FunctionName: "fn", Image: "test/fn:1", MemorySizeMb: 128, TimeoutSeconds: 7, RuntimeInterface: ri, Env: env,
		Generation: "g1", RequestId: "r1",
	}
}

func (b *box) ensure(t *testing.T, r *agentv1.EnsureContainerRequest) *agentv1.WorkerInfo {
	t.Helper()
	w, err := b.EnsureContainer(t.Context(), r)
	require.NoError(t, err)
	return w
}

func (b *box) refused(t *testing.T, r *agentv1.EnsureContainerRequest, code codes.Code, text ...string) {
	t.Helper()
	_, err := b.EnsureContainer(t.Context(), r)
	require.Equal(t, code.String(), status.Code(err).String(), "%v", err)
	for _, s := range text {
		assert.ErrorContains(t, err, s)
	}
}

// statuses lists the containers with their states.
func (b *box) statuses(t *testing.T) map[string]string {
	t.Helper()
	l, err := b.ListContainers(t.Context(), &agentv1.ListContainersRequest{})
	require.NoError(t, err)
	out := map[string]string{}
	for _, c := range l.GetContainers() {
		out[c.GetContainerId()] = c.GetStatus().String()
	}
	return out
}

func (b *box) metrics(t *testing.T, id string) *agentv1.GetContainerMetricsResponse {
	t.Helper()
	m, err := b.GetContainerMetrics(t.Context(), &agentv1.GetContainerMetricsRequest{ContainerId: id})
	require.NoError(t, err)
	return m
}

func (b *box) destroy(t *testing.T, id string) {
	t.Helper()
	_, err := b.DestroyContainer(t.Context(), &agentv1.DestroyContainerRequest{ContainerId: id, Reason: "test"})
	require.NoError(t, err)
}

// invoke posts to a worker and decodes its answer.
func invoke(t *testing.T, w *agentv1.WorkerInfo) map[string]any {
	t.Helper()
	return invokeWith(t, w, "{}")
}

func invokeWith(t *testing.T, w *agentv1.WorkerInfo, event string) map[string]any {
	t.Helper()
	url := fmt.Sprintf("http://%s:%d/2015-03-31/functions/function/invocations", w.GetIpAddress(), w.GetPort())
	client := http.Client{Timeout: patience}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(event))
	require.NoError(t, err)
	req.Header.Set("X-Esb-Container-Id", w.GetId())
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	raw, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var out map[string]any
	require.NoError(t, json.Unmarshal(raw, &out), string(raw))
	return out
}

// mustArchive writes an OCI archive of the test's function with that name in it. extra changes its digest.
func mustArchive(t *testing.T, file, name, program, extra string, entrypoint ...string) {
	t.Helper()
	mustArchiveAs(t, file, name, "", program, extra, entrypoint...)
}

// theirs is a user of an image that has files for himself alone.
const theirs = 65534

// mustArchiveAs is mustArchive with a USER.
func mustArchiveAs(t *testing.T, file, name, user, program, extra string, entrypoint ...string) {
	t.Helper()
	binary, err := os.ReadFile(program)
	require.NoError(t, err)
	layer := tarOf(t, []entry{{"fn", binary, 0o755}, {"extra", []byte(extra), 0o644}, {"not-executable", []byte("x"), 0o644}, {"theirs", []byte("mine alone"), 0o600}})
	diff := digestOf(layer)
	config := mustJSON(t, map[string]any{
		"architecture": "amd64", "os": "linux",
		// The label counts for images that are named as the box's base images are.
		"config": map[string]any{"Labels": map[string]string{"io.esb.client.waits": "1"}, "User": user, "Entrypoint": entrypoint, "Cmd": []string{"handler.main"}, "Env": []string{"FROM_IMAGE=1", "BOTH=image", "AWS_REGION=moon"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{diff}},
	})
	descriptor := func(media string, b []byte) map[string]any {
		return map[string]any{"mediaType": media, "digest": digestOf(b), "size": len(b)}
	}
	manifest := mustJSON(t, map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": descriptor("application/vnd.oci.image.config.v1+json", config),
		"layers": []any{descriptor("application/vnd.oci.image.layer.v1.tar", layer)},
	})
	top := descriptor("application/vnd.oci.image.manifest.v1+json", manifest)
	top["annotations"] = map[string]string{"org.opencontainers.image.ref.name": name}
	index := mustJSON(t, map[string]any{"schemaVersion": 2, "manifests": []any{top}})
	blob := func(b []byte) entry {
		return entry{"blobs/sha256/" + strings.TrimPrefix(digestOf(b), "sha256:"), b, 0o644}
	}
	all := tarOf(t, []entry{{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644}, {"index.json", index, 0o644},
		blob(manifest), blob(config), blob(layer)})
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file+".part", all, 0o644))
	require.NoError(t, os.Rename(file+".part", file))
}

type entry struct {
	name string
	data []byte
	mode int64
}

func tarOf(t *testing.T, entries []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: e.mode, Size: int64(len(e.data)), Typeflag: tar.TypeReg}
		if e.name == "theirs" {
			h.Uid, h.Gid = theirs, theirs
		}
		require.NoError(t, w.WriteHeader(h))
		_, err := w.Write(e.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

// registry serves one image from memory, as an OCI registry does.
type registry struct {
	*httptest.Server
	mu       sync.Mutex
	blobs    map[string][]byte
	manifest []byte
}

func mustRegistry(t *testing.T) *registry {
	t.Helper()
	r := &registry{blobs: map[string][]byte{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *registry) host() string { return strings.TrimPrefix(r.URL, "http://") }

// ServeHTTP wants the password "secret" for everything under /v2/private/.
func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, password, _ := req.BasicAuth(); strings.HasPrefix(req.URL.Path, "/v2/private/") && password != "secret" {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	name := path.Base(req.URL.Path)
	body, ok := r.blobs[name]
	if name == "1" || name == digestOf(r.manifest) {
		body, ok = r.manifest, true
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Docker-Content-Digest", digestOf(r.manifest))
	}
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

// push makes the image of an archive the registry's.
func (r *registry) push(t *testing.T, archive string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	f, err := os.Open(archive)
	require.NoError(t, err)
	defer func() { _ = f.Close() }()
	for tr := tar.NewReader(f); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
		b, err := io.ReadAll(tr)
		require.NoError(t, err)
		if strings.HasPrefix(h.Name, "blobs/") {
			r.blobs["sha256:"+path.Base(h.Name)] = b
			if bytes.Contains(b, []byte(`"layers":`)) {
				r.manifest = b
			}
		}
	}
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return b
}

// TestAgent goes through the life of real containers with one agent.
func TestAgent(t *testing.T) {
	s := mustSettings(t)
	fn := filepath.Join(t.TempDir(), "fn")
	mustBuild(t, "./testdata/fn", fn)
	archive := filepath.Join(s.ArchivesDir, "fn.tar")
	mustArchive(t, archive, "test/fn:1", fn, "one", "/fn")
	mustArchive(t, filepath.Join(s.ArchivesDir, "bad.tar"), "test/bad:1", fn, "", "/nowhere")
	mustArchive(t, filepath.Join(s.ArchivesDir, "large.tar"), "test/large:1", fn, strings.Repeat("0", 64<<20), "/fn")
	mustArchiveAs(t, filepath.Join(s.ArchivesDir, "user.tar"), "test/user:1", strconv.Itoa(theirs), fn, "user", "/fn")
	reg := mustRegistry(t)
	s.RegistryConfig = filepath.Join(t.TempDir(), "config.json")
	writeConfig := func(text string) { require.NoError(t, os.WriteFile(s.RegistryConfig, []byte(text), 0o600)) }
	writeConfig("{}")
	whole, b := t, mustStart(t, s)

	t.Run("health", func(t *testing.T) {
		require.Eventually(t, func() bool {
			r, err := b.health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "esb.agent.v1.AgentService"})
			return err == nil && r.GetStatus() == healthpb.HealthCheckResponse_SERVING
		}, patience, 10*time.Millisecond)
	})

	t.Run("a second agent of the same stack is refused", func(t *testing.T) {
		err := Run(t.Context(), s, slog.New(slog.DiscardHandler), nil)
		assert.ErrorContains(t, err, "ESB_BRIDGE")
	})

	for name, ri := range map[string]agentv1.RuntimeInterface{"rie": rie, "supervisor": supervised} {
		t.Run(name+" container sees what it should", func(t *testing.T) {
			w := b.ensure(t, request(ri, map[string]string{"MINE": "1", "BOTH": "function", "AWS_REGION": "mars", "AWS_LAMBDA_RUNTIME_API": "x"}))
			assert.Contains(t, w.GetName(), "lambda-fn-")
			assert.True(t, s.Subnet.Contains(netip.MustParseAddr(w.GetIpAddress())))
			got := invoke(t, w)
			env, _ := got["env"].(map[string]any)
			timeout := "7"
			if ri == rie {
				timeout = "8"
				assert.NotContains(t, env, "AWS_LAMBDA_RUNTIME_API")
			}
			for k, v := range map[string]string{
				"MINE": "1", "FROM_IMAGE": "1", "BOTH": "function", "AWS_REGION": "us-east-1", "AWS_LAMBDA_FUNCTION_NAME": "fn",
				"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128", "AWS_LAMBDA_FUNCTION_TIMEOUT": timeout, "_HANDLER": "handler.main",
			} {
				assert.Equal(t, v, env[k], k)
			}
			assert.NotContains(t, env, "AWS_EXECUTION_ENV")
			for k, v := range map[string]any{
				"capabilities": strings.Repeat("0", 32), "no_new_privileges": "1", "seccomp": "2", "files": 1024.0, "tmp_mb": 512.0, "tmp_type": float64(unix.EXT4_SUPER_MAGIC), "tmp_user": "root 777",
				"memory_limit": "134217728\n",
				"write_root":   "refused", "write_dev": "refused", "write_run": "refused", "write_cgroup": "refused", "write_tmp": "written",
			} {
				assert.Equal(t, v, got[k], k)
			}
			assert.Regexp(t, "^MemTotal: +131072 kB\nMemFree: +131072 kB\n", got["meminfo"])
			assert.Contains(t, got["resolv"], "nameserver 192.0.2.53")
			assert.Contains(t, got["hosts"], w.GetIpAddress())
			assert.Contains(t, got["hosts"], "esb.internal")
			if ri == supervised && kernelAtLeast(6, 12) {
				assert.EqualValues(t, timeslice.Short, got["slice"], "the length of its turns on the CPU")
			}
			b.destroy(t, w.GetId())
			assert.Empty(t, b.statuses(t))
		})
	}

	for name, ri := range map[string]agentv1.RuntimeInterface{"rie": rie, "supervisor": supervised} {
		t.Run(name+" container is the image's user, and another on the machine", func(t *testing.T) {
			for image, uid := range map[string]float64{"test/fn:1": 993, "test/user:1": theirs} {
				r := request(ri, nil)
				r.Image = image
				w := b.ensure(t, r)
				got := invoke(t, w)
				assert.Equal(t, uid, got["uid"], image)
				assert.Equal(t, image == "test/user:1", got["theirs"] == "mine alone", "%s: %v", image, got["theirs"])
				found := 0
				for _, pid := range processesWith(t, "/fn\x00handler.main") {
					info, err := os.Stat(fmt.Sprintf("/proc/%d/cmdline", pid))
					if errors.Is(err, os.ErrNotExist) {
						continue // one of another container's, which has ended since
					}
					require.NoError(t, err)
					if st := info.Sys().(*syscall.Stat_t); st.Uid >= s.UIDBase && st.Uid%65536 == uint32(uid) {
						found++
					}
				}
				assert.Positive(t, found)
				b.destroy(t, w.GetId())
			}
		})
	}

	t.Run("standby container starts its process with the first request, and gets its quota then", func(t *testing.T) {
		r := request(supervised, nil)
		r.Standby = true
		w := b.ensure(t, r)
		read := quotaOf(s, w.GetId())
		assert.Regexp(t, "^(-1|max)", read())
		assert.Equal(t, "7", invoke(t, w)["env"].(map[string]any)["AWS_LAMBDA_FUNCTION_TIMEOUT"])
		assert.Eventually(t, func() bool { return strings.HasPrefix(read(), "7235") }, patience, 10*time.Millisecond)
		b.destroy(t, w.GetId())
	})

	t.Run("a new life of the function's process has all the CPU for its init, and then the quota again", func(t *testing.T) {
		r := request(supervised, map[string]string{"MODE": "boosted"})
		w := b.ensure(t, r)
		quota := quotaOf(s, w.GetId())
		limited := func() bool { return strings.HasPrefix(quota(), "7235") }
		for range 3 {
			assert.Equal(t, true, invoke(t, w)["boosted"])
			require.Eventually(t, limited, patience, 10*time.Millisecond)
			assert.Equal(t, "Runtime.ExitError", invokeWith(t, w, `"exit"`)["errorType"])
		}
		b.destroy(t, w.GetId())
	})

	t.Run("pause, resume, metrics, destroy while paused", func(t *testing.T) {
		w := b.ensure(t, request(rie, nil))
		id := w.GetId()
		for range 2 { // pausing the paused is no error
			_, err := b.PauseContainer(t.Context(), &agentv1.PauseContainerRequest{ContainerId: id})
			require.NoError(t, err)
		}
		assert.Equal(t, map[string]string{id: "PAUSED"}, b.statuses(t))
		_, err := b.ResumeContainer(t.Context(), &agentv1.ResumeContainerRequest{ContainerId: id})
		require.NoError(t, err)
		assert.Equal(t, map[string]string{id: "RUNNING"}, b.statuses(t))
		invoke(t, w)
		m := b.metrics(t, id)
		assert.EqualValues(t, 128<<20, m.GetMemoryLimitBytes())
		assert.Positive(t, m.GetMemoryPeakBytes())
		assert.Positive(t, m.GetCpuUsageNanoseconds())
		assert.Positive(t, m.GetPidsCurrent())
		assert.Nil(t, m.ExitCode)
		_, err = b.PauseContainer(t.Context(), &agentv1.PauseContainerRequest{ContainerId: id})
		require.NoError(t, err)
		both := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := b.DestroyContainer(t.Context(), &agentv1.DestroyContainerRequest{ContainerId: id, GraceSeconds: 1})
				both <- err
			}()
		}
		for range 2 {
			if err := <-both; err != nil {
				assert.Equal(t, codes.NotFound, status.Code(err), "the later of two may find it gone")
			}
		}
		assert.Empty(t, b.statuses(t))
		_, err = b.DestroyContainer(t.Context(), &agentv1.DestroyContainerRequest{ContainerId: id})
		assert.Equal(t, codes.NotFound, status.Code(err))
		_, err = b.PauseContainer(t.Context(), &agentv1.PauseContainerRequest{ContainerId: id})
		assert.Equal(t, codes.NotFound, status.Code(err))
	})

	t.Run("what is frozen is thawed by the file that a caller of this machine is told", func(t *testing.T) {
		w := b.ensure(t, request(rie, nil))
		id := w.GetId()
		conn, err := grpc.NewClient("unix:"+s.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		res, err := agentv1.NewAgentServiceClient(conn).PauseContainer(t.Context(), &agentv1.PauseContainerRequest{ContainerId: id})
		require.NoError(t, err)
		assert.Equal(t, map[string]string{id: "PAUSED"}, b.statuses(t))
		info, err := os.Stat(res.GetThawFile())
		require.NoError(t, err)
		assert.EqualValues(t, s.GatewayUID, info.Sys().(*syscall.Stat_t).Uid)
		require.NoError(t, os.WriteFile(res.GetThawFile(), []byte(res.GetThawText()), 0))
		assert.Equal(t, map[string]string{id: "RUNNING"}, b.statuses(t))
		invoke(t, w)
		res, err = b.PauseContainer(t.Context(), &agentv1.PauseContainerRequest{ContainerId: id})
		require.NoError(t, err)
		assert.Empty(t, res.GetThawFile(), "who comes by TCP may be on another machine")
		b.destroy(t, id)
	})

	t.Run("a disk goes with its container, and two are ready for the next", func(t *testing.T) {
		require.Eventually(t, func() bool { return len(disksOf(s)) == 2 }, patience, 10*time.Millisecond)
		w, r := b.ensure(t, request(supervised, nil)), request(supervised, nil)
		r.EphemeralStorageMb = 700
		large := b.ensure(t, r)
		require.Eventually(t, func() bool { return len(disksOf(s)) == 4 }, patience, 10*time.Millisecond)
		assert.Equal(t, 700.0, invoke(t, large)["tmp_mb"])
		files, err := os.ReadDir(filepath.Join(s.Home, "tmp"))
		require.NoError(t, err)
		assert.Empty(t, files, "what has no name cannot be left")
		b.destroy(t, w.GetId())
		b.destroy(t, large.GetId())
		require.Eventually(t, func() bool { return len(disksOf(s)) == 2 }, patience, 10*time.Millisecond)
	})

	t.Run("a container that ends by itself is reported with its exit code", func(t *testing.T) {
		w := b.ensure(t, request(rie, nil))
		_, err := http.Get("http://" + net.JoinHostPort(w.GetIpAddress(), "8080") + "/crash")
		require.Error(t, err)
		require.Eventually(t, func() bool { return b.statuses(t)[w.GetId()] == "STOPPED" }, patience, 10*time.Millisecond)
		m := b.metrics(t, w.GetId())
		assert.EqualValues(t, 4, m.GetExitCode())
		assert.Zero(t, m.GetOomKills())
		require.Eventually(t, func() bool { return b.log.contains("container ended by itself") }, patience, 10*time.Millisecond)
		b.destroy(t, w.GetId())
	})

	t.Run("out of memory is told", func(t *testing.T) {
		w := b.ensure(t, request(rie, nil))
		_, err := http.Get("http://" + net.JoinHostPort(w.GetIpAddress(), "8080") + "/oom")
		require.Error(t, err)
		require.Eventually(t, func() bool { return b.statuses(t)[w.GetId()] == "STOPPED" }, patience, 10*time.Millisecond)
		assert.Positive(t, b.metrics(t, w.GetId()).GetOomKills())
		b.destroy(t, w.GetId())
	})

	for path, least := range map[string]uint64{"/bomb": 500, "/sleepers": 360} {
		t.Run("a small container ends at once, whatever runs in it: "+path, func(t *testing.T) {
			w := b.ensure(t, request(rie, nil))
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(w.GetIpAddress(), "8080")+path, nil)
			require.NoError(t, err)
			go func() {
				if resp, err := http.DefaultClient.Do(req); err == nil { // it need not get to an answer
					_ = resp.Body.Close()
				}
			}()
			require.Eventually(t, func() bool { return b.metrics(t, w.GetId()).GetPidsCurrent() >= least }, patience, 10*time.Millisecond)
			b.destroy(t, w.GetId())
			assert.Empty(t, b.statuses(t))
			groups, err := filepath.Glob("/sys/fs/cgroup/*/esb-" + s.Bridge + "/" + w.GetId())
			require.NoError(t, err)
			assert.Empty(t, groups)
		})
	}

	t.Run("starts that fail say why and leave nothing", func(t *testing.T) {
		b.refused(t, request(rie, map[string]string{"MODE": "exit"}), codes.FailedPrecondition, "exit code 3", "cannot go on")
		b.refused(t, request(rie, map[string]string{"MODE": "hang"}), codes.DeadlineExceeded, "CONTAINER_READY_TIMEOUT_SECONDS")
		bad := request(rie, nil)
		bad.Image = "test/bad:1"
		b.refused(t, bad, codes.FailedPrecondition, "entrypoint cannot be executed")
		bad = request(rie, nil)
		bad.Entrypoint = []string{"/not-executable"}
		b.refused(t, bad, codes.FailedPrecondition, "entrypoint cannot be executed")
		bad = request(rie, nil)
		bad.Image = "test/large:1"
		b.refused(t, bad, codes.FailedPrecondition, "IMAGE_MAX_MB")
		bad = request(rie, nil)
		bad.Image, bad.PullPolicy = "test/none:1", agentv1.PullPolicy_PULL_POLICY_NEVER
		b.refused(t, bad, codes.FailedPrecondition, "127.0.0.1:5010/test/none:1", s.ArchivesDir)
		bad.PullPolicy = agentv1.PullPolicy_PULL_POLICY_IF_NOT_PRESENT
		bad.Image = "127.0.0.1:1/none"
		b.refused(t, bad, codes.FailedPrecondition, "cannot be reached")
		bad = request(rie, nil)
		bad.FunctionName = "../x"
		b.refused(t, bad, codes.InvalidArgument, "function_name")

		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := b.EnsureContainer(ctx, request(rie, map[string]string{"MODE": "hang"}))
			failed <- err
		}()
		b.eventuallyAttached(t, 1)
		cancel()
		assert.Equal(t, codes.Canceled, status.Code(<-failed))
		b.eventuallyAttached(t, 0)
		assert.Empty(t, b.statuses(t))
	})

	t.Run("a changed archive is noticed", func(t *testing.T) {
		before := b.ensure(t, request(rie, nil))
		mustArchive(t, archive, "test/fn:1", fn, "two", "/fn")
		after := b.ensure(t, request(rie, nil))
		assert.NotEqual(t, before.GetImageDigest(), after.GetImageDigest())
		require.NoError(t, os.WriteFile(archive, []byte("half"), 0o644))
		same := b.ensure(t, request(rie, nil))
		assert.Equal(t, after.GetImageDigest(), same.GetImageDigest(), "a broken archive must not stop a function whose image is here")
		for _, w := range []*agentv1.WorkerInfo{before, after, same} {
			b.destroy(t, w.GetId())
		}
	})

	t.Run("images from a registry", func(t *testing.T) {
		scratch := filepath.Join(t.TempDir(), "i.tar")
		push := func(extra string) { mustArchive(t, scratch, "x/y:1", fn, extra, "/fn"); reg.push(t, scratch) }
		push("first")
		r := request(rie, nil)
		r.Image = reg.host() + "/public/fn:1"
		first := b.ensure(t, r)
		push("second")
		same := b.ensure(t, r)
		assert.Equal(t, first.GetImageDigest(), same.GetImageDigest(), "if_not_present does not ask again")
		r.PullPolicy = agentv1.PullPolicy_PULL_POLICY_ALWAYS
		second := b.ensure(t, r)
		assert.NotEqual(t, first.GetImageDigest(), second.GetImageDigest())
		for _, w := range []*agentv1.WorkerInfo{first, same, second} {
			b.destroy(t, w.GetId())
		}

		// What is pushed anew is told of without a start, to who wants the registry to be asked.
		version := func(ask bool) string {
			got, err := b.GetImageVersions(t.Context(), &agentv1.GetImageVersionsRequest{Images: []*agentv1.ImageReference{{Image: r.Image, AskRegistry: ask}}})
			require.NoError(t, err)
			return got.GetVersions()[0].GetDigest()
		}
		require.Equal(t, second.GetImageDigest(), version(false))
		push("third")
		require.Equal(t, second.GetImageDigest(), version(false))
		require.Eventually(t, func() bool { v := version(true); return v != "" && v != second.GetImageDigest() }, patience, 50*time.Millisecond)
		third := b.ensure(t, r)
		assert.Equal(t, version(false), third.GetImageDigest())
		b.destroy(t, third.GetId())

		r.Image = reg.host() + "/public/fn:2"
		b.refused(t, r, codes.FailedPrecondition, "does not have it", s.ArchivesDir)
		r.Image = reg.host() + "/private/fn:1"
		b.refused(t, r, codes.FailedPrecondition, "refused the credentials", "REGISTRY_CONFIG")
		auth := base64.StdEncoding.EncodeToString([]byte("me:secret"))
		writeConfig(`{"auths":{"` + reg.host() + `":{"auth":"` + auth + `"}}}`)
		b.destroy(t, b.ensure(t, r).GetId())
	})

	t.Run("containerd dies: containers live on, and the agent goes on", func(t *testing.T) {
		w := b.ensure(t, request(rie, nil))
		killContainerd(t, s)
		invoke(t, w)
		require.Eventually(t, func() bool {
			l, err := b.ListContainers(t.Context(), &agentv1.ListContainersRequest{})
			return err == nil && len(l.GetContainers()) == 1 && l.GetContainers()[0].GetStatus() == agentv1.ContainerStatus_RUNNING
		}, patience, 20*time.Millisecond)
		_, err := http.Get("http://" + net.JoinHostPort(w.GetIpAddress(), "8080") + "/crash")
		require.Error(t, err)
		require.Eventually(t, func() bool { return b.statuses(t)[w.GetId()] == "STOPPED" }, patience, 20*time.Millisecond)
		require.Eventually(t, func() bool { return b.log.contains(`"exit_code":4,"oom":false`) }, patience, 20*time.Millisecond)
		b.destroy(t, w.GetId())
	})

	t.Run("containerd dies while containers start: what is left of them goes when it is back", func(t *testing.T) {
		const n = 4
		started := make(chan string, n)
		for range n {
			go func() {
				w, err := b.EnsureContainer(t.Context(), request(supervised, nil))
				if err != nil {
					w = nil
				}
				started <- w.GetId()
			}()
		}
		require.Eventually(t, func() bool {
			dirs, err := filepath.Glob(filepath.Join(s.RunDir, "c", "*", "hosts"))
			return err == nil && len(dirs) > 0
		}, patience, time.Millisecond)
		killContainerd(t, s)
		for range n {
			id := <-started
			if id == "" {
				continue
			}
			require.Eventually(t, func() bool {
				_, err := b.DestroyContainer(t.Context(), &agentv1.DestroyContainerRequest{ContainerId: id})
				return err == nil || status.Code(err) == codes.NotFound
			}, patience, 20*time.Millisecond)
		}
		b.eventuallyAttached(t, 0)
		require.Eventually(t, func() bool { return len(processesWith(t, "-address\x00"+s.RunDir+"/")) == 0 }, patience, 20*time.Millisecond, "no shim is left")
	})

	t.Run("containers of a function share a shim, and serve on when that is killed", func(t *testing.T) {
		one, two, dies := b.ensure(t, request(supervised, nil)), b.ensure(t, request(rie, nil)), b.ensure(t, request(supervised, nil))
		shims := processesWith(t, "-id\x00esb-shim-")
		shims = slices.DeleteFunc(shims, func(pid int) bool { return !slices.Contains(processesWith(t, "-address\x00"+s.RunDir+"/"), pid) })
		require.Len(t, shims, 1)
		require.NoError(t, syscall.Kill(shims[0], syscall.SIGKILL))
		require.Eventually(t, func() bool { return b.log.times("the container serves on") == 3 }, patience, 10*time.Millisecond)
		for _, w := range []*agentv1.WorkerInfo{one, two, dies} {
			invoke(t, w)
			assert.Equal(t, "RUNNING", b.statuses(t)[w.GetId()])
			assert.Equal(t, "RUNNING", b.metrics(t, w.GetId()).GetStatus().String())
		}
		another := b.ensure(t, request(supervised, nil))
		invoke(t, another)
		_, err := http.Get("http://" + net.JoinHostPort(two.GetIpAddress(), "8080") + "/crash")
		require.Error(t, err)
		require.Eventually(t, func() bool { return b.statuses(t)[two.GetId()] == "STOPPED" }, patience, 20*time.Millisecond)
		// containerd that starts anew knows nothing of them either.
		killContainerd(t, s)
		require.Eventually(t, func() bool {
			l, err := b.ListContainers(t.Context(), &agentv1.ListContainersRequest{})
			return err == nil && len(l.GetContainers()) == 4
		}, patience, 20*time.Millisecond)
		assert.Equal(t, "RUNNING", b.statuses(t)[one.GetId()])
		invoke(t, one)
		// So does the next agent.
		b.stop()
		b = mustStart(whole, s)
		assert.Equal(t, 3, b.log.times(`"container adopted"`))
		assert.Equal(t, "RUNNING", b.statuses(t)[one.GetId()])
		invoke(t, one)
		b.destroy(t, b.ensure(t, request(supervised, nil)).GetId())
		for _, w := range []*agentv1.WorkerInfo{one, dies, another} {
			b.destroy(t, w.GetId())
		}
		b.eventuallyAttached(t, 0)
		for _, pattern := range []string{"containerd/s/*", "shims/*", "runc/*/*", "containerd/state/io.containerd.runtime.v2.task/*/*"} {
			require.Eventually(t, func() bool {
				found, err := filepath.Glob(filepath.Join(s.RunDir, pattern))
				return err == nil && len(found) == 0
			}, patience, 20*time.Millisecond, pattern)
		}
	})

	t.Run("many at once", func(t *testing.T) {
		const n = 6
		errs := make(chan error, n)
		for range n {
			go func() { _, err := b.EnsureContainer(t.Context(), request(supervised, nil)); errs <- err }()
		}
		for range n {
			require.NoError(t, <-errs)
		}
		all := b.statuses(t)
		assert.Len(t, all, n)
		for id := range all {
			b.destroy(t, id)
		}
	})

	t.Run("containers outlive the agent, and are adopted", func(t *testing.T) {
		keep, die := b.ensure(t, request(supervised, nil)), b.ensure(t, request(rie, nil))
		r := request(supervised, nil)
		r.Standby = true
		standby := b.ensure(t, r)
		assert.Equal(t, "100", weightOf(t, s))
		b.stop()
		invoke(t, keep)
		_, err := http.Get("http://" + net.JoinHostPort(die.GetIpAddress(), "8080") + "/crash")
		require.Error(t, err)

		lighter := s
		lighter.CPUWeight, lighter.Region = 50, "us-west-2"
		b = mustStart(t, lighter)
		assert.Equal(t, "50", weightOf(t, s), "also of the group that is there already")
		assert.Equal(t, map[string]string{keep.GetId(): "RUNNING", standby.GetId(): "RUNNING"}, b.statuses(t), "the one that died is cleaned up")
		assert.NotRegexp(t, "^(-1|max)", quotaOf(s, keep.GetId())())
		quota := quotaOf(s, standby.GetId())
		assert.Regexp(t, "^(-1|max)", quota(), "its init phase is still to come")
		invoke(t, standby)
		assert.Equal(t, "written", invoke(t, keep)["write_tmp"], "its mounts are still there")
		require.Eventually(t, func() bool { return !strings.HasPrefix(quota(), "-1") && !strings.HasPrefix(quota(), "max") }, patience, 5*time.Millisecond)
		b.destroy(t, standby.GetId())
		l, err := b.ListContainers(t.Context(), &agentv1.ListContainersRequest{FunctionName: "fn"})
		require.NoError(t, err)
		c := l.GetContainers()[0]
		assert.Equal(t, keep.GetIpAddress(), c.GetIpAddress())
		assert.Equal(t, keep.GetImageDigest(), c.GetImageDigest())
		assert.Equal(t, "g1", c.GetGeneration())
		assert.Equal(t, supervised, c.GetRuntimeInterface())
		assert.EqualValues(t, 27182, c.GetPort(), "8080 is the function's")
		assert.True(t, c.GetOutdated(), "its AWS_REGION is another one")
		invoke(t, keep)
		_, err = b.PauseContainer(t.Context(), &agentv1.PauseContainerRequest{ContainerId: keep.GetId()})
		require.NoError(t, err)
		// It stays for Purge to remove, paused.
		w := b.ensure(t, request(supervised, nil))
		assert.NotEqual(t, keep.GetIpAddress(), w.GetIpAddress())
		l, err = b.ListContainers(t.Context(), &agentv1.ListContainersRequest{FunctionName: "fn"})
		require.NoError(t, err)
		for _, c := range l.GetContainers() {
			assert.Equal(t, c.GetContainerId() == keep.GetId(), c.GetOutdated())
		}
	})
	b.stop()
}

// TestRun_NoDisks_TmpIsMemory is told, or finds that no disk can be made.
func TestRun_NoDisks_TmpIsMemory(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*settings.Settings)
		warned  bool
	}{
		"as told": {func(s *settings.Settings) { s.TmpOnDisk = false }, false},
		"no disk can be made": {func(s *settings.Settings) {
			require.NoError(t, os.WriteFile(filepath.Join(s.Home, "tmp"), nil, 0o600))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustSettings(t)
			fn := filepath.Join(t.TempDir(), "fn")
			mustBuild(t, "./testdata/fn", fn)
			mustArchive(t, filepath.Join(s.ArchivesDir, "fn.tar"), "test/fn:1", fn, "one", "/fn")
			c.prepare(&s)
			b := mustStart(t, s)
			got := invoke(t, b.ensure(t, request(supervised, nil)))
			assert.Equal(t, float64(unix.TMPFS_MAGIC), got["tmp_type"])
			assert.Equal(t, 512.0, got["tmp_mb"])
			assert.Equal(t, "root 777", got["tmp_user"])
			assert.Equal(t, c.warned, b.log.contains("FUNCTION_TMP=memory says so without this warning"))
			assert.Empty(t, disksOf(s))
			b.stop()
		})
	}
}

// killContainerd kills the containerd of a stack. A child of it is called the same until it has become another program.
func killContainerd(t *testing.T, s settings.Settings) {
	t.Helper()
	var pids []int
	require.Eventually(t, func() bool {
		pids = processesWith(t, filepath.Join(s.BinDir, "containerd")+"\x00")
		return len(pids) == 1
	}, patience, time.Millisecond)
	require.NoError(t, syscall.Kill(pids[0], syscall.SIGKILL))
}

// weightOf reads what all of a stack's containers count together.
func weightOf(t *testing.T, s settings.Settings) string {
	t.Helper()
	if raw, err := os.ReadFile("/sys/fs/cgroup/esb-" + s.Bridge + "/cpu.weight"); err == nil {
		return strings.TrimSpace(string(raw))
	}
	raw, err := os.ReadFile("/sys/fs/cgroup/cpu/esb-" + s.Bridge + "/cpu.shares")
	require.NoError(t, err)
	shares, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	require.NoError(t, err)
	return strconv.Itoa(shares * 100 / 1024)
}

// quotaOf reads a container's CPU quota.
func quotaOf(s settings.Settings, id string) func() string {
	file := "/sys/fs/cgroup/cpu/esb-" + s.Bridge + "/" + id + "/cpu.cfs_quota_us"
	if _, err := os.Stat(file); err != nil {
		file = "/sys/fs/cgroup/esb-" + s.Bridge + "/" + id + "/cpu.max"
	}
	return func() string { raw, _ := os.ReadFile(file); return string(raw) }
}

// eventuallyAttached waits until n containers have files in the run folder.
func (b *box) eventuallyAttached(t *testing.T, n int) {
	t.Helper()
	require.Eventually(t, func() bool {
		hosts, err := filepath.Glob(filepath.Join(b.settings.RunDir, "c", "*", "hosts"))
		return err == nil && len(hosts) == n
	}, patience, 5*time.Millisecond)
}

func TestRun_PortInUse_SaysSo(t *testing.T) {
	s := mustSettings(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	s.GRPCAddr = l.Addr().String()
	err = Run(t.Context(), s, slog.New(slog.DiscardHandler), nil)
	assert.ErrorContains(t, err, "AGENT_GRPC_ADDR")
}

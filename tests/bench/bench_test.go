// Package bench measures the box as ratios against a baseline of the same run and machine. Run it with
// "go tool task bench"; the figures mean nothing on a machine that does something else.
package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/tests/stack"
)

const (
	warmRequests = 4000
	coldStarts   = 25
)

func mustUp(b *testing.B) (box *stack.Stack, root, token string) {
	b.Helper()
	root, err := stack.RepositoryRoot()
	require.NoError(b, err)
	box, err = stack.Prepare(b.TempDir(), stack.Options{
		FunctionsConfig: filepath.Join(root, "tests", "bench", "testdata", "functions.yml"),
		RoutingConfig:   filepath.Join(root, "tests", "bench", "testdata", "routing.yml"),
	})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, box.Down()) })
	require.NoError(b, box.Up(b.Context()))
	token, err = box.Token(b.Context())
	require.NoError(b, err)
	return box, root, token
}

// BenchmarkWarm compares a request through the gateway with the same event sent straight to a worker. Both have a
// container of their own and take turns, so that noise meets both alike.
func BenchmarkWarm(b *testing.B) {
	box, _, token := mustUp(b)
	worker, err := box.Agent.EnsureContainer(b.Context(), &agentv1.EnsureContainerRequest{
		FunctionName: "bench-direct", Image: "esb/lambda-echo:latest", MemorySizeMb: 3538, TimeoutSeconds: 30,
	})
	require.NoError(b, err)
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := box.Agent.DestroyContainer(ctx, &agentv1.DestroyContainerRequest{ContainerId: worker.GetId()})
		require.NoError(b, err)
	})
	event, err := json.Marshal(map[string]any{
		"body":           `{"message":"hello"}`,
		"requestContext": map[string]any{"authorizer": map[string]any{"cognito:username": stack.User}},
	})
	require.NoError(b, err)
	direct := func() {
		url := fmt.Sprintf("http://%s:%d/2015-03-31/functions/function/invocations", worker.GetIpAddress(), worker.GetPort())
		mustAnswer(b, box.HTTP, url, "", event, "X-Esb-Container-Id", worker.GetId())
	}
	gateway := func() { mustAnswer(b, box.HTTP, box.HTTPURL+"/warm", token, []byte(`{"message":"hello"}`)) }
	for range 200 {
		direct()
		gateway()
	}
	for b.Loop() {
		straight, through := make([]time.Duration, 0, warmRequests), make([]time.Duration, 0, warmRequests)
		for range warmRequests {
			straight = append(straight, timed(direct))
			through = append(through, timed(gateway))
		}
		report(b, "warm", "straight to the worker", straight, "through the gateway", through)
	}
}

// BenchmarkCold compares a request to a function that is scaled to zero, and to one with a sandbox standing by, with
// "runc run --detach" of the very bundle that containerd made for it.
func BenchmarkCold(b *testing.B) {
	box, root, token := mustUp(b)
	mustAnswer(b, box.HTTP, box.HTTPURL+"/cold", token, []byte(`{"message":"hello"}`))
	bundle := mustCopyBundle(b, box, "bench-cold")
	runc := filepath.Join(root, ".esb", "bin", "runc")
	for b.Loop() {
		var bare, cold, standby []time.Duration
		for i := range coldStarts {
			waitForContainers(b, box, "bench-cold", func(list []*agentv1.ContainerInfo) bool { return len(list) == 0 })
			waitForContainers(b, box, "bench-standby", func(list []*agentv1.ContainerInfo) bool { return len(list) == 1 && list[0].GetStandby() })
			id := "bench-runc-" + strconv.Itoa(i)
			bare = append(bare, timed(func() { mustRun(b, runc, "run", "--detach", "--bundle", bundle, id) }))
			mustRun(b, runc, "delete", "--force", id)
			cold = append(cold, timed(func() {
				mustAnswer(b, box.HTTP, box.HTTPURL+"/cold", token, []byte(`{"message":"hello"}`))
			}))
			standby = append(standby, timed(func() {
				mustAnswer(b, box.HTTP, box.HTTPURL+"/standby", token, []byte(`{"message":"hello"}`))
			}))
		}
		report(b, "cold", "runc run", bare, "scaled to zero", cold)
		report(b, "standby", "runc run", bare, "standing by", standby)
	}
}

func waitForContainers(b *testing.B, box *stack.Stack, function string, condition func([]*agentv1.ContainerInfo) bool) {
	b.Helper()
	stack.Eventually(b, func() bool { return condition(box.Containers(b, function)) }, "containers of %s", function)
}

// mustCopyBundle copies the bundle of a running container: its config without the parts that belong to that one
// container (paths of namespaces, cgroup path, sockets, log), and its root filesystem.
func mustCopyBundle(b *testing.B, box *stack.Stack, function string) string {
	b.Helper()
	list := box.Containers(b, function)
	require.Len(b, list, 1)
	running := filepath.Join("/run/esb", box.Bridge, "containerd", "state", "io.containerd.runtime.v2.task", "esb-runtime", list[0].GetContainerId())
	bundle := b.TempDir()
	// The user of the container has to come by.
	require.NoError(b, os.Chmod(filepath.Dir(bundle), 0o711))
	mustRun(b, "cp", "-a", filepath.Join(running, "rootfs"), filepath.Join(bundle, "rootfs"))
	text, err := os.ReadFile(filepath.Join(running, "config.json"))
	require.NoError(b, err)
	var config map[string]any
	require.NoError(b, json.Unmarshal(text, &config))
	linux := config["linux"].(map[string]any)
	linux["cgroupsPath"] = "/esb-bench-runc"
	for _, namespace := range linux["namespaces"].([]any) {
		switch entry := namespace.(map[string]any); entry["type"] {
		case "network":
			delete(entry, "path")
		case "user":
			// One made by runc itself, with as many ids.
			delete(entry, "path")
			ids := []map[string]int{{"containerID": 0, "hostID": 1879048192, "size": 65536}}
			linux["uidMappings"], linux["gidMappings"] = ids, ids
		}
	}
	mounts := config["mounts"].([]any)
	config["mounts"] = slices.DeleteFunc(mounts, func(m any) bool {
		source, _ := m.(map[string]any)["source"].(string)
		return strings.HasPrefix(source, "/run/esb/") || strings.HasPrefix(source, "/sys/fs/cgroup/")
	})
	process := config["process"].(map[string]any)
	process["terminal"] = false
	environment := process["env"].([]any)
	process["env"] = slices.DeleteFunc(environment, func(e any) bool {
		return bytes.HasPrefix([]byte(e.(string)), []byte("ESB_INIT_NOTIFY=")) || bytes.HasPrefix([]byte(e.(string)), []byte("ESB_INIT_CGROUP="))
	})
	text, err = json.Marshal(config)
	require.NoError(b, err)
	require.NoError(b, os.WriteFile(filepath.Join(bundle, "config.json"), text, 0o600))
	return bundle
}

func mustRun(b *testing.B, name string, args ...string) {
	b.Helper()
	cmd := exec.Command(name, args...)
	// A file, not a pipe: the detached container keeps the descriptor.
	out, err := os.CreateTemp(b.TempDir(), "out")
	require.NoError(b, err)
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(out.Name())
		b.Fatalf("%s %v: %v\n%s", name, args, err, text)
	}
}

func mustAnswer(b *testing.B, client *http.Client, url, token string, body []byte, header ...string) {
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	text, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || res.StatusCode != http.StatusOK {
		b.Fatalf("%s answered %d %s (%v)", url, res.StatusCode, text, err)
	}
}

func timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// report prints both rows and the ratio of their medians, and gives the ratio to the benchmark's own output.
func report(b *testing.B, name, baseLabel string, base []time.Duration, label string, measured []time.Duration) {
	b.Helper()
	for _, row := range []struct {
		label   string
		samples []time.Duration
	}{{baseLabel, base}, {label, measured}} {
		slices.Sort(row.samples)
		fmt.Printf("%-8s %-24s n=%-5d min %-10v p50 %-10v p95 %-10v p99 %v\n", name, row.label, len(row.samples),
			row.samples[0], quantile(row.samples, 0.5), quantile(row.samples, 0.95), quantile(row.samples, 0.99))
	}
	ratio := float64(quantile(measured, 0.5)) / float64(quantile(base, 0.5))
	fmt.Printf("%-8s %s / %s, p50: %.2f\n", name, label, baseLabel, ratio)
	b.ReportMetric(ratio, name+"-ratio")
}

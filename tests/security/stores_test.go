package security

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/tests/hoststate"
)

// listening returns the TCP ports that something listens on in the network namespace of a process.
func listening(t *testing.T, pid string) []int {
	t.Helper()
	var ports []int
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile("/proc/" + pid + "/net/" + table)
		require.NoError(t, err)
		for line := range strings.Lines(string(data)) {
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[3] != "0A" { // TCP_LISTEN
				continue
			}
			_, port, _ := strings.Cut(fields[1], ":")
			n, err := strconv.ParseInt(port, 16, 32)
			require.NoError(t, err)
			ports = append(ports, int(n))
		}
	}
	return ports
}

func TestLocalUser_ReachesNoProcessOfTheStores(t *testing.T) {
	processes, err := hoststate.Processes(box.Home, box.BinDir, box.Bridge)
	require.NoError(t, err)
	var found []string
	for _, p := range processes {
		name := filepath.Base(p.Program)
		if !slices.Contains([]string{"dynoxide", "victoria-logs", "registry", "versitygw"}, name) {
			continue
		}
		found = append(found, name)
		attempt(t, localUser, "talk to "+name+" past its front", func(t *testing.T) {
			ports := listening(t, strconv.Itoa(p.PID))
			require.NotEmpty(t, ports)
			for _, port := range ports {
				if slices.Contains(listening(t, "self"), port) {
					continue // something else of this machine has the same number
				}
				out, ok := commandAsNobody(t, "curl", "-s", "-m", "5", "-H", "X-Amz-Target: DynamoDB_20120810.ListTables", "-d", "{}", fmt.Sprintf("http://127.0.0.1:%d/", port))
				require.False(t, ok, "%s", out)
			}
			own, err := os.Readlink("/proc/self/ns/net")
			require.NoError(t, err)
			theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", p.PID))
			require.NoError(t, err)
			require.NotEqual(t, own, theirs)
		})
	}
	require.Len(t, found, 4)
}

func TestLocalUser_LeavesImagesAlone(t *testing.T) {
	base := "http://" + box.Registry
	status := func(t *testing.T, args ...string) string {
		t.Helper()
		out, _ := commandAsNobody(t, "curl", append([]string{"-s", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}"}, args...)...)
		return out
	}
	attempt(t, localUser, "begin an upload to the registry, and so replace a function's image", func(t *testing.T) {
		require.Equal(t, "401", status(t, "-X", "POST", base+"/v2/esb/lambda-echo/blobs/uploads/"))
		require.Equal(t, "401", status(t, "-u", "esb:esb", "-X", "POST", base+"/v2/esb/lambda-echo/blobs/uploads/"))
	})
	attempt(t, localUser, "delete an image of the registry", func(t *testing.T) {
		require.Equal(t, "401", status(t, "-X", "DELETE", base+"/v2/esb/lambda-echo/manifests/sha256:"+strings.Repeat("0", 64)))
	})
	attempt(t, localUser, "read the images of functions from the registry", func(t *testing.T) {
		require.Equal(t, "401", status(t, base+"/v2/_catalog"))
	})
	attempt(t, localUser, "reach the registry with a web page: another host's name, another origin", func(t *testing.T) {
		for _, header := range []string{"Host: evil.example", "Origin: https://evil.example"} {
			require.Equal(t, "403", status(t, "-X", "POST", "-H", header, base+"/v2/esb/lambda-echo/blobs/uploads/"))
		}
	})
	attempt(t, localUser, "read the password of the registry", func(t *testing.T) {
		requireClosed(t, filepath.Join(box.Home, "data", "registry.password"))
	})
}

// The operator still gets in, and so does the agent.
func TestOperator_PushesAnImageThatTheAgentPulls(t *testing.T) {
	image := box.Registry + "/security/echo:1"
	push := exec.Command(filepath.Join(box.BinDir, "esb-image"), "push", "-ref", image, filepath.Join(box.Home, "images", "lambda-echo.tar"))
	push.Env = append(os.Environ(), "ESB_HOME="+box.Home)
	out, err := push.CombinedOutput()
	require.NoError(t, err, "%s", out)
	container, err := box.Agent.EnsureContainer(t.Context(), &agentv1.EnsureContainerRequest{FunctionName: "pulled", Image: image})
	require.NoError(t, err)
	_, err = box.Agent.DestroyContainer(t.Context(), &agentv1.DestroyContainerRequest{ContainerId: container.GetId()})
	require.NoError(t, err)
}

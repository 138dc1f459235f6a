package security

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

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

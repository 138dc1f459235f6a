package settings

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func load(env map[string]string) (Settings, error) {
	return Load(func(k string) (string, bool) { v, ok := env[k]; return v, ok }, "/opt/esb/bin/agent")
}

func TestLoad_Defaults(t *testing.T) {
	s, err := load(nil)
	require.NoError(t, err)
	assert.Equal(t, "/var/lib/esb", s.Home)
	assert.Equal(t, "/run/esb/esb0", s.RunDir)
	assert.Equal(t, "/opt/esb/bin", s.BinDir)
	assert.Equal(t, "/var/lib/esb/images", s.ArchivesDir)
	assert.Equal(t, netip.MustParsePrefix("10.88.0.0/16"), s.Subnet)
	assert.Equal(t, []uint16{443, 8000, 9000, 8001, 9428}, s.HostPorts)
	assert.Equal(t, 10*time.Second, s.ReadyTimeout)
	assert.Positive(t, s.MaxStarts)
}

func TestLoad_FollowsHomeAndBridge(t *testing.T) {
	s, err := load(map[string]string{"ESB_HOME": "/data/x", "ESB_BRIDGE": "esbt1", "CONTAINERD_ADDRESS": "unix:///run/c.sock"})
	require.NoError(t, err)
	assert.Equal(t, "/data/x/images", s.ArchivesDir)
	assert.Equal(t, "/run/esb/esbt1", s.RunDir)
	assert.Equal(t, "/run/c.sock", s.ContainerdAddress)
}

func TestLoad_NamesWhatIsWrong(t *testing.T) {
	for key, bad := range map[string]string{
		"ESB_SUBNET": "10.88.0.1/16", "ESB_BRIDGE": "a-bridge-name-too-long", "ESB_MTU": "x", "ESB_DNS": "127.0.0.53",
		"FUNCTION_HOST_PORTS": "443,0", "LOG_LEVEL": "loud", "FUNCTION_TMP_SIZE_MB": "0", "AGENT_GRPC_ADDR": "50051",
		"CONTAINERD_ADDRESS": "containerd.sock", "AGENT_TLS_CERT": "/x", "ESB_HOME": "/srv/a:b", "ESB_BIN_DIR": "/opt/a:b",
	} {
		t.Run(key, func(t *testing.T) {
			_, err := load(map[string]string{key: bad})
			assert.ErrorContains(t, err, key)
		})
	}
}

func TestLoad_TellsAllErrorsAtOnce(t *testing.T) {
	_, err := load(map[string]string{"ESB_MTU": "x", "LOG_LEVEL": "loud"})
	assert.ErrorContains(t, err, "ESB_MTU")
	assert.ErrorContains(t, err, "LOG_LEVEL")
}

func TestLoad_OpenAddressNeedsMutualTLS(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:50051", ":50051", "192.0.2.1:1", "box:50051"} {
		_, err := load(map[string]string{"AGENT_GRPC_ADDR": addr})
		assert.ErrorContains(t, err, "AGENT_TLS_CERT", addr)
		_, err = load(map[string]string{"AGENT_GRPC_ADDR": addr, "AGENT_TLS_CERT": "/c", "AGENT_TLS_KEY": "/k", "AGENT_TLS_CA": "/a"})
		assert.NoError(t, err, addr)
	}
	for _, addr := range []string{"127.0.0.1:0", "[::1]:1", "localhost:1"} {
		_, err := load(map[string]string{"AGENT_GRPC_ADDR": addr})
		assert.NoError(t, err, addr)
	}
}

package settings

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/guard/setting/settingtest"
)

func load(env map[string]string) (Settings, error) {
	return Load(func(name string) string { return env[name] }, "/opt/esb/bin/agent")
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
	assert.Equal(t, 12, s.CPUWeight, "the box comes before its functions")
}

func TestLoad_FollowsHomeAndBridge(t *testing.T) {
	s, err := load(map[string]string{"ESB_HOME": "/data/x", "ESB_BRIDGE": "esbt1", "CONTAINERD_ADDRESS": "unix:///run/c.sock"})
	require.NoError(t, err)
	assert.Equal(t, "/data/x/images", s.ArchivesDir)
	assert.Equal(t, "/run/esb/esbt1", s.RunDir)
	assert.Equal(t, "/run/c.sock", s.ContainerdAddress)
	assert.Equal(t, "/data/x/logs", s.LogDir)
}

func TestFunctionEnvironment_LeadsToTheBox(t *testing.T) {
	const dev, secret = "esb-dev-access", "esb-dev-secret-change-in-production"
	for name, c := range map[string]struct{ env, want map[string]string }{
		"defaults": {nil, map[string]string{
			"AWS_ENDPOINT_URL_S3": "http://10.88.0.1:9000", "AWS_ENDPOINT_URL_DYNAMODB": "http://10.88.0.1:8001",
			"AWS_ENDPOINT_URL_DYNAMODB_STREAMS": "http://10.88.0.1:8001",
			"AWS_ENDPOINT_URL_LAMBDA":           "http://10.88.0.1:8000", "AWS_ACCESS_KEY_ID": dev, "AWS_SECRET_ACCESS_KEY": secret,
		}},
		"other ports, subnet and keys": {
			map[string]string{"ESB_SUBNET": "10.9.0.0/24", "S3_ENDPOINT": "http://localhost:1234/", "DYNAMODB_ENDPOINT": "http://[::1]:2345", "S3_ACCESS_KEY": "a", "S3_SECRET_KEY": "s"},
			map[string]string{
				"AWS_ENDPOINT_URL_S3": "http://10.9.0.1:1234", "AWS_ENDPOINT_URL_DYNAMODB": "http://10.9.0.1:2345",
				"AWS_ENDPOINT_URL_DYNAMODB_STREAMS": "http://10.9.0.1:2345",
				"AWS_ENDPOINT_URL_LAMBDA":           "http://10.9.0.1:8000", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s",
			},
		},
		"elsewhere and off": {
			map[string]string{"S3_ENDPOINT": "https://s3.example", "DYNAMODB_ENDPOINT": "off", "FUNCTION_LAMBDA_ENDPOINT": "off", "FUNCTION_ACCESS_KEY": "f", "FUNCTION_SECRET_KEY": "g", "S3_PUBLIC_ENDPOINT": "https://files.example/"},
			map[string]string{"ESB_S3_PUBLIC_ENDPOINT": "https://files.example", "AWS_ENDPOINT_URL_S3": "https://s3.example", "AWS_ACCESS_KEY_ID": "f", "AWS_SECRET_ACCESS_KEY": "g"},
		},
		"told": {
			map[string]string{"S3_ENDPOINT": "off", "FUNCTION_S3_ENDPOINT": "http://127.0.0.1:1", "FUNCTION_DYNAMODB_ENDPOINT": "http://db:2", "FUNCTION_LAMBDA_ENDPOINT": "off"},
			map[string]string{"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_DYNAMODB": "http://db:2", "AWS_ENDPOINT_URL_DYNAMODB_STREAMS": "http://db:2", "AWS_ACCESS_KEY_ID": dev, "AWS_SECRET_ACCESS_KEY": secret},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := load(c.env)
			require.NoError(t, err)
			assert.Equal(t, c.want, s.FunctionEnvironment())
		})
	}
}

func TestLoad_NamesWhatIsWrong(t *testing.T) {
	for key, bad := range map[string]string{
		"ESB_SUBNET": "10.88.0.1/16", "ESB_BRIDGE": "a-bridge-name-too-long", "ESB_MTU": "x", "ESB_DNS": "127.0.0.53",
		"FUNCTION_HOST_PORTS": "443,0", "LOG_LEVEL": "loud", "FUNCTION_TMP_SIZE_MB": "0", "FUNCTION_TMP": "tmpfs", "FUNCTION_TMP_RESERVE_MB": "-1", "AGENT_GRPC_ADDR": "50051",
		"CONTAINERD_ADDRESS": "containerd.sock", "VICTORIALOGS_URL": "box:9428", "AGENT_METRICS_ADDR": ":9444", "LOG_SHIP_BATCH_BYTES": "1", "LOG_SHIP_INTERVAL_MS": "0", "AGENT_TLS_CERT": "/x",
		"FUNCTION_S3_ENDPOINT": "10.88.0.1:9000", "DYNAMODB_ENDPOINT": "ftp://x", "FUNCTION_LAMBDA_ENDPOINT": "http://",
		"ESB_HOME": "/srv/a:b", "ESB_BIN_DIR": "/opt/a:b", "FUNCTION_EGRESS_DENY": "192.168.1.1/24", "GATEWAY_UID": "esb", "CODE_ROOTS": "functions",
		"AGENT_SOCKET": "agent.sock",
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

func TestLoad_AsksForAllThatTheTableDeclares(t *testing.T) {
	assert.Empty(t, settingtest.Unread(setting.Agent, func(getenv func(string) string) { _, _ = Load(getenv, "/opt/esb/bin/agent") }))
}

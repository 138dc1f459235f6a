package settings

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/guard/setting/settingtest"
)

func env(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestLoad_NothingSet_ListensOnThisMachineOnly(t *testing.T) {
	s, err := Load(env(nil), "/src/esb")
	require.NoError(t, err)
	assert.False(t, s.WellKnown)
	assert.Equal(t, []string{"X_API_KEY", "AUTH_PASS", "LAMBDA_ACCESS_KEYS", "S3_ACCESS_KEY", "S3_SECRET_KEY", "DYNAMODB_ACCESS_KEY", "DYNAMODB_SECRET_KEY"}, s.MadeSecrets)
	assert.Equal(t, []string{"127.0.0.1:443", "10.88.0.1:443"}, s.HTTPSAddrs)
	assert.Equal(t, []string{"127.0.0.1:8000", "10.88.0.1:8000"}, s.HTTPAddrs)
	assert.Equal(t, []uint16{443, 8000, 9000, 8001, 9428}, s.HostPorts)
	assert.Equal(t, "/src/esb/.esb", s.Home)
	assert.Equal(t, "/run/esb/esb0", s.AgentRunDir)
	assert.Contains(t, s.Env(), "GATEWAY_HTTPS_ADDR=127.0.0.1:443,10.88.0.1:443")
}

func TestLoad_Secrets_DecideWhoIsServed(t *testing.T) {
	const known = "esb-dev-secret-change-in-production"
	for name, c := range map[string]struct {
		vars       map[string]string
		https      []string
		wellKnown  bool
		plainLocal bool
	}{
		"all of one's own": {
			vars:  map[string]string{"X_API_KEY": "mine", "AUTH_PASS": "mine too", "LAMBDA_ACCESS_KEYS": "off"},
			https: []string{":443"}, plainLocal: true,
		},
		"one of one's own": {
			vars:  map[string]string{"X_API_KEY": "mine"},
			https: []string{"127.0.0.1:443", "10.88.0.1:443"}, plainLocal: true,
		},
		"one that everybody knows": {
			vars:  map[string]string{"X_API_KEY": "mine", "AUTH_PASS": "onpremise-pass"},
			https: []string{"127.0.0.1:443"}, wellKnown: true,
		},
		"a key that everybody knows": {
			vars:  map[string]string{"X_API_KEY": "mine", "AUTH_PASS": "mine", "LAMBDA_ACCESS_KEYS": "a:b,esb-dev-access:" + known},
			https: []string{"127.0.0.1:443"}, wellKnown: true,
		},
		"known, and allowed": {
			vars:  map[string]string{"X_API_KEY": "mine", "AUTH_PASS": "onpremise-pass", "LAMBDA_ACCESS_KEYS": "off", "ESB_ALLOW_INSECURE_DEFAULTS": "true"},
			https: []string{":443"}, plainLocal: true,
		},
		"nothing set, and everything allowed": {
			vars:  map[string]string{"ESB_ALLOW_INSECURE_DEFAULTS": "true"},
			https: []string{"127.0.0.1:443", "10.88.0.1:443"}, plainLocal: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Load(env(c.vars), "/src/esb")
			require.NoError(t, err)
			assert.Equal(t, c.https, s.HTTPSAddrs)
			assert.Equal(t, c.wellKnown, s.WellKnown)
			plain := []string{"127.0.0.1:8000"}
			if c.plainLocal {
				plain = append(plain, "10.88.0.1:8000")
			}
			assert.Equal(t, plain, s.HTTPAddrs, "never to the network unless asked for")
			for _, addr := range s.HTTPAddrs {
				assert.False(t, s.Outside(addr))
			}
		})
	}
}

func TestLoad_KeysOfStoresElsewhere_AreNotMade(t *testing.T) {
	s, err := Load(env(map[string]string{"S3_ENDPOINT": "https://s3.example", "DYNAMODB_ADDR": "off", "AUTH_PASS": "own"}), "/src/esb")
	require.NoError(t, err)
	assert.Equal(t, []string{"X_API_KEY", "LAMBDA_ACCESS_KEYS"}, s.MadeSecrets)
}

func TestLoad_SecondStack_TakesItsOwnPortsAndNetwork(t *testing.T) {
	s, err := Load(env(map[string]string{
		"ESB_HOME": "/tmp/two", "ESB_BRIDGE": "esb1", "ESB_SUBNET": "10.99.4.0/24", "GATEWAY_HTTPS_ADDR": "127.0.0.1:10443", "GATEWAY_HTTP_ADDR": "off",
	}), "/src/esb")
	require.NoError(t, err)
	assert.Equal(t, "10.99.4.1", s.BoxAddr().String())
	assert.Empty(t, s.HTTPAddrs)
	assert.Equal(t, []uint16{10443, 9000, 8001, 9428}, s.HostPorts, "functions must reach the gateway's real port")
	assert.Equal(t, "/tmp/two/images", s.ImagesDir)
	assert.Equal(t, "/src/esb/.esb/bin", s.BinDir, "binaries are shared")
	assert.Contains(t, s.Env(), "GATEWAY_HTTP_ADDR=off")
	assert.Contains(t, s.Env(), "ESB_RUN_DIR=/run/esb/esb1")
}

// What up writes down must mean the same to down, whatever is in down's environment.
func TestEnv_ReadAgain_GivesTheSameSettings(t *testing.T) {
	first, err := Load(env(map[string]string{"ESB_HOME": "/tmp/two", "GATEWAY_HTTP_ADDR": "off", "X_API_KEY": "a", "AUTH_PASS": "b", "SHUTDOWN_GRACE_SECONDS": "7.5"}), "/src/esb")
	require.NoError(t, err)
	vars := map[string]string{"X_API_KEY": "a", "AUTH_PASS": "b"}
	for _, v := range first.Env() {
		for i := range v {
			if v[i] == '=' {
				vars[v[:i]] = v[i+1:]
				break
			}
		}
	}
	second, err := Load(env(vars), "/src/esb")
	require.NoError(t, err)
	assert.Equal(t, first, second)
}

func TestLoad_BadValues_NamesEachVariable(t *testing.T) {
	for name, value := range map[string]string{
		"ESB_HOME":                  "/srv/a,b",
		"ESB_BIN_DIR":               "/opt/a:b",
		"ESB_SUBNET":                "10.88.0.1/16",
		"ESB_BRIDGE":                "a-name-that-is-too-long",
		"GATEWAY_HTTPS_ADDR":        "127.0.0.1:443,nonsense",
		"GATEWAY_HTTP_ADDR":         "example.org:80",
		"GATEWAY_ADMIN_ADDR":        "127.0.0.1",
		"AGENT_GRPC_ADDR":           "127.0.0.1:0",
		"FUNCTION_HOST_PORTS":       "443,x",
		"SHUTDOWN_GRACE_SECONDS":    "0",
		"ESB_START_TIMEOUT_SECONDS": "soon",
		"AGENT_TLS_CERT":            "only-this.pem",

		"ESB_ALLOW_INSECURE_DEFAULTS": "yes",
	} {
		_, err := Load(env(map[string]string{name: value}), "/src/esb")
		assert.ErrorContains(t, err, name)
	}
	_, err := Load(env(map[string]string{"ESB_SUBNET": "x", "ESB_BRIDGE": "9"}), "/src/esb")
	assert.ErrorContains(t, err, "ESB_SUBNET")
	assert.ErrorContains(t, err, "ESB_BRIDGE", "one run shows all that is wrong")
}

func TestURL_IsWhatAClientTypes(t *testing.T) {
	for addr, want := range map[string]string{
		":443": "https://localhost", "127.0.0.1:443": "https://localhost", "0.0.0.0:8443": "https://localhost:8443",
		"10.88.0.1:443": "https://10.88.0.1", "[::1]:444": "https://localhost:444", "[fd00::1]:443": "https://[fd00::1]",
	} {
		assert.Equal(t, want, URL("https", addr), addr)
	}
}

func TestFindRoot_FromAFolderInside_FindsTheRepository(t *testing.T) {
	root := t.TempDir()
	inside := filepath.Join(root, "native", "deep")
	require.NoError(t, os.MkdirAll(inside, 0o755))
	_, err := FindRoot(inside)
	require.Error(t, err)
	for _, file := range []string{"go.work", "native/native.go"} {
		require.NoError(t, os.WriteFile(filepath.Join(root, file), nil, 0o644))
	}
	found, err := FindRoot(inside)
	require.NoError(t, err)
	assert.Equal(t, root, found)
}

func TestLoad_Stores_AreWhereTheServicesLookForThem(t *testing.T) {
	const box = "10.88.0.1"
	for name, c := range map[string]struct {
		vars, want map[string]string
		stores     []string
	}{
		"defaults": {nil, map[string]string{
			"ESB_STORES": "on", "ESB_DATA_DIR": "/src/esb/.esb/data",
			"S3_ADDR": "127.0.0.1:9000," + box + ":9000", "S3_UI_ADDR": "127.0.0.1:9001", "S3_ENDPOINT": "http://127.0.0.1:9000",
			"DYNAMODB_ADDR": "127.0.0.1:8001," + box + ":8001", "DYNAMODB_ENDPOINT": "http://127.0.0.1:8001",
			"VICTORIALOGS_ADDR": "127.0.0.1:9428", "VICTORIALOGS_URL": "http://127.0.0.1:9428",
			"VICTORIALOGS_USER": "esb", "VICTORIALOGS_PASSWORD_FILE": "/src/esb/.esb/data/logs.password", "FUNCTION_LOGS_ADDR": box + ":9428",
			"ESB_REGISTRY_USER": "esb", "ESB_REGISTRY_PASSWORD_FILE": "/src/esb/.esb/data/registry.password",
			"REGISTRY_ADDR": "127.0.0.1:5010", "ESB_REGISTRY": "127.0.0.1:5010", "FUNCTION_LAMBDA_ENDPOINT": "http://" + box + ":8000",
		}, []string{"logs", "s3", "db", "registry"}},
		"other ports": {
			map[string]string{"S3_ADDR": ":19000", "DYNAMODB_ADDR": "127.0.0.1:18001", "GATEWAY_HTTP_ADDR": "127.0.0.1:1234"},
			map[string]string{
				"S3_ENDPOINT": "http://127.0.0.1:19000", "DYNAMODB_ENDPOINT": "http://127.0.0.1:18001", "FUNCTION_LAMBDA_ENDPOINT": "off",
				"FUNCTION_HOST_PORTS": "443,1234,19000,18001,9428",
			}, []string{"logs", "s3", "db", "registry"},
		},
		"all off": {map[string]string{"ESB_STORES": "off", "S3_ADDR": "127.0.0.1:19000"}, map[string]string{
			"ESB_STORES": "off", "S3_ADDR": "off", "S3_UI_ADDR": "off", "S3_ENDPOINT": "off", "DYNAMODB_ENDPOINT": "off", "VICTORIALOGS_URL": "off", "FUNCTION_LOGS_ADDR": "off", "REGISTRY_ADDR": "off",
		}, nil},
		"one is elsewhere": {map[string]string{"S3_ENDPOINT": "https://s3.example"}, map[string]string{
			"S3_ADDR": "off", "S3_UI_ADDR": "off", "S3_ENDPOINT": "https://s3.example", "DYNAMODB_ENDPOINT": "http://127.0.0.1:8001",
		}, []string{"logs", "db", "registry"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Load(env(c.vars), "/src/esb")
			require.NoError(t, err)
			for setting, value := range c.want {
				assert.Contains(t, s.Env(), setting+"="+value)
			}
			var stores []string
			for _, store := range s.Stores() {
				stores = append(stores, store.Name)
			}
			assert.Equal(t, c.stores, stores)
		})
	}
	_, err := Load(env(map[string]string{"ESB_STORES": "perhaps"}), "/src/esb")
	assert.ErrorContains(t, err, "ESB_STORES")
}

func TestLoad_AsksForAllThatTheTableDeclares(t *testing.T) {
	assert.Empty(t, settingtest.Unread(setting.Native, func(getenv func(string) string) { _, _ = Load(getenv, "/src/esb") }))
}

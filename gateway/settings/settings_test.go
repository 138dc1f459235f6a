package settings_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/gateway/settings"
	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/guard/setting/settingtest"
)

// env answers like os.Getenv with the pairs of kv over a configuration that is safe on any listener.
func env(t *testing.T, kv ...string) func(string) string {
	t.Helper()
	vars := map[string]string{
		"ESB_HOME":       t.TempDir(),
		"X_API_KEY":      "own-api-key-of-it",
		"AUTH_PASS":      "own-password",
		"JWT_SECRET_KEY": strings.Repeat("k", 32),

		"LAMBDA_ACCESS_KEYS": "AKIDOWN:own-lambda-secret-key",
	}
	for i := 0; i+1 < len(kv); i += 2 {
		vars[kv[i]] = kv[i+1]
	}
	return func(name string) string { return vars[name] }
}

func TestLoad_NothingSet_GivesTheDocumentedDefaults(t *testing.T) {
	s, err := settings.Load(env(t))
	require.NoError(t, err)

	assert.Equal(t, []string{":443"}, s.HTTPSAddrs)
	assert.Equal(t, []string{"127.0.0.1:8000", "10.88.0.1:8000"}, s.HTTPAddrs)
	assert.Equal(t, "127.0.0.1:9443", s.AdminAddr)
	assert.Equal(t, "127.0.0.1:50051", s.AgentAddr)
	assert.False(t, s.AgentTLS.Enabled())
	assert.Equal(t, "/etc/esb/functions.yml", s.FunctionsConfigPath)
	assert.Equal(t, "/etc/esb/routing.yml", s.RoutingConfigPath)
	assert.Equal(t, 3000*time.Second, s.JWTExpires)
	assert.Equal(t, "onpremise-user", s.AuthUser)
	assert.Equal(t, "/user/auth/ver1.0", s.AuthEndpointPath)
	assert.Equal(t, 5*time.Minute, s.IdleTimeout)
	assert.Equal(t, 30*time.Second, s.HeartbeatInterval)
	assert.Equal(t, time.Minute, s.OrphanGracePeriod)
	assert.Equal(t, 0, s.MaxConcurrentStarts)
	assert.Equal(t, 5, s.CircuitBreakerFailures)
	assert.Equal(t, 200, s.StreamLimitMB)
	assert.Equal(t, filepath.Join(s.Home, "function-keys"), s.FunctionKeysFile)
	assert.True(t, s.FunctionKeys)
	assert.Equal(t, map[string]setting.Secret{"AKIDOWN": "own-lambda-secret-key"}, s.LambdaAccessKeys)
	assert.Equal(t, 10*time.Second, s.CircuitBreakerOpen)
	assert.Equal(t, 30*time.Second, s.ShutdownGrace)
	assert.Equal(t, settings.Async{NATSReplicas: 1, NATSPrefix: "esb-async", MaxMB: 1024, DeadLetterMaxMB: 256, DeadLetterRetention: 14 * 24 * time.Hour, RetryBase: time.Minute}, s.Async)
	assert.Equal(t, "/etc/esb/resources.yml", s.ResourcesConfigPath)
	assert.True(t, s.ResourcesOptional)
	dev := settings.Store{Endpoint: "http://127.0.0.1:9000", AccessKey: setting.StoreAccessKey, SecretKey: setting.StoreSecretKey}
	assert.Equal(t, dev, s.S3)
	dev.Endpoint = "http://127.0.0.1:8001"
	assert.Equal(t, dev, s.DynamoDB)
	assert.Equal(t, "us-east-1", s.Region)
	assert.Equal(t, "123456789012", s.AccountID)
	assert.Equal(t, "10.88.0.1", s.BoxAddr().String())
	assert.Equal(t, slog.LevelInfo, s.LogLevel)
}

func TestLoad_Values_AreTaken(t *testing.T) {
	s, err := settings.Load(env(t,
		"GATEWAY_HTTPS_ADDR", "127.0.0.1:8443, 10.99.0.1:8443,[::1]:8443",
		"GATEWAY_HTTP_ADDR", "off",
		"GATEWAY_ADMIN_ADDR", "off",
		"AGENT_GRPC_ADDR", "agent.example:50051",
		"AGENT_TLS_CERT", "/c", "AGENT_TLS_KEY", "/k", "AGENT_TLS_CA", "/a",
		"TLS_CERT_FILE", "/tls/c", "TLS_KEY_FILE", "/tls/k",
		"JWT_EXPIRES_DELTA", "60",
		"AUTH_ENDPOINT_PATH", "/login",
		"IDLE_TIMEOUT_MINUTES", "0.5",
		"HEARTBEAT_INTERVAL", "1.5",
		"MAX_CONCURRENT_STARTS", "4",
		"ESB_SUBNET", "10.99.0.0/24",
		"LOG_LEVEL", "debug",
		"RESOURCES_CONFIG_PATH", "/r.yml",
		"S3_ENDPOINT", "https://s3.example:9000/", "S3_ACCESS_KEY", "a", "S3_SECRET_KEY", "s",
		"DYNAMODB_ENDPOINT", "off",
	))
	require.NoError(t, err)

	assert.Equal(t, []string{"127.0.0.1:8443", "10.99.0.1:8443", "[::1]:8443"}, s.HTTPSAddrs)
	assert.Empty(t, s.HTTPAddrs)
	assert.Empty(t, s.AdminAddr)
	assert.Equal(t, settings.AgentTLS{CertFile: "/c", KeyFile: "/k", CAFile: "/a"}, s.AgentTLS)
	assert.Equal(t, "/tls/c", s.TLSCertFile)
	assert.Equal(t, "/tls/k", s.TLSKeyFile)
	assert.Equal(t, time.Minute, s.JWTExpires)
	assert.Equal(t, "/login", s.AuthEndpointPath)
	assert.Equal(t, 30*time.Second, s.IdleTimeout)
	assert.Equal(t, 1500*time.Millisecond, s.HeartbeatInterval)
	assert.Equal(t, 4, s.MaxConcurrentStarts)
	assert.Equal(t, "10.99.0.1", s.BoxAddr().String())
	assert.Equal(t, slog.LevelDebug, s.LogLevel)
	assert.Equal(t, "/r.yml", s.ResourcesConfigPath)
	assert.False(t, s.ResourcesOptional)
	assert.Equal(t, settings.Store{Endpoint: "https://s3.example:9000", AccessKey: "a", SecretKey: "s"}, s.S3)
	assert.Empty(t, s.DynamoDB.Endpoint)
}

func TestLoad_BadValue_NamesVariableValueAndRemedy(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"GATEWAY_HTTPS_ADDR", "443", `GATEWAY_HTTPS_ADDR: must be a comma separated list of host:port, such as 127.0.0.1:443, or off, got "443"`},
		{"GATEWAY_HTTP_ADDR", ":8000,", `GATEWAY_HTTP_ADDR: must be a comma separated list of host:port, such as 127.0.0.1:8000, or off, got ""`},
		{"GATEWAY_HTTP_ADDR", ":99999", `GATEWAY_HTTP_ADDR: must be a comma separated list of host:port, such as 127.0.0.1:8000, or off, got ":99999"`},
		{"GATEWAY_HTTP_ADDR", ":443", `GATEWAY_HTTP_ADDR: ":443" is listed already by GATEWAY_HTTPS_ADDR: give each listener an address of its own`},
		{"GATEWAY_ADMIN_ADDR", "0.0.0.0:9443", `GATEWAY_ADMIN_ADDR: "0.0.0.0:9443" is not on loopback, and its token can be read on the way to it: listen on 127.0.0.1 and put a proxy with TLS in front, or set ESB_ALLOW_INSECURE_DEFAULTS=true`},
		{"GATEWAY_ADMIN_ADDR", "nowhere", `GATEWAY_ADMIN_ADDR: must be host:port, such as 127.0.0.1:9443, or off, got "nowhere"`},
		{"AGENT_GRPC_ADDR", "off", `AGENT_GRPC_ADDR: must be host:port, such as 127.0.0.1:50051, got "off"`},
		{"AGENT_GRPC_ADDR", "10.0.0.7:50051", `AGENT_GRPC_ADDR: "10.0.0.7:50051" is not on loopback and so needs mutual TLS: set AGENT_TLS_CERT, AGENT_TLS_KEY and AGENT_TLS_CA`},
		{"ESB_NATS_URL", "http://host:4222", "ESB_NATS_URL: must be a comma separated list of URLs such as nats://host:4222 or tls://user:password@host:4222"},
		{"ESB_NATS_CA", "/ca.pem", "ESB_NATS_CA: is for a NATS cluster: set ESB_NATS_URL too"},
		{"ESB_NATS_REPLICAS", "3", "ESB_NATS_REPLICAS: is for a NATS cluster: set ESB_NATS_URL too"},
		{"ESB_NATS_REPLICAS", "6", `ESB_NATS_REPLICAS: must be a whole number from 1 to 5, got "6"`},
		{"ESB_NATS_PREFIX", "a.b", `ESB_NATS_PREFIX: must be 1 to 32 letters, digits, dashes and underscores, got "a.b"`},
		{"ASYNC_MAX_MB", "1", `ASYNC_MAX_MB: must be a whole number from 16 to 1048576, got "1"`},
		{"ASYNC_RETRY_BASE_SECONDS", "0", `ASYNC_RETRY_BASE_SECONDS: must be a number of seconds from 0.01 to 3600, got "0"`},
		{"ASYNC_DEAD_LETTER_RETENTION_DAYS", "-1", `ASYNC_DEAD_LETTER_RETENTION_DAYS: must be a number of days from 0 to 3650, got "-1"`},
		{"AGENT_TLS_CERT", "/c", `AGENT_TLS_KEY, AGENT_TLS_CA: missing beside AGENT_TLS_CERT: mutual TLS with the agent needs all three or none`},
		{"TLS_CERT_FILE", "/c", `TLS_KEY_FILE: is missing: TLS_CERT_FILE is set and needs its key; set both or neither`},
		{"TLS_KEY_FILE", "/k", `TLS_CERT_FILE: is missing: TLS_KEY_FILE is set and needs its certificate; set both or neither`},
		{"JWT_SECRET_KEY", "tooshort", `JWT_SECRET_KEY: must be at least 32 bytes, has 8`},
		{"LAMBDA_ACCESS_KEYS", "a-secret-alone", `LAMBDA_ACCESS_KEYS: pair 1 must be id:secret, with an id of 3 to 128 letters, digits, - and _`},
		{"LAMBDA_ACCESS_KEYS", "AKID:short", `LAMBDA_ACCESS_KEYS: the secret of AKID must have at least 16 characters, has 5`},
		{"LAMBDA_ACCESS_KEYS", "ABC:0123456789abcdef,ABC:0123456789abcdef", `LAMBDA_ACCESS_KEYS: has ABC twice`},
		{"LAMBDA_ACCESS_KEYS", "ASIAESBX:0123456789abcdef", `LAMBDA_ACCESS_KEYS: ASIAESBX begins with ASIAESB, as the functions' own keys do: choose another id`},
		{"JWT_EXPIRES_DELTA", "1.5", `JWT_EXPIRES_DELTA: must be a whole number from 1 to 315360000, got "1.5"`},
		{"AUTH_ENDPOINT_PATH", "login", `AUTH_ENDPOINT_PATH: must be a URL path such as /user/auth/ver1.0, without a slash at its end, got "login"`},
		{"ESB_ALLOW_INSECURE_DEFAULTS", "yes", `ESB_ALLOW_INSECURE_DEFAULTS: must be true or false, got "yes"`},
		{"IDLE_TIMEOUT_MINUTES", "-1", `IDLE_TIMEOUT_MINUTES: must be a number of minutes from 0.01 to 10080, got "-1"`},
		{"HEARTBEAT_INTERVAL", "NaN", `HEARTBEAT_INTERVAL: must be a number of seconds from 0.1 to 3600, got "NaN"`},
		{"ORPHAN_GRACE_PERIOD_SECONDS", "1m", `ORPHAN_GRACE_PERIOD_SECONDS: must be a number of seconds from 0 to 86400, got "1m"`},
		{"GATEWAY_STREAM_LIMIT_MB", "0", `GATEWAY_STREAM_LIMIT_MB: must be a whole number from 1 to 1048576, got "0"`},
		{"CIRCUIT_BREAKER_FAILURES", "0", `CIRCUIT_BREAKER_FAILURES: must be a whole number from 1 to 1000, got "0"`},
		{"SERVICE_LOG_MAX_MB", "0", `SERVICE_LOG_MAX_MB: must be a whole number from 1 to 1048576, got "0"`},
		{"AWS_REGION", "mars", `AWS_REGION: must be a region name such as us-east-1, got "mars"`},
		{"AWS_ACCOUNT_ID", "123", `AWS_ACCOUNT_ID: must be 12 digits, got "123"`},
		{"ESB_SUBNET", "10.88.0.1/16", `ESB_SUBNET: "10.88.0.1/16" has host bits set; the network is 10.88.0.0/16`},
		{"ESB_SUBNET", "fd00::/64", `ESB_SUBNET: must be an IPv4 network from /8 to /29, such as 10.88.0.0/16, got "fd00::/64"`},
		{"S3_ENDPOINT", "127.0.0.1:9000", `S3_ENDPOINT: must be an http or https URL without credentials and query, such as http://127.0.0.1:9000, or off`},
		{"DYNAMODB_ENDPOINT", "http://me:secret@db:8001", `DYNAMODB_ENDPOINT: must be an http or https URL without credentials and query, such as http://127.0.0.1:8001, or off`},
		{"LOG_LEVEL", "loud", `LOG_LEVEL: must be DEBUG, INFO, WARN or ERROR, got "loud"`},
	} {
		t.Run(c.name+"="+c.value, func(t *testing.T) {
			_, err := settings.Load(env(t, c.name, c.value))
			require.EqualError(t, err, c.want)
		})
	}
}

func TestLoad_SeveralProblems_ReportsAllAtOnce(t *testing.T) {
	_, err := settings.Load(env(t, "LOG_LEVEL", "x", "AWS_ACCOUNT_ID", "y", "JWT_SECRET_KEY", "short-secret",
		"GATEWAY_HTTPS_ADDR", "off", "GATEWAY_HTTP_ADDR", "off"))

	var e *setting.Error
	require.ErrorAs(t, err, &e)
	assert.Len(t, e.Problems, 4)
	assert.NotContains(t, err.Error(), "short-secret")
	assert.Contains(t, err.Error(), "GATEWAY_HTTPS_ADDR, GATEWAY_HTTP_ADDR: both are off")
}

func TestLoad_WeakSecrets_DependOnWhoCanReachTheListener(t *testing.T) {
	const (
		apiKey   = "dev-api-key-change-in-production"
		password = "onpremise-pass"
		own      = "x-y:an-own-secret-of-it"
	)
	weak := []string{"X_API_KEY", apiKey, "AUTH_PASS", password, "LAMBDA_ACCESS_KEYS", "x-y:" + setting.StoreSecretKey}
	const then = `: unset it (the box then makes one of its own), set one of yours, or listen on 127.0.0.1 alone`
	const mend = `: unset it (the box then makes one of its own), or set a better one`
	for _, c := range []struct {
		name    string
		kv      []string
		refused string
	}{
		{name: "loopback", kv: append(weak, "GATEWAY_HTTPS_ADDR", "127.0.0.1:443,[::1]:443", "GATEWAY_HTTP_ADDR", "localhost:8000")},
		{name: "allowed", kv: append(weak, "ESB_ALLOW_INSECURE_DEFAULTS", "true", "GATEWAY_HTTP_ADDR", ":8000")},
		{
			name: "the box's address, which its functions reach", kv: append(weak, "GATEWAY_HTTPS_ADDR", "10.88.0.1:443", "GATEWAY_HTTP_ADDR", "off"),
			refused: `X_API_KEY, AUTH_PASS, LAMBDA_ACCESS_KEYS: everybody knows this value, which is refused because more than this machine's own programs reach GATEWAY_HTTPS_ADDR "10.88.0.1:443"` + then,
		},
		{
			name: "all interfaces", kv: weak,
			refused: `X_API_KEY, AUTH_PASS, LAMBDA_ACCESS_KEYS: everybody knows this value, which is refused because more than this machine's own programs reach GATEWAY_HTTPS_ADDR ":443", GATEWAY_HTTP_ADDR "10.88.0.1:8000"` + then,
		},
		{
			name:    "one of two secrets, one of two listeners",
			kv:      []string{"X_API_KEY", "own-api-key-of-it", "AUTH_PASS", password, "LAMBDA_ACCESS_KEYS", "off", "GATEWAY_HTTPS_ADDR", "127.0.0.1:443,192.168.1.5:443", "GATEWAY_HTTP_ADDR", "off"},
			refused: `AUTH_PASS: everybody knows this value, which is refused because more than this machine's own programs reach GATEWAY_HTTPS_ADDR "192.168.1.5:443"` + then,
		},
		{name: "short, for functions", kv: []string{"X_API_KEY", "a", "AUTH_PASS", "a", "LAMBDA_ACCESS_KEYS", own, "GATEWAY_HTTPS_ADDR", "10.88.0.1:443", "GATEWAY_HTTP_ADDR", "127.0.0.1:8000"}},
		{
			name:    "short, for other machines",
			kv:      []string{"X_API_KEY", "fifteen--------", "AUTH_PASS", "a", "LAMBDA_ACCESS_KEYS", own, "GATEWAY_HTTPS_ADDR", "10.88.0.2:443", "GATEWAY_HTTP_ADDR", "off"},
			refused: `X_API_KEY: has 15 characters and must have at least 16, because other machines reach GATEWAY_HTTPS_ADDR "10.88.0.2:443"` + mend + "\n" + `AUTH_PASS: has 1 characters and must have at least 12, because other machines reach GATEWAY_HTTPS_ADDR "10.88.0.2:443"` + mend,
		},
		{
			name:    "the user's name",
			kv:      []string{"X_API_KEY", "own-api-key-of-it", "AUTH_PASS", "onpremise-user", "LAMBDA_ACCESS_KEYS", "off", "GATEWAY_HTTP_ADDR", "off"},
			refused: `AUTH_PASS: is the user's name, because other machines reach GATEWAY_HTTPS_ADDR ":443"` + mend,
		},
		{name: "none set, and offered", kv: []string{"GATEWAY_HTTPS_ADDR", ":443"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			kv := append([]string{"X_API_KEY", "", "AUTH_PASS", "", "LAMBDA_ACCESS_KEYS", ""}, c.kv...)
			_, err := settings.Load(env(t, kv...))
			if c.refused == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, c.refused)
			}
		})
	}
}

func TestLoad_NoSecrets_MakesThemAndKeepsThem(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	none := []string{"ESB_HOME", home, "X_API_KEY", "", "AUTH_PASS", "", "LAMBDA_ACCESS_KEYS", ""}
	first, err := settings.Load(env(t, none...))
	require.NoError(t, err)
	second, err := settings.Load(env(t, none...))
	require.NoError(t, err)
	other, err := settings.Load(env(t, none[2:]...))
	require.NoError(t, err)

	assert.Equal(t, []string{"127.0.0.1:443", "10.88.0.1:443"}, first.HTTPSAddrs, "the network is offered when somebody says so")
	assert.GreaterOrEqual(t, len(first.APIKey), 16)
	assert.GreaterOrEqual(t, len(first.AuthPass), 12)
	assert.Len(t, first.LambdaAccessKeys, 1)
	assert.True(t, first.APIKey == second.APIKey && first.AuthPass == second.AuthPass, "they must outlive a restart")
	assert.True(t, first.APIKey != other.APIKey && first.AuthPass != other.AuthPass, "two boxes must not share them")
	info, err := os.Stat(filepath.Join(home, "credentials"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	mine, err := settings.Load(env(t, "ESB_HOME", home, "X_API_KEY", "mine-and-not-the-box's", "AUTH_PASS", ""))
	require.NoError(t, err)
	assert.Equal(t, "mine-and-not-the-box's", string(mine.APIKey))
	assert.True(t, mine.AuthPass == first.AuthPass)

	require.NoError(t, os.Chmod(filepath.Join(home, "credentials"), 0o644))
	_, err = settings.Load(env(t, none...))
	require.ErrorContains(t, err, "X_API_KEY, AUTH_PASS, LAMBDA_ACCESS_KEYS: not set, and "+home+"/credentials: others than its owner")
}

func TestLoad_NoJWTSecret_MakesOneAndKeepsIt(t *testing.T) {
	home := filepath.Join(t.TempDir(), "new", "home")
	first, err := settings.Load(env(t, "ESB_HOME", home, "JWT_SECRET_KEY", ""))
	require.NoError(t, err)
	second, err := settings.Load(env(t, "ESB_HOME", home, "JWT_SECRET_KEY", ""))
	require.NoError(t, err)
	other, err := settings.Load(env(t, "JWT_SECRET_KEY", ""))
	require.NoError(t, err)

	assert.GreaterOrEqual(t, len(first.JWTSecret), 32)
	assert.True(t, first.JWTSecret == second.JWTSecret, "the key must outlive a restart")
	assert.False(t, first.JWTSecret == other.JWTSecret, "two boxes must not share a key")
	info, err := os.Stat(filepath.Join(home, "jwt.key"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestLoad_DamagedKeptSecret_SaysWhatToDo(t *testing.T) {
	home := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(home, "jwt.key"), []byte("\n"), 0o600))
	_, err := settings.Load(env(t, "ESB_HOME", home, "JWT_SECRET_KEY", ""))
	require.ErrorContains(t, err, "JWT_SECRET_KEY: is not set and "+home+"/jwt.key holds no key: delete it")
}

func TestLoad_SecretsThatOthersMayRead_AreRefused(t *testing.T) {
	home := t.TempDir()
	file := func(name string) string {
		path := filepath.Join(home, name)
		require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("k", 64)+"\n"), 0o600))
		require.NoError(t, os.Chmod(path, 0o644))
		return path
	}
	key, jwt := file("key.pem"), file("jwt.key")
	for _, c := range [][]string{
		{"TLS_KEY_FILE", key, "TLS_CERT_FILE", key},
		{"AGENT_TLS_KEY", key, "AGENT_TLS_CERT", key, "AGENT_TLS_CA", key},
		{"ESB_NATS_KEY", key, "ESB_NATS_CERT", key, "ESB_NATS_URL", "tls://a"},
		{"ESB_NATS_CREDENTIALS", key, "ESB_NATS_URL", "tls://a"},
		{"JWT_SECRET_KEY", ""},
	} {
		_, err := settings.Load(env(t, append(c, "ESB_HOME", home)...))
		require.ErrorContains(t, err, c[0]+": ")
		require.ErrorContains(t, err, "(mode 0644); if nobody has: chmod 600")
	}
	require.NoError(t, os.Chmod(jwt, 0o600))
	_, err := settings.Load(env(t, "ESB_HOME", home, "JWT_SECRET_KEY", ""))
	require.NoError(t, err)
}

func TestLoad_InvalidSettings_LeaveNoKeyBehind(t *testing.T) {
	home := t.TempDir()
	_, err := settings.Load(env(t, "ESB_HOME", home, "JWT_SECRET_KEY", "", "LOG_LEVEL", "loud"))
	require.Error(t, err)
	entries, err := os.ReadDir(home)
	require.NoError(t, err)
	assert.Empty(t, entries)
}

func TestSettings_Printed_ShowNoSecret(t *testing.T) {
	s, err := settings.Load(env(t))
	require.NoError(t, err)

	asJSON, err := json.Marshal(s)
	require.NoError(t, err)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("settings", "settings", s, "key", s.APIKey)
	for _, printed := range []string{
		fmt.Sprint(s), fmt.Sprintf("%+v", s), fmt.Sprintf("%#v", s), fmt.Sprintf("%q", s.APIKey), fmt.Sprintf("%x", s.APIKey),
		fmt.Sprintf("%d", s.APIKey), string(asJSON), log.String(),
	} {
		assert.NotContains(t, printed, "own-api-key")
		assert.NotContains(t, printed, "own-password")
		assert.NotContains(t, printed, "own-lambda-secret")
		assert.NotContains(t, printed, setting.StoreSecretKey)
		assert.NotContains(t, printed, "kkkkkkkk")
		assert.NotContains(t, printed, fmt.Sprintf("%x", "own-api-key-of-it"))
		assert.Contains(t, printed, "redacted")
	}
}

func TestLoad_NATS_CredentialsAreSecret_AndFilesMustBeThere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "creds")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	s, err := settings.Load(env(t, "ESB_NATS_URL", "nats://u:hush@a:4222, tls://b", "ESB_NATS_CREDENTIALS", file, "ESB_NATS_REPLICAS", "3", "ASYNC_RETRY_BASE_SECONDS", "0.5"))
	require.NoError(t, err)
	assert.Equal(t, "nats://u:hush@a:4222, tls://b", string(s.Async.NATSURL))
	assert.NotContains(t, fmt.Sprintf("%+v", s), "hush")
	assert.Equal(t, 3, s.Async.NATSReplicas)
	assert.Equal(t, 500*time.Millisecond, s.Async.RetryBase)
	_, err = settings.Load(env(t, "ESB_NATS_URL", "nats://a", "ESB_NATS_CREDENTIALS", file+"x", "ESB_NATS_CERT", file))
	assert.ErrorContains(t, err, "ESB_NATS_CREDENTIALS: open "+file+"x: no such file")
	assert.ErrorContains(t, err, "ESB_NATS_CERT, ESB_NATS_KEY: set both or neither")
	_, err = settings.Load(env(t, "ESB_NATS_URL", "nats://u:hush@"))
	assert.NotContains(t, err.Error(), "hush")
}

func TestLoad_FunctionKeys_AreOffWhereAStoreIsElsewhere(t *testing.T) {
	for _, c := range []struct {
		vars []string
		want bool
	}{
		{[]string{"S3_ENDPOINT", "http://10.88.0.1:9000", "DYNAMODB_ENDPOINT", "off"}, true},
		{[]string{"S3_ENDPOINT", "http://localhost:9000"}, true},
		{[]string{"S3_ENDPOINT", "https://s3.eu-west-1.amazonaws.com"}, false},
		{[]string{"DYNAMODB_ENDPOINT", "http://192.0.2.1:8000"}, false},
		{[]string{"DYNAMODB_ENDPOINT", "http://192.0.2.1:8000", "FUNCTION_KEYS", "on"}, true},
		{[]string{"FUNCTION_KEYS", "off"}, false},
	} {
		s, err := settings.Load(env(t, append([]string{"GATEWAY_HTTPS_ADDR", "127.0.0.1:443", "GATEWAY_HTTP_ADDR", "off"}, c.vars...)...))
		require.NoError(t, err, c.vars)
		assert.Equal(t, c.want, s.FunctionKeys, c.vars)
	}
	_, err := settings.Load(env(t, "GATEWAY_HTTPS_ADDR", "127.0.0.1:443", "GATEWAY_HTTP_ADDR", "off", "FUNCTION_KEYS", "yes"))
	require.EqualError(t, err, `FUNCTION_KEYS: must be on or off, got "yes"`)
}

func TestLoad_AsksForAllThatTheTableDeclares(t *testing.T) {
	home := t.TempDir()
	assert.Empty(t, settingtest.Unread(setting.Gateway, func(getenv func(string) string) {
		_, _ = settings.Load(func(name string) string {
			if v := getenv(name); name != "ESB_HOME" {
				return v
			}
			return home
		})
	}))
}

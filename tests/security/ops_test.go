package security

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/credentials"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/tests/hoststate"
	"github.com/edge-serverless-box/esb/tests/stack"
)

// Secrets that earlier versions had as defaults, which the documentation told everybody.
const (
	knownAPIKey    = "dev-api-key-change-in-production"
	knownPassword  = "onpremise-pass"
	knownAccessKey = "esb-dev-access"
	knownSecretKey = "esb-dev-secret-change-in-production"
)

func loginWith(t *testing.T, b *stack.Stack, apiKey, password string) int {
	t.Helper()
	body := fmt.Sprintf(`{"AuthParameters":{"USERNAME":%q,"PASSWORD":%q}}`, stack.User, password)
	answer, err := b.Do(t.Context(), http.MethodPost, b.HTTPSURL+"/user/auth/ver1.0", "", []byte(body), "x-api-key", apiKey)
	require.NoError(t, err)
	return answer.Status
}

// invokeWith asks for a dry run of a function at Lambda's API: 204 who may, 404 who may where there is no such function.
func invokeWith(t *testing.T, b *stack.Stack, function, accessKey, secretKey string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.HTTPURL+"/2015-03-31/functions/"+function+"/invocations", strings.NewReader("{}"))
	require.NoError(t, err)
	r.Header.Set("X-Amz-Invocation-Type", "DryRun")
	sigv4.Sign(r, sigv4.Credentials{AccessKeyID: accessKey, SecretAccessKey: secretKey}, "us-east-1", "lambda", sigv4.HashPayload([]byte("{}")), time.Now())
	answer, err := b.HTTP.Do(r)
	require.NoError(t, err)
	_ = answer.Body.Close()
	return answer.StatusCode
}

// A box whose operator has set nothing.
func TestDefaultBox_HasNoSecretThatIsKnown(t *testing.T) {
	home := t.TempDir()
	config := func(name, text string) string {
		path := filepath.Join(home, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		return path
	}
	b, err := stack.Prepare(home, stack.Options{
		FunctionsConfig: config("functions.yml", "functions: {}\n"), RoutingConfig: config("routing.yml", "routes: []\n"), ResourcesConfig: config("resources.yml", "{}\n"),
		Env: []string{"X_API_KEY=", "AUTH_PASS=", "LAMBDA_ACCESS_KEYS=", "S3_ACCESS_KEY=", "S3_SECRET_KEY=", "DYNAMODB_ACCESS_KEY=", "DYNAMODB_SECRET_KEY="},
	})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, b.Down()) })
	require.NoError(t, b.Up(t.Context()))
	own, err := credentials.Read(filepath.Join(home, credentials.File))
	require.NoError(t, err)
	id, secret, _ := strings.Cut(own[credentials.LambdaKeys], ":")
	require.Equal(t, http.StatusOK, loginWith(t, b, own[credentials.APIKey], own[credentials.Password]), "its own secrets open it")
	require.Equal(t, http.StatusNotFound, invokeWith(t, b, "nobody", id, secret))

	attempt(t, client, "log in to a default box with the key and password of the documentation", func(t *testing.T) {
		require.Equal(t, http.StatusUnauthorized, loginWith(t, b, knownAPIKey, knownPassword))
		require.Equal(t, http.StatusUnauthorized, loginWith(t, b, own[credentials.APIKey], knownPassword))
	})
	attempt(t, client, "invoke on a default box with the key of the documentation", func(t *testing.T) {
		require.Equal(t, http.StatusForbidden, invokeWith(t, b, "nobody", knownAccessKey, knownSecretKey))
	})
	attempt(t, client, "use S3 of a default box with the key of the documentation", func(t *testing.T) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.S3URL+"/", nil)
		require.NoError(t, err)
		sigv4.Sign(r, sigv4.Credentials{AccessKeyID: knownAccessKey, SecretAccessKey: knownSecretKey}, "us-east-1", "s3", sigv4.HashPayload(nil), time.Now())
		answer, err := b.HTTP.Do(r)
		require.NoError(t, err)
		defer func() { _ = answer.Body.Close() }()
		text, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		require.GreaterOrEqual(t, answer.StatusCode, http.StatusBadRequest, "%s", text)
		require.NotContains(t, string(text), "ListAllMyBucketsResult")
	})
	attempt(t, localUser, "read the secrets that the box has made", func(t *testing.T) {
		out, ok := asNobody(t, "read", filepath.Join(home, credentials.File))
		require.False(t, ok, "%s", out)
	})
}

func TestHostileFunction_IsNotTheOperator(t *testing.T) {
	attempt(t, function, "invoke every function with the key of the documentation", func(t *testing.T) {
		status := inside(t, fmt.Sprintf(`
status, headers, body = signed("lambda", "POST", os.environ["AWS_ENDPOINT_URL_LAMBDA"] + "/2015-03-31/functions/victim/invocations", "{}", key=%q, secret=%q)
result = status
`, knownAccessKey, knownSecretKey))
		require.Equal(t, float64(http.StatusForbidden), status)
	})
	attempt(t, function, "log in with the key and password of the documentation", func(t *testing.T) {
		status := inside(t, fmt.Sprintf(`
u = urllib.parse.urlsplit(os.environ["AWS_ENDPOINT_URL_LAMBDA"])
body = json.dumps({"AuthParameters": {"USERNAME": "onpremise-user", "PASSWORD": %q}})
result = request("POST", "http://" + u.netloc + "/user/auth/ver1.0", body, {"x-api-key": %q})[0]
`, knownPassword, knownAPIKey))
		require.Equal(t, float64(http.StatusUnauthorized), status)
	})
}

// admin asks the admin listener without the operator's token, unless header has it.
func admin(t *testing.T, method, path, host string, header ...string) (status int) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, box.AdminURL+path, nil)
	require.NoError(t, err)
	if host != "" {
		r.Host = host
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := box.HTTP.Do(r)
	require.NoError(t, err)
	_ = answer.Body.Close()
	return answer.StatusCode
}

func TestLocalUser_IsNotTheOperator(t *testing.T) {
	for _, path := range []string{"GET /pools", "GET /metrics", "GET /async", "GET /schedules", "POST /reload", "DELETE /async/victim/dead-letters?all=true"} {
		attempt(t, localUser, "admin without its token: "+path, func(t *testing.T) {
			method, path, _ := strings.Cut(path, " ")
			status := admin(t, method, path, "")
			require.Equal(t, http.StatusUnauthorized, status)
		})
	}
	attempt(t, localUser, "read the token of the admin listener", func(t *testing.T) {
		_, err := box.AdminToken(t.Context())
		require.NoError(t, err, "it is there")
		for _, path := range []string{filepath.Join(box.Home, "admin-token"), filepath.Join(box.Home, "gateway", "admin-token")} {
			out, ok := asNobody(t, "read", path)
			require.False(t, ok, "%s", out)
		}
	})
	token, err := box.AdminToken(t.Context())
	require.NoError(t, err)
	bearer := []string{"Authorization", "Bearer " + token}
	status := admin(t, http.MethodGet, "/readyz", "", bearer...)
	require.Equal(t, http.StatusOK, status)
	attempt(t, localUser, "a web page asks admin by DNS rebinding", func(t *testing.T) {
		status := admin(t, http.MethodGet, "/readyz", "evil.example", bearer...)
		require.Equal(t, http.StatusForbidden, status)
	})
	attempt(t, localUser, "a web page of another site posts to admin", func(t *testing.T) {
		status := admin(t, http.MethodPost, "/reload", "", append(bearer, "Origin", "https://evil.example")...)
		require.Equal(t, http.StatusForbidden, status)
		status = admin(t, http.MethodPost, "/reload", "", append(bearer, "Sec-Fetch-Site", "cross-site")...)
		require.Equal(t, http.StatusForbidden, status)
	})
}

// open0644 is a file that every user of the machine may read.
func open0644(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("k", 64)), 0o600))
	require.NoError(t, os.Chmod(path, 0o644))
	return path
}

// The gateway and the stores have users of their own, and what they can be made to do ends there.
func TestServices_HaveFewRights(t *testing.T) {
	processes, err := hoststate.Processes(box.Home, box.BinDir, box.Bridge)
	require.NoError(t, err)
	// CAP_NET_BIND_SERVICE, for ports below 1024.
	capabilities := map[string]string{"gateway": "0000000000000400", "stores": "0000000000000000"}
	seen := make(map[string]bool)
	for _, p := range processes {
		name := filepath.Base(p.Program)
		if !slices.Contains([]string{"gateway", "stores", "versitygw", "dynoxide", "victoria-logs", "registry"}, name) {
			continue
		}
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
		require.NoError(t, err)
		field := func(name string) string {
			_, rest, _ := strings.Cut(string(status), "\n"+name+":\t")
			value, _, _ := strings.Cut(rest, "\n")
			return value
		}
		if want, known := capabilities[name]; known && !seen[name] {
			attempt(t, client, "find a "+name+" that runs as root, or may get more rights than it has", func(t *testing.T) {
				require.NotContains(t, strings.Fields(field("Uid")), "0")
				require.NotContains(t, strings.Fields(field("Gid")), "0")
				require.Empty(t, strings.Trim(field("Groups"), " "+strings.Fields(field("Gid"))[0]))
				require.Equal(t, want, field("CapEff"))
				require.Equal(t, want, field("CapPrm"))
				require.Equal(t, "1", field("NoNewPrivs"))
			})
		} else if !known {
			attempt(t, client, "find a "+name+" that runs as root, or may get more rights than it has", func(t *testing.T) {
				require.NotContains(t, strings.Fields(field("Uid")), "0")
				require.Equal(t, "0000000000000000", field("CapEff"))
				require.Equal(t, "1", field("NoNewPrivs"))
			})
		}
		seen[name] = true
	}
	for _, name := range []string{"gateway", "stores", "versitygw", "dynoxide", "victoria-logs", "registry"} {
		require.True(t, seen[name], name)
	}
}

func TestLocalUser_ReadsNothingOfTheBox(t *testing.T) {
	box.Post(t, "/echo", "", "{}")
	for _, dir := range []string{"gateway", "stores", "logs", "logs/functions", "logs/gateway", "data", "data/s3", "code", "run", "containerd", "images"} {
		path := filepath.Join(box.Home, dir)
		require.DirExists(t, path)
		attempt(t, localUser, "list "+dir+" of the box", func(t *testing.T) {
			out, ok := commandAsNobody(t, "ls", "-la", path)
			require.False(t, ok, "%s", out)
		})
	}
	for _, file := range []string{
		"run/stack.json", "run/gateway.pid", "logs/agent.log", "logs/gateway/gateway.log", "gateway/tls/ca.key", "gateway/tls/server.key",
		"gateway/function-keys", "stores/function-keys",
	} {
		path := filepath.Join(box.Home, file)
		require.FileExists(t, path)
		attempt(t, localUser, "read "+file, func(t *testing.T) {
			out, ok := asNobody(t, "read", path)
			require.False(t, ok, "%s", out)
		})
	}
	attempt(t, localUser, "read a service's environment, where secrets are", func(t *testing.T) {
		processes, err := hoststate.Processes(box.Home, box.BinDir, box.Bridge)
		require.NoError(t, err)
		require.NotEmpty(t, processes)
		for _, p := range processes {
			out, ok := asNobody(t, "read", fmt.Sprintf("/proc/%d/environ", p.PID))
			require.False(t, ok, "%s", out)
		}
	})
	attempt(t, localUser, "find a secret in what the box prints, records and logs", func(t *testing.T) {
		status, err := box.Esb(t.Context(), "status")
		require.NoError(t, err)
		all := []byte(status)
		for _, file := range []string{"run/stack.json", "logs/agent.log", "logs/gateway/gateway.log", "logs/stores/stores.log"} {
			text, err := os.ReadFile(filepath.Join(box.Home, file))
			require.NoError(t, err)
			all = append(all, text...)
		}
		token, err := box.AdminToken(t.Context())
		require.NoError(t, err)
		for _, secret := range []string{stack.APIKey, stack.Password, stack.SecretKey, token} {
			require.NotContains(t, string(all), secret)
		}
	})
}

// refused runs a program of the box with settings that it must refuse, and returns what it says.
func refused(t *testing.T, program string, env ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(box.BinDir, program))
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "ESB_HOME=" + t.TempDir(), "GATEWAY_HTTPS_ADDR=127.0.0.1:0", "GATEWAY_HTTP_ADDR=off", "GATEWAY_ADMIN_ADDR=off"}, env...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, ctx.Err(), "it has started")
	require.Error(t, err)
	return string(out)
}

func TestOperator_WeakSettings_AreRefused(t *testing.T) {
	const strong = "X_API_KEY=strong-enough-for-all"
	for _, c := range []struct {
		what string
		env  []string
		says string
	}{
		{"a short API key on all addresses", []string{"GATEWAY_HTTPS_ADDR=0.0.0.0:0", "X_API_KEY=a", "AUTH_PASS=long-enough-password"}, "X_API_KEY"},
		{"a short password on all addresses", []string{"GATEWAY_HTTPS_ADDR=0.0.0.0:0", strong, "AUTH_PASS=a"}, "AUTH_PASS"},
		{"the user's name as password on all addresses", []string{"GATEWAY_HTTPS_ADDR=0.0.0.0:0", strong, "AUTH_PASS=onpremise-user"}, "AUTH_PASS"},
		{"a known password on the function network", []string{"GATEWAY_HTTPS_ADDR=10.88.0.1:0", strong, "AUTH_PASS=" + knownPassword}, "AUTH_PASS"},
		{"a known key of Lambda's API on all addresses", []string{"GATEWAY_HTTPS_ADDR=0.0.0.0:0", strong, "AUTH_PASS=long-enough-password", "LAMBDA_ACCESS_KEYS=mine:" + knownSecretKey}, "LAMBDA_ACCESS_KEYS"},
		{"a short secret of Lambda's API", []string{"LAMBDA_ACCESS_KEYS=mine:short"}, "LAMBDA_ACCESS_KEYS"},
		{"a short key of tokens", []string{"JWT_SECRET_KEY=short"}, "JWT_SECRET_KEY"},
		{"a TLS key that everybody may read", []string{"TLS_CERT_FILE=" + open0644(t), "TLS_KEY_FILE=" + open0644(t)}, "TLS_KEY_FILE"},
		{"admin on all addresses", []string{"GATEWAY_ADMIN_ADDR=0.0.0.0:0"}, "GATEWAY_ADMIN_ADDR"},
	} {
		attempt(t, operator, c.what, func(t *testing.T) {
			require.Contains(t, refused(t, "gateway", c.env...), c.says)
		})
	}
	for _, c := range []struct{ what, program, env, says string }{
		{"S3's web UI on all addresses with the key of the documentation", "stores", "S3_UI_ADDR=0.0.0.0:19001", "S3_UI_ADDR"},
		{"S3 on all addresses with a short key", "stores", "S3_ADDR=0.0.0.0:19000", "S3_ADDR"},
	} {
		attempt(t, operator, c.what, func(t *testing.T) {
			secret := "S3_SECRET_KEY=" + knownSecretKey
			if c.says == "S3_ADDR" {
				secret = "S3_SECRET_KEY=fifteenletters-"
			}
			require.Contains(t, refused(t, c.program, c.env, secret, "DYNAMODB_ADDR=off", "VICTORIALOGS_ADDR=off", "REGISTRY_ADDR=off"), c.says)
		})
	}
	attempt(t, operator, "a jwt.key that everybody may read", func(t *testing.T) {
		home := t.TempDir()
		require.NoError(t, os.Rename(open0644(t), filepath.Join(home, "jwt.key")))
		require.Contains(t, refused(t, "gateway", "ESB_HOME="+home), "jwt.key")
	})
}

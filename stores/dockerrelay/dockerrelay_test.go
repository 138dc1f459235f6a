package dockerrelay_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/guard/setting/settingtest"
	"github.com/edge-serverless-box/esb/sigv4"
	"github.com/edge-serverless-box/esb/sigv4/functionaccess"
	"github.com/edge-serverless-box/esb/sigv4/functionkeys"
	"github.com/edge-serverless-box/esb/stores/dockerrelay"
)

func load(vars map[string]string) (dockerrelay.Settings, error) {
	return dockerrelay.Load(func(name string) string { return vars[name] })
}

func TestLoad_Defaults_AreThoseOfTheCompose(t *testing.T) {
	s, err := load(nil)
	require.NoError(t, err)
	assert.Equal(t, "10.88.0.1", s.Box().String())
	assert.Equal(t, []any{9000, 8001, []int(nil)}, []any{s.S3Port, s.DynamoDBPort, s.Ports})
	assert.Equal(t, "esb-dev-access", s.S3.AccessKeyID)
	assert.Empty(t, s.Extra)
}

func TestLoad_WhatIsWrong_IsNamed(t *testing.T) {
	_, err := load(map[string]string{"ESB_SUBNET": "10.88.0.1/16", "ESB_RELAY_S3_PORT": "x", "ESB_RELAY_PORTS": "1 0", "ESB_RELAY_EXTRA": "9000", "ESB_RELAY_S3_ADDR": "x", "S3_PUBLIC_ENDPOINT": "ftp://x"})
	for _, want := range []string{
		`ESB_RELAY_S3_PORT: must be a port from 1 to 65535, got "x"`, `ESB_RELAY_PORTS: must be ports from 1 to 65535, separated by blanks, got "0"`,
		`ESB_RELAY_EXTRA: must be a list of address:port, got "9000"`, `ESB_RELAY_S3_ADDR: must be a list of address:port, got "x"`, `S3_PUBLIC_ENDPOINT: must be http://host:port or https://host without a path, got "ftp://x"`,
		`ESB_SUBNET: "10.88.0.1/16" has host bits set; the network is 10.88.0.0/16`,
	} {
		assert.ErrorContains(t, err, want)
	}
}

func TestLoad_AsksForAllThatTheTableDeclares(t *testing.T) {
	assert.Empty(t, settingtest.Unread(setting.Relay, func(getenv func(string) string) { _, _ = dockerrelay.Load(getenv) }))
}

// The box's address is one of loopback here; the stores are on 127.0.0.1, at the same ports, as Docker publishes them.
func TestRun_FunctionsReachTheStoresWithTheirOwnKeys(t *testing.T) {
	ports := map[string]string{}
	for _, store := range []string{"s3", "dynamodb", "logs"} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if store != "logs" {
				body, _ := io.ReadAll(r.Body)
				signature, err := sigv4.NewVerifier(store, sigv4.OneKey("esb-dev-access", "own-secret")).Verify(r, body)
				_, _ = fmt.Fprintf(w, "%s %s %v", store, signature.AccessKeyID, err)
				return
			}
			_, _ = fmt.Fprintf(w, "%s %s", store, r.Header.Get("Authorization"))
		}))
		t.Cleanup(server.Close)
		_, ports[store], _ = net.SplitHostPort(server.Listener.Addr().String())
	}
	keysFile := filepath.Join(t.TempDir(), "function-keys")
	keys, err := functionkeys.Open(keysFile)
	require.NoError(t, err)
	accessFile := filepath.Join(t.TempDir(), "function-access.json")
	require.NoError(t, functionaccess.Save(accessFile, functionaccess.List{Account: "123456789012", Functions: map[string]functionaccess.Function{keys.ID("f"): {
		Name: "f", S3: []functionaccess.Objects{{Bucket: "*", Access: functionaccess.Read}}, Tables: []functionaccess.Table{{Table: "mine", Access: functionaccess.Read}},
	}}}))
	s, err := load(map[string]string{
		"ESB_SUBNET": "127.88.0.0/16", "ESB_RELAY_S3_PORT": ports["s3"], "ESB_RELAY_DYNAMODB_PORT": ports["dynamodb"], "ESB_RELAY_PORTS": ports["logs"],
		"ESB_RELAY_S3_ADDR": "127.88.0.3:" + ports["logs"], "S3_PUBLIC_ENDPOINT": "https://files.example.com",
		"ESB_RELAY_EXTRA": "127.88.0.2:" + ports["s3"], "FUNCTION_KEYS_FILE": keysFile, "FUNCTION_ACCESS_FILE": accessFile, "S3_SECRET_KEY": "own-secret", "DYNAMODB_SECRET_KEY": "own-secret",
	})
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- dockerrelay.Run(ctx, s, slog.New(slog.DiscardHandler)) }()

	ask := func(addr, service string) (string, error) {
		method, body := http.MethodGet, ""
		if service == "dynamodb" {
			method, body = http.MethodPost, `{"TableName": "arn:aws:dynamodb:us-east-1:123456789012:table/mine", "Key": {}}`
		}
		r, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+"/", strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("X-Amz-Target", "DynamoDB_20120810.GetItem")
		sigv4.Sign(r, keys.Of("f"), "us-east-1", service, sigv4.HashPayload([]byte(body)), time.Now())
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return "", err
		}
		defer func() { _ = res.Body.Close() }()
		text, err := io.ReadAll(res.Body)
		return string(text), err
	}
	for _, c := range []struct{ addr, service, want string }{
		{"127.88.0.1:" + ports["s3"], "s3", "s3 esb-dev-access <nil>"},
		{"127.88.0.1:" + ports["dynamodb"], "dynamodb", "dynamodb esb-dev-access <nil>"},
		{"127.88.0.1:" + ports["logs"], "logs", "logs AWS4-HMAC-SHA256 Credential=ASIAESB"},
		{"127.88.0.3:" + ports["logs"], "s3", "s3 esb-dev-access <nil>"},
		{"127.88.0.2:" + ports["s3"], "s3", "s3  UnrecognizedClientException"},
	} {
		var got string
		require.Eventually(t, func() bool {
			var err error
			got, err = ask(c.addr, c.service)
			return err == nil
		}, time.Minute, 10*time.Millisecond)
		assert.Contains(t, got, c.want)
	}
	stop()
	require.NoError(t, <-ended)

	// Others than those of ESB_RELAY_EXTRA_FROM get no answer.
	s.ExtraFrom = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	ctx, stop = context.WithCancel(t.Context())
	go func() { ended <- dockerrelay.Run(ctx, s, slog.New(slog.DiscardHandler)) }()
	require.Eventually(t, func() bool {
		_, err := ask("127.88.0.1:"+ports["s3"], "s3")
		return err == nil
	}, time.Minute, 10*time.Millisecond)
	_, err = ask("127.88.0.2:"+ports["s3"], "s3")
	require.Error(t, err)
	stop()
	require.NoError(t, <-ended)
}

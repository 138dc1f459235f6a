package settings

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/setting"
	"github.com/edge-serverless-box/esb/guard/setting/settingtest"
	"github.com/edge-serverless-box/esb/stores"
)

func load(vars map[string]string) (Settings, error) {
	return Load(func(name string) string { return vars[name] }, "/opt/esb/bin/stores")
}

func TestLoad_NothingSet_ServesThisMachineAndItsFunctions(t *testing.T) {
	s, err := load(nil)
	require.NoError(t, err)
	assert.Equal(t, "/var/lib/esb/data", s.DataDir)
	assert.Equal(t, "/var/lib/esb/logs", s.LogDir)
	assert.Equal(t, "/opt/esb/bin", s.BinDir)
	assert.Equal(t, []string{"127.0.0.1:9000", "10.88.0.1:9000"}, s.Addrs(stores.S3))
	assert.Equal(t, []string{"127.0.0.1:8001", "10.88.0.1:8001"}, s.Addrs(stores.DB))
	assert.Equal(t, []string{"127.0.0.1:9428"}, s.Addrs(stores.Logs))
	assert.Equal(t, "/var/lib/esb/data/logs.password", s.LogsPasswordFile)
	assert.Equal(t, []string{"127.0.0.1:5010"}, s.Addrs(stores.Registry))
	assert.Equal(t, []string{"127.0.0.1:9001"}, s.S3UIAddrs)
	assert.NotContains(t, fmt.Sprintf("%+v", s), setting.StoreSecretKey)
}

func TestLoad_S3Off_HasNoWebUI(t *testing.T) {
	s, err := load(map[string]string{"S3_ADDR": "off"})
	require.NoError(t, err)
	assert.Empty(t, s.S3Addrs)
	assert.Empty(t, s.S3UIAddrs)
}

func TestLoad_OtherMachinesCouldReachIt_IsRefused(t *testing.T) {
	own := map[string]string{"S3_SECRET_KEY": "my own secret of it", "DYNAMODB_SECRET_KEY": "my own secret"}
	for name, c := range map[string]struct {
		setting, addr string
		own, allow    bool
		refused       bool
	}{
		"development secret, all addresses":  {setting: "S3_ADDR", addr: ":9000", refused: true},
		"development secret, one address":    {setting: "DYNAMODB_ADDR", addr: "127.0.0.1:8001,192.0.2.1:8001", refused: true},
		"development secret, allowed":        {setting: "S3_ADDR", addr: ":9000", allow: true},
		"own secret, too short":              {setting: "DYNAMODB_ADDR", addr: ":8001", own: true, refused: true},
		"development secret, the web UI":     {setting: "S3_UI_ADDR", addr: "0.0.0.0:9001", refused: true},
		"own secret, the web UI":             {setting: "S3_UI_ADDR", addr: "0.0.0.0:9001", own: true},
		"own secret":                         {setting: "S3_ADDR", addr: ":9000", own: true},
		"password in the clear":              {setting: "VICTORIALOGS_ADDR", addr: "0.0.0.0:9428", own: true, refused: true},
		"the registry's password too":        {setting: "REGISTRY_ADDR", addr: ":5010", own: true, refused: true},
		"password in the clear, allowed":     {setting: "REGISTRY_ADDR", addr: ":5010", allow: true},
		"functions":                          {setting: "S3_ADDR", addr: "10.88.0.1:9428"},
		"functions, where the agent is":      {setting: "VICTORIALOGS_ADDR", addr: "10.88.0.1:9428", refused: true},
		"an address of the function network": {setting: "VICTORIALOGS_ADDR", addr: "10.88.0.2:9428", refused: true},
		"loopback":                           {setting: "REGISTRY_ADDR", addr: "localhost:5010,[::1]:5010"},
	} {
		t.Run(name, func(t *testing.T) {
			vars := map[string]string{c.setting: c.addr}
			if c.own {
				vars["S3_SECRET_KEY"], vars["DYNAMODB_SECRET_KEY"] = own["S3_SECRET_KEY"], own["DYNAMODB_SECRET_KEY"]
			}
			if c.allow {
				vars["ESB_ALLOW_INSECURE_DEFAULTS"] = "true"
			}
			_, err := load(vars)
			if c.refused {
				require.ErrorContains(t, err, c.setting)
			} else {
				require.NoError(t, err)
			}
		})
	}
}

func TestLoad_BadValues_NamesEachVariableAndNoSecret(t *testing.T) {
	for name, value := range map[string]string{
		"ESB_SUBNET": "10.88.0.1/16", "S3_ADDR": "nonsense", "S3_UI_ADDR": "host.example:9001", "DYNAMODB_ADDR": "127.0.0.1:0",
		"VICTORIALOGS_RETENTION_DAYS": "0", "VICTORIALOGS_MAX_MB": "much", "DYNAMODB_TTL_INTERVAL_SECONDS": "0", "LOG_LEVEL": "loud",
		"VICTORIALOGS_USER": "a:b",
		"AWS_REGION":        "moon", "S3_ACCESS_KEY": "a/b", "DYNAMODB_SECRET_KEY": "hush", "ESB_ALLOW_INSECURE_DEFAULTS": "perhaps",
	} {
		_, err := load(map[string]string{name: value})
		require.ErrorContains(t, err, name)
		assert.NotContains(t, err.Error(), "hush")
	}
}

func TestLoad_AsksForAllThatTheTableDeclares(t *testing.T) {
	assert.Empty(t, settingtest.Unread(setting.Stores, func(getenv func(string) string) { _, _ = Load(getenv, "/opt/esb/bin/stores") }))
}

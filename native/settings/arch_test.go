package settings

import (
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/guard/setting"
)

func TestLoad_MachineThatDynoxideIsNotMadeFor_DoesWithoutIt(t *testing.T) {
	for name, c := range map[string]struct {
		vars     map[string]string
		missing  bool
		endpoint string
	}{
		"nothing set":      {missing: true, endpoint: setting.Off},
		"switched off":     {vars: map[string]string{"DYNAMODB_ADDR": "off"}, missing: true, endpoint: setting.Off},
		"elsewhere":        {vars: map[string]string{"DYNAMODB_ENDPOINT": "http://10.0.0.5:8000"}, endpoint: "http://10.0.0.5:8000"},
		"no native stores": {vars: map[string]string{"ESB_STORES": "off"}, endpoint: setting.Off},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := load(env(c.vars), "/src/esb", "arm64")
			require.NoError(t, err)
			assert.Empty(t, s.DynamoDBAddrs)
			assert.Equal(t, c.endpoint, s.DynamoDBEndpoint)
			assert.NotContains(t, s.StorePrograms(), "dynoxide")
			if !c.missing {
				assert.Empty(t, s.NotAvailable)
				return
			}
			require.Len(t, s.NotAvailable, 1)
			assert.Equal(t, "db", s.NotAvailable[0].Name)
			assert.Contains(t, s.NotAvailable[0].Why, "this machine is arm64")

			// What `status` reads is the record of the stack.
			record := map[string]string{}
			for _, variable := range s.Env() {
				name, value, _ := strings.Cut(variable, "=")
				record[name] = value
			}
			maps.Copy(record, c.vars)
			again, err := load(env(record), "/src/esb", "arm64")
			require.NoError(t, err)
			assert.Equal(t, s.NotAvailable, again.NotAvailable)
		})
	}
}

func TestLoad_AddressOfDynoxideOnAnotherMachine_IsRefused(t *testing.T) {
	_, err := load(env(map[string]string{"DYNAMODB_ADDR": "127.0.0.1:8001"}), "/src/esb", "arm64")
	require.ErrorContains(t, err, "DYNAMODB_ADDR: must be off on this machine (arm64)")
}

func TestLoad_MachineThatDynoxideIsMadeFor_HasIt(t *testing.T) {
	s, err := load(env(nil), "/src/esb", DynoxideArch)
	require.NoError(t, err)
	assert.Empty(t, s.NotAvailable)
	assert.Contains(t, s.StorePrograms(), "dynoxide")
}

package settingnames

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestStrange(t *testing.T) {
	assert.Equal(t, []string{
		"DOCKER_NETWORK is set and means nothing here: functions are on a bridge of the box's own: ESB_BRIDGE and ESB_SUBNET say which",
		"GATWAY_HTTP_ADDR is set and is no setting: did you mean GATEWAY_HTTP_ADDR?",
		"IDLE_TIMEOUT_MINUTE is set and is no setting: did you mean IDLE_TIMEOUT_MINUTES?",
	}, Strange([]string{"GATWAY_HTTP_ADDR=:8000", "IDLE_TIMEOUT_MINUTES=15", "IDLE_TIMEOUT_MINUTE=15", "DOCKER_NETWORK=x", "PATH=/bin", "TABLE=items", "GATEWAY_HTTPS_ADR=", "GATEWAY_HTTP_ADDR=off"}))
}

// What an ordinary shell, a CI system and AWS's tools set is not taken for a misspelt setting.
func TestStrange_OtherPrograms(t *testing.T) {
	assert.Empty(t, Strange([]string{"HOME=/root", "HOSTNAME=box", "LOGNAME=root", "AWS_REGION=x", "AWS_DEFAULT_REGION=x", "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=x", "AWS_SESSION_TOKEN=x",
		"GOMEMLIMIT=1", "LANG=C", "LC_ALL=C", "HTTP_PROXY=x", "HTTPS_PROXY=x", "NO_PROXY=x", "GITHUB_TOKEN=x", "INVOCATION_ID=1", "JOURNAL_STREAM=1", "NOTIFY_SOCKET=x", "DOCKER_HOST=x"}))
	t.Logf("of this machine: %q", Strange(os.Environ()))
}

package setting

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTables_SayEverythingOnce(t *testing.T) {
	name := regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$`)
	own := make(map[string]Service) // defaults in tables, to the first service that has them
	common := shared()
	for _, service := range Services() {
		declared := make(map[string]bool)
		for _, s := range Of(service) {
			require.NotEmpty(t, s.Names, service)
			assert.NotEmpty(t, s.Manual(), s.Names)
			assert.False(t, s.Derived != "" && (s.Default != "" || s.Note != ""), "%s: %s has two defaults", service, s.Names)
			assert.False(t, s.Unit != "" && s.Unit.duration() == 0, "%s: %s has a unit that is none", service, s.Names)
			for _, n := range s.Variables() {
				assert.Regexp(t, name, n)
				assert.False(t, declared[n], "%s: %s is there twice", service, n)
				declared[n] = true
			}
			for _, n := range s.Names {
				if s.Default == "" {
					continue
				}
				assert.NotEqual(t, common[n], s.Default, "%s: the default of %s is in shared() already", service, n)
				other, twice := own[n+"="+s.Default]
				assert.False(t, twice, "%s and %s both say the default of %s: say it in shared()", service, other, n)
				own[n+"="+s.Default] = service
			}
		}
	}
	for n := range common {
		readers := 0
		for _, service := range Services() {
			if s, ok := variables(service)[n]; ok && s.Default == "" && s.Derived == "" {
				readers++
			}
		}
		assert.Positive(t, readers, "%s: nobody takes its shared default", n)
	}
	assert.Contains(t, Names(), "X_API_KEY_FILE")
	assert.IsIncreasing(t, Names())
}

func TestReads_KnowsWhoseASettingIs(t *testing.T) {
	assert.True(t, Gateway.Reads("IDLE_TIMEOUT_MINUTES"))
	assert.True(t, Gateway.Reads("AUTH_PASS_FILE"))
	assert.False(t, Agent.Reads("IDLE_TIMEOUT_MINUTES"))
	assert.True(t, Agent.Reads("ESB_SUBNET"))
	assert.False(t, Stores.Reads("PATH"))
	assert.Empty(t, Of("nobody"))
}

func TestManual_OfOneSetting(t *testing.T) {
	wait := Setting{Names: []string{"WAIT_TIME"}, Default: "5", Note: " as AWS's", Unit: Seconds, What: "How\n\t\tlong."}
	assert.Equal(t, "How long. (seconds)", wait.Manual())
	assert.Equal(t, "5 as AWS's", wait.Defaults())
	wait.Names = []string{"WAIT_SECONDS"}
	assert.Equal(t, "How long.", wait.Manual(), "the name says it")
	wait.Names, wait.Unit = []string{"WAIT_MS"}, Milliseconds
	assert.Equal(t, "How long.", wait.Manual())
	assert.Equal(t, "none", Setting{Names: []string{"A_B", "A_C"}}.Defaults())
	assert.Equal(t, "esb-dev-access; none", Setting{Names: []string{"S3_ACCESS_KEY", "A_B"}}.Defaults())
	assert.Equal(t, "what it likes", Setting{Names: []string{"S3_ACCESS_KEY"}, Derived: "what it likes"}.Defaults())
	for _, service := range Services() {
		for _, s := range Of(service) {
			assert.NotContains(t, s.Manual(), "\n")
			assert.False(t, strings.HasSuffix(s.Defaults(), "."), s.Names)
		}
	}
}

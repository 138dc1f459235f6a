package containerd

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/logfiles"
	"github.com/edge-serverless-box/esb/api/reason"
)

func TestStages_GiveReasons(t *testing.T) {
	missing := agent.Errorf(agent.CodePrecondition, "x")
	for _, c := range []struct {
		stage stageReasons
		err   error
		want  reason.Reason
	}{
		{codeStage, missing, reason.CodeInvalid},
		{codeStage, agent.Because(reason.CodeMissing, missing), reason.CodeMissing},
		{codeStage, agent.Errorf(agent.CodeUnavailable, "x"), reason.StoreAway},
		{imageStage, missing, reason.ImageMissing},
		{imageStage, agent.Errorf(agent.CodeUnavailable, "x"), reason.RegistryAway},
		{imageStage, agent.Because(reason.ImageInvalid, missing), reason.ImageInvalid},
		{startStage, missing, reason.ImageInvalid},
		{startStage, agent.Errorf(agent.CodeDeadline, "x"), reason.Slow},
		{startStage, agent.Errorf(agent.CodeExhausted, "x"), reason.Exhausted},
		{startStage, agent.Errorf(agent.CodeInvalid, "x"), reason.Configuration},
		{startStage, errors.New("a stranger"), ""},
	} {
		assert.Equal(t, c.want, agent.ErrorReason(c.stage.because(fmt.Errorf("y: %w", c.err))), "%v", c.err)
	}
}

func TestTell_WritesIntoTheFunctionsLog(t *testing.T) {
	logs, err := logfiles.Open(t.TempDir())
	require.NoError(t, err)
	r := &Runtime{logs: logs, log: slog.New(slog.DiscardHandler), states: map[string]*state{}, told: map[string]told{}}
	spec := agent.ContainerSpec{FunctionName: "hello", RequestID: "req-1"}
	failure := imageStage.because(agent.Errorf(agent.CodePrecondition, "image i cannot be had"))
	r.tell(spec, failure)
	r.tell(spec, failure) // the same again
	r.tell(spec, agent.Errorf(agent.CodeCanceled, "the caller left"))
	r.tell(agent.ContainerSpec{FunctionName: "../../etc"}, failure)

	read := func() []string {
		text, err := os.ReadFile(logs.File("lambda-hello-starts"))
		require.NoError(t, err)
		return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	}
	require.Len(t, read(), 1)
	var line map[string]string
	require.NoError(t, json.Unmarshal([]byte(read()[0]), &line))
	when, err := time.Parse(time.RFC3339Nano, line["time"])
	require.NoError(t, err)
	assert.WithinDuration(t, time.Now(), when, time.Minute)
	delete(line, "time")
	assert.Equal(t, map[string]string{
		"level": "ERROR", "type": "platform.fault", "message": "The function could not be started: image i cannot be had", "function": "hello",
		"request_id": "req-1", "container_name": "lambda-hello-starts", "error_type": "image_missing",
	}, line)
	function, supervised, alive := r.Container("lambda-hello-starts")
	assert.Equal(t, "hello", function)
	assert.True(t, supervised, "what the line says of itself is true")
	assert.False(t, alive)

	r.tell(spec, errors.New("something else"))
	require.Len(t, read(), 2)
	require.NoError(t, os.Remove(logs.File("lambda-hello-starts"))) // shipped, and its place was needed
	r.tell(spec, failure)
	require.Len(t, read(), 1)
}

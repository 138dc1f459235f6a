package agentclient_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/agentclient"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

// What a container was started with is its generation for a client with the same keys, and for no other one.
func TestClient_Generation_DependsOnKeys(t *testing.T) {
	with := func(secret string) agentclient.Option {
		return agentclient.WithEnvironment(func(function string) map[string]string {
			return map[string]string{"AWS_SECRET_ACCESS_KEY": secret + function}
		})
	}
	clients := map[string][]agentclient.Option{"no keys": nil, "keys": {with("1")}, "other keys": {with("2")}}
	for maker, options := range clients {
		a := &fakeAgent{info: &agentv1.WorkerInfo{Id: "c", IpAddress: "10.88.0.2", Port: 27182}}
		c, _ := mustDial(t, a, append(options, agentclient.WithOwner("me"))...)
		worker, err := c.Start(t.Context(), echo, false, "")
		require.NoError(t, err)
		assert.Equal(t, echo.Generation, worker.Generation)
		assert.Equal(t, "me", a.ensured.GetOwner())
		a.list = []*agentv1.ContainerInfo{{ContainerId: "c", FunctionName: echo.Name, Generation: a.ensured.GetGeneration(), Outdated: maker == "keys"}}
		for reader, options := range clients {
			c, _ := mustDial(t, a, options...)
			list, err := c.List(t.Context())
			require.NoError(t, err)
			assert.Equal(t, maker == "keys", list[0].Outdated)
			assert.Equal(t, maker == reader, list[0].Generation == echo.Generation, "started with %s, found with %s: %s", maker, reader, list[0].Generation)
		}
	}
}

func TestClient_Examine(t *testing.T) {
	answers := map[string]struct {
		status int
		state  string
		want   pool.Condition
	}{
		"idle":    {200, "idle", pool.ConditionIdle},
		"busy":    {200, "busy", pool.ConditionBusy},
		"init":    {200, "init", pool.ConditionBusy},
		"standby": {200, "standby", pool.ConditionStandby},
		"spoilt":  {503, "idle", pool.ConditionUnfit},
		"another": {421, "idle", pool.ConditionUnfit},
	}
	worker := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := answers[r.Header.Get("X-Esb-Container-Id")]
		w.WriteHeader(a.status)
		_, _ = w.Write([]byte(`{"state":"` + a.state + `"}`))
	}))
	defer worker.Close()
	c, _ := mustDial(t, &fakeAgent{})
	for id, a := range answers {
		condition, err := c.Examine(t.Context(), gateway.Worker{ID: id, Addr: worker.Listener.Addr().String()})
		require.NoError(t, err)
		assert.Equal(t, a.want, condition, id)
	}
	condition, err := c.Examine(t.Context(), gateway.Worker{ID: "idle", Addr: worker.Listener.Addr().String(), Interface: gateway.RIE})
	require.NoError(t, err)
	assert.Equal(t, pool.ConditionUnfit, condition, "RIE takes every question for an invocation")
	worker.Close()
	_, err = c.Examine(t.Context(), gateway.Worker{ID: "idle", Addr: worker.Listener.Addr().String()})
	assert.Error(t, err)
}

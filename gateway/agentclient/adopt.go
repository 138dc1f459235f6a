package agentclient

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	agentv1 "github.com/edge-serverless-box/esb/api/esb/agent/v1"
	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
)

var _ pool.Examiner = (*Client)(nil)

// WithOwner names whose containers are that this client makes: a name that stays over restarts.
func WithOwner(name string) Option {
	return func(o *options) error {
		o.owner = name
		return nil
	}
}

// generation is what the agent keeps of the generation of a function. Keys that the gateway gives to containers are in there too: a
// container that has others is of another generation.
func (c *Client) generation(function, generation string) string {
	return generation + c.keysMark(function)
}

// generationOf is the generation again, or, with other keys, something that is none.
func (c *Client) generationOf(function, kept string) string {
	generation, same := strings.CutSuffix(kept, c.keysMark(function))
	if !same {
		return "other keys: " + kept
	}
	return generation
}

// keysMark tells what the gateway puts into the environment of containers of a function beside what the function says.
func (c *Client) keysMark(function string) string {
	if c.env == nil {
		return ""
	}
	data, err := json.Marshal(c.env(function)) // sorts the names
	if err != nil {
		return ".unknown" // strings always encode
	}
	sum := sha256.Sum256(data)
	return "." + hex.EncodeToString(sum[:8])
}

func (c *Client) observed(i *agentv1.ContainerInfo) pool.Observed {
	o := pool.Observed{
		ID:          i.GetContainerId(),
		Name:        i.GetContainerName(),
		Function:    i.GetFunctionName(),
		CreatedAt:   i.GetCreatedAt().AsTime(),
		Stopped:     i.GetStatus() == agentv1.ContainerStatus_STOPPED,
		Frozen:      i.GetStatus() == agentv1.ContainerStatus_PAUSED,
		Owner:       i.GetOwner(),
		OwnerSilent: time.Duration(i.GetOwnerSilentSeconds()) * time.Second,
		Addr:        net.JoinHostPort(i.GetIpAddress(), strconv.FormatUint(uint64(i.GetPort()), 10)),
		Generation:  c.generationOf(i.GetFunctionName(), i.GetGeneration()),
		ImageDigest: i.GetImageDigest(),
		Interface:   gateway.Supervisor,
		Standby:     i.GetStandby(),
		Outdated:    i.GetOutdated(),
	}
	if i.GetRuntimeInterface() == agentv1.RuntimeInterface_RUNTIME_INTERFACE_RIE {
		o.Interface = gateway.RIE
	}
	return o
}

// Examine implements pool.Examiner by the state that lambda-init tells. RIE cannot be asked: to it, everything is an invocation.
func (c *Client) Examine(ctx context.Context, w gateway.Worker) (pool.Condition, error) {
	if w.Interface == gateway.RIE {
		return pool.ConditionUnfit, nil
	}
	is, err := c.workerState(ctx, w, healthPath)
	switch {
	case is.status == http.StatusServiceUnavailable, is.status == http.StatusMisdirectedRequest:
		return pool.ConditionUnfit, nil
	case err != nil:
		return pool.ConditionBusy, gateway.Errorf(gateway.CodeUnavailable, "asking worker %s at %s for its state: %w", w.Name, w.Addr, err)
	case is.State == "idle":
		return pool.ConditionIdle, nil
	case is.State == "standby":
		return pool.ConditionStandby, nil
	}
	return pool.ConditionBusy, nil
}

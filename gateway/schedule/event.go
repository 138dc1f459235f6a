package schedule

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/edge-serverless-box/esb/gateway"
)

// namespace makes the ids of this package differ from all other name-based UUIDs.
var namespace = uuid.MustParse("7d0f3c3e-5f4b-4c43-9e0e-5c6f1b0a9d11")

// scheduledEvent is what a function gets (EventBridge user guide, "Scheduled events"). The order of the keys is AWS's.
type scheduledEvent struct {
	Version    string   `json:"version"`
	ID         string   `json:"id"`
	DetailType string   `json:"detail-type"`
	Source     string   `json:"source"`
	Account    string   `json:"account"`
	Time       string   `json:"time"`
	Region     string   `json:"region"`
	Resources  []string `json:"resources"`
	Detail     struct{} `json:"detail"`
}

// invocation returns the call of a tick. All its ids come from the schedule and the tick: should the gateway die between
// handing the event over and writing that down, the second one has the same ids, and can be told from a new tick.
func (s *Scheduler) invocation(spec gateway.Schedule, tick time.Time) (gateway.Invocation, error) {
	arn := fmt.Sprintf("arn:aws:events:%s:%s:rule/%s", s.opts.Region, s.opts.AccountID, spec.Name)
	name := arn + " " + tick.UTC().Format(time.RFC3339)
	request := uuid.NewSHA1(namespace, []byte("request "+name))
	trace := uuid.NewSHA1(namespace, []byte("trace "+name))
	inv := gateway.Invocation{
		RequestID: request.String(),
		TraceID: fmt.Sprintf("Root=1-%08x-%s;Parent=%s;Sampled=0", uint32(tick.Unix()),
			hex.EncodeToString(trace[:12]), hex.EncodeToString(request[:8])),
		Payload: spec.Input,
	}
	if inv.Payload != nil {
		return inv, nil
	}
	var err error
	inv.Payload, err = json.Marshal(scheduledEvent{
		Version:    "0",
		ID:         uuid.NewSHA1(namespace, []byte("event "+name)).String(),
		DetailType: "Scheduled Event",
		Source:     "aws.events",
		Account:    s.opts.AccountID,
		Time:       tick.UTC().Format(time.RFC3339),
		Region:     s.opts.Region,
		Resources:  []string{arn},
	})
	return inv, err
}

package stack

import (
	"context"
	"encoding/json"
	"fmt"
)

// Status is what `esb status -json` says of a native box.
type Status struct {
	State      string
	Supervisor int
	Services   []struct {
		Name, State   string
		PID, Restarts int
	}
}

// Status asks for the status, which a box that starts or stops just then may not have.
func (s *Stack) Status(ctx context.Context) (Status, error) {
	out, err := s.Esb(ctx, "status", "-json") // its exit code is the state
	var status Status
	if json.Unmarshal([]byte(out), &status) != nil {
		return Status{}, fmt.Errorf("esb status: %w\n%s", err, out)
	}
	return status, nil
}

// PIDs are the processes of the services, 0 of those that have none.
func (s Status) PIDs() map[string]int {
	pids := map[string]int{}
	for _, service := range s.Services {
		pids[service.Name] = service.PID
	}
	return pids
}

package schedule

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/edge-serverless-box/esb/guard/statefile"
)

// stateFile is the content of the file on disk.
type stateFile struct {
	Schedules map[string]record `json:"schedules"`
}

// record is what must outlive a restart about one schedule.
type record struct {
	// Function, Expression and Timezone are those that the times belong to: a schedule that says something else is new.
	Function   string `json:"function"`
	Expression string `json:"expression"`
	Timezone   string `json:"timezone,omitempty"`
	// Since is when the schedule was first seen; a rate counts from it.
	Since time.Time `json:"since"`
	// Last is the last tick that the queue has accepted, Since when there is none.
	Last time.Time `json:"last"`
	// Request is the id of Last's invocation, empty when there is none.
	Request string `json:"request,omitempty"`
	// Rewound counts in place of Last while the clock stands far before Last: the last tick that ran since the clock was
	// set back, or when that was noticed. Zero otherwise.
	Rewound time.Time `json:"rewound,omitzero"`
}

func (r record) same(other record) bool {
	return r.Function == other.Function && r.Expression == other.Expression && r.Timezone == other.Timezone
}

// readState reads the file; no file is an empty state. A damaged one is put aside: an unattended box goes on without it.
func readState(path string) (_ map[string]record, broken error, err error) {
	var state stateFile
	err = statefile.Schedules().Read(path, &state)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return state.Schedules, nil, nil
	}
	var useless *statefile.Error
	if !errors.As(err, &useless) || useless.Newer() {
		return nil, nil, fmt.Errorf("read the times of schedules: %w", err)
	}
	if err := os.Rename(path, path+".broken"); err != nil {
		return nil, nil, fmt.Errorf("put the broken file of schedules aside: %w", err)
	}
	return nil, useless, nil
}

func writeState(path string, records map[string]record) error {
	if err := statefile.Schedules().Write(path, stateFile{Schedules: records}, 0o600); err != nil {
		return fmt.Errorf("keep the times of schedules: %w", err)
	}
	return nil
}

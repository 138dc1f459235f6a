package app

import (
	"fmt"
	"runtime"
	"strconv"

	"github.com/edge-serverless-box/esb/guard/memlimit"
)

// share is a part of the machine's memory, between two bounds.
type share struct{ percent, least, most int64 }

var (
	// logsCaches is what VictoriaLogs may use for caches; its default of 60 % leaves no room for functions.
	logsCaches = share{percent: 15, least: 64 << 20, most: 512 << 20}
	// childHeap is from where on the garbage collector of a store that is written in Go works harder: nothing fails for it.
	childHeap = share{percent: 10, least: 128 << 20, most: 512 << 20}
)

func (s share) of(machine int64) int64 { return min(max(machine/100*s.percent, s.least), s.most) }

// bounds keep one store from taking the machine: its memory, and for VictoriaLogs, which would use every CPU for a query or a merge,
// half of those.
func bounds(logs bool) (env, args []string, err error) {
	machine, err := memlimit.Whole()
	if err != nil {
		return nil, nil, err
	}
	if !logs {
		return []string{"GOMEMLIMIT=" + strconv.FormatInt(childHeap.of(machine.Bytes), 10)}, nil, nil
	}
	caches := logsCaches.of(machine.Bytes)
	env = []string{"GOMEMLIMIT=" + strconv.FormatInt(2*caches, 10), "GOMAXPROCS=" + strconv.Itoa(max(runtime.NumCPU()/2, 1))}
	return env, []string{fmt.Sprintf("-memory.allowedBytes=%d", caches)}, nil
}

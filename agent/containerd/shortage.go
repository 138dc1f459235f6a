package containerd

import (
	"time"

	"github.com/edge-serverless-box/esb/agent"
)

// memoryInterval is the time between two looks at what containers hold. One reads two small files.
const memoryInterval = time.Second

// watchMemory looks whether containers, which may grow long after their start, hold more than they may together. Who owns them is told,
// and ends those without work.
func (r *Runtime) watchMemory() {
	tick := time.NewTicker(memoryInterval)
	defer tick.Stop()
	var since time.Time // zero while there is no shortage
	known := true
	for {
		select {
		case <-r.life.Done():
			return
		case <-tick.C:
		}
		short, err := r.memory.Look()
		if err != nil {
			if known {
				r.log.Error("what containers hold of the memory cannot be read: they are not kept to FUNCTION_MEMORY_BUDGET", "error", err)
			}
			known = false
			continue
		}
		known = true
		switch {
		case short.Bytes > 0 && since.IsZero() && r.parked.count() > 0:
			// Those that are nobody's go first; whether that is enough is seen next time.
			r.background.Go(func() { r.makeRoom(r.life) })
			continue
		case short.Bytes > 0 && since.IsZero():
			since = time.Now()
			r.log.Warn("functions have grown beyond the memory that they may have (FUNCTION_MEMORY_BUDGET), or the machine has next to none left; those without work are to go",
				"excess_mb", short.Bytes>>20, "machine", short.Machine)
		case short.Bytes == 0 && since.IsZero():
			continue
		case short.Bytes == 0:
			r.log.Info("there is memory for functions again", "short_seconds", int(time.Since(since).Seconds()))
			since = time.Time{}
		}
		r.watchers.tell(agent.Event{Shortage: short})
	}
}

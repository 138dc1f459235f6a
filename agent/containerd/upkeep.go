package containerd

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/containerd/containerd/api/events"
	"github.com/containerd/typeurl/v2"

	"github.com/edge-serverless-box/esb/agent"
)

// lostExit is the exit code of a container that containerd knows no more: 128 + SIGKILL.
const lostExit = 137

// watchExits follows containerd's events of ended processes.
func (r *Runtime) watchExits() {
	for r.life.Err() == nil {
		ctx, stop := context.WithCancel(r.life)
		events, errs := r.client.Subscribe(ctx, "namespace=="+agent.Namespace+`,topic=="/tasks/exit"`)
		if r.shims != nil {
			// Its store may be another one since it was connected last.
			if err := r.keepSandbox(ctx); err != nil && r.life.Err() == nil {
				r.log.Warn("containers get shims of their own until this is cured", "error", err)
			}
		}
		// What ended while nobody listened is found by looking.
		r.sweep(ctx)
		for open := true; open; {
			select {
			case e := <-events:
				r.onExit(e.Event)
			case err := <-errs:
				if r.life.Err() == nil {
					r.log.Warn("containerd's events have stopped; listening again", "error", err)
				}
				open = false
			}
		}
		stop()
		select {
		case <-r.life.Done():
		case <-time.After(reconnectInterval):
		}
	}
}

func (r *Runtime) onExit(event typeurl.Any) {
	v, err := typeurl.UnmarshalAny(event)
	if err != nil {
		r.log.Warn("containerd sent an event that cannot be read", "error", err)
		return
	}
	if e, ok := v.(*events.TaskExit); ok && e.ID == e.ContainerID && !r.outlives(e.ContainerID) {
		r.ended(e.ContainerID, e.ExitStatus)
	}
}

// sweep finds containers whose end no event has told.
func (r *Runtime) sweep(ctx context.Context) {
	// Taken before looking: a container that is published meanwhile may be seen as it was before its process started.
	settled := r.settled()
	found, err := r.observe(ctx, "")
	if err != nil {
		if ctx.Err() == nil {
			r.log.Warn("containers cannot be listed", "error", err)
		}
		return
	}
	r.finishRemovals()
	for id := range settled {
		// Its store was damaged, and is another one now.
		if settled[id] && !slices.ContainsFunc(found, func(o observed) bool { return o.sandbox == id }) {
			r.ended(id, lostExit)
		}
	}
	for _, o := range found {
		if o.running() || !settled[o.sandbox] {
			continue
		}
		var code uint32
		if o.process != nil {
			code = o.process.ExitStatus
		} else if stats, err := r.groups.Stats(o.sandbox); err == nil && stats.PIDs > 0 {
			// Else it has only been slow to answer, and says the end of the container itself.
			if !r.shimLives(o.shim) {
				r.outlives(o.sandbox)
			}
			continue
		}
		r.ended(o.sandbox, code)
	}
}

// finishRemovals tries again what could not be removed, and does not wait for it.
func (r *Runtime) finishRemovals() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.states {
		s.mu.Lock()
		again := s.unfinished
		s.unfinished = false
		s.mu.Unlock()
		if !again {
			continue
		}
		r.background.Go(func() {
			if err := r.remove(r.life, s.record, 0); err != nil {
				r.log.Error("container cannot be removed yet", "container_id", s.record.ID, "function", s.record.FunctionName, "error", err)
				return
			}
			r.log.Info("container removed at another attempt", "container_id", s.record.ID, "function", s.record.FunctionName)
		})
	}
}

// settled returns the containers whose start is over.
func (r *Runtime) settled() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[string]bool, len(r.states))
	for id, s := range r.states {
		s.mu.Lock()
		out[id] = !s.starting
		s.mu.Unlock()
	}
	return out
}

// ended handles a process 1 that has ended. Only a container in normal life is of interest: one that starts belongs to
// its Ensure, one that dies to who removes it.
func (r *Runtime) ended(id string, code uint32) {
	s := r.state(id)
	if s == nil {
		return
	}
	s.mu.Lock()
	first := !s.ended
	s.ended = true
	ours := first && !s.starting && !s.dying
	s.mu.Unlock()
	if !ours {
		return
	}
	stats, err := r.groups.Stats(s.record.sandbox)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.log.Warn("counters of an ended container cannot be read", "container_id", s.record.ID, "error", err)
	}
	oom := stats.OOMKills > 0
	r.watchers.tell(agent.Event{Exit: &agent.Exit{ID: s.record.ID, FunctionName: s.record.FunctionName, Code: code, OOM: oom}})
	r.log.Warn("container ended by itself", "container_id", s.record.ID, "function", s.record.FunctionName,
		"exit_code", code, "oom", oom, "memory_peak_bytes", stats.MemoryPeakBytes)
	r.background.Go(func() { r.bury(s) })
}

// bury takes the network of a container that has ended away, and after a while everything else.
func (r *Runtime) bury(s *state) {
	ctx := r.life
	if err := r.detach(ctx, s.record); err != nil {
		r.log.Warn("network of an ended container cannot be released yet", "container_id", s.record.ID, "error", err)
	}
	if err := s.discardDisk(); err != nil {
		r.log.Warn("disk of an ended container cannot be given up", "container_id", s.record.ID, "error", err)
	}
	select {
	case <-r.life.Done(): // the next start removes it
		return
	case <-time.After(endedRetention):
	}
	if err := r.remove(ctx, s.record, 0); err != nil {
		r.log.Error("ended container cannot be removed", "container_id", s.record.ID, "error", err)
	}
}

// upkeep prunes code, gives up kept images when the disk is short, removes sockets of shims that were killed, and looks for ends that went unheard.
func (r *Runtime) upkeep() {
	tick := time.NewTicker(upkeepInterval)
	defer tick.Stop()
	for {
		if r.cfg.Code != nil {
			if err := r.cfg.Code.Prune(r.mounted); err != nil {
				r.log.Warn("function code cannot be pruned", "error", err)
			}
		}
		if err := r.dropViews(r.life, viewKept); err != nil && r.life.Err() == nil {
			r.log.Warn("layers of images are kept that no container was made of lately", "error", err)
		}
		r.parked.refill() // when there was no room for more
		r.parked.refillStems()
		r.removeParked(r.life, r.parked.unwanted(), 1)
		if err := r.relieveDisk(r.life); err != nil && r.life.Err() == nil {
			r.log.Warn("images that are kept cannot be given up for want of room", "error", err)
		}
		if err := r.sweepSockets(); err != nil {
			r.log.Warn("sockets of shims that were killed stay", "error", err)
		}
		select {
		case <-r.life.Done():
			return
		case <-tick.C:
			r.sweep(r.life)
		}
	}
}

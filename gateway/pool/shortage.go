package pool

import (
	"time"
)

// Containers grow after their start, and may come to hold more memory together than they may have, or than the machine has. The agent sees
// that and says so as long as it is so (Watcher). Idle workers are given up then, in the order in which they make room for starts, until
// it is over: one, and when that was not enough two, and so on. Workers at work stay, whatever they hold: their own memory_size bounds
// them. So do those that min_capacity keeps, unless the machine itself runs out: the kernel would end somebody.

// Shortage is how much memory the containers of the box are to give back.
type Shortage struct {
	// Bytes is 0 when there is no shortage.
	Bytes uint64
	// Machine is true when the machine itself has next to none left.
	Machine bool
	// anew is true when an agent is heard that may have been started again: whether there still is a shortage is what it says next.
	anew bool
}

const (
	reasonShortage = "functions hold more memory than there is for them"
	// shortageYield is how long nothing is started in place of a worker that was given up, unless a request waits: it would be given
	// up again.
	shortageYield = 30 * time.Second
	// shortageSilence is how long an agent that is heard again says nothing of a shortage until it is over. It says so each second.
	shortageSilence = 10 * time.Second
	// mostRelief bounds how many workers are given up at once.
	mostRelief = 16
)

// tellShort passes a shortage on to relieve. Only the last one counts.
func (m *Manager) tellShort(s Shortage) {
	for {
		select {
		case m.shortages <- s:
			return
		default:
		}
		select {
		case <-m.shortages:
		default:
		}
	}
}

// relieve gives up idle workers during shortages, as long as the Manager lives.
func (m *Manager) relieve() {
	n, total, since := 1, 0, time.Time{}
	over := time.NewTimer(0) // nothing is, yet
	over.Stop()
	defer over.Stop()
	for {
		var s Shortage
		select {
		case s = <-m.shortages:
			if s.anew {
				over.Reset(shortageSilence)
				continue
			}
		case <-over.C:
		case <-m.ctx.Done():
			return
		}
		over.Stop()
		shortageBytes.Set(float64(s.Bytes))
		switch {
		case s.Bytes == 0 && since.IsZero():
			continue
		case s.Bytes == 0:
			m.log.Info("there is memory for functions again", "workers_given_up", total, "short_seconds", int(time.Since(since).Seconds()))
			n, total, since = 1, 0, time.Time{}
			continue
		case since.IsZero():
			since = time.Now()
			m.log.Warn("functions have grown beyond the memory that there is for them; workers without work are given up",
				"excess_mb", s.Bytes>>20, "machine", s.Machine)
		}
		given := m.giveUp(n, s.Machine, reasonShortage, shortageYield)
		total += given
		if given == n {
			n = min(2*n, mostRelief)
		}
		// What was told meanwhile may be of before they were gone, unless it is over: that holds.
		select {
		case s := <-m.shortages:
			if s.Bytes == 0 {
				m.tellShort(s) // also that an agent is heard again
			}
		default:
		}
	}
}

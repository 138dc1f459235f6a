package async

import (
	"container/heap"
	"time"
)

const (
	// firstPause and lastPause bound the back-off after a throttle or a failure of the box (AWS: 1 second to 5 minutes).
	firstPause = time.Second
	lastPause  = 5 * time.Minute
	// deliveries is how many records of one function are delivered at the same time.
	deliveries = 4
	// expiries is how many events of one function that are too old are put away at the same time.
	expiries = 4
)

// entry is an event in the index: what is needed to decide when to read it.
type entry struct {
	seq      uint64
	due      int64 // in up-time; 0 is at once
	born     int64 // when it was accepted, or ended, in up-time
	accepted int64 // milliseconds since 1970, for people
	size     int32 // what it counts towards the limit
	shard    uint8
	// setbacks counts the tries in a row that failed for the box's sake.
	setbacks uint8
}

// entryHeap has the entry that is due first on top, and of those the one that was stored first.
type entryHeap []entry

func (h entryHeap) Len() int { return len(h) }
func (h entryHeap) Less(i, j int) bool {
	if h[i].due != h[j].due {
		return h[i].due < h[j].due
	}
	if h[i].born != h[j].born {
		return h[i].born < h[j].born
	}
	return h[i].seq < h[j].seq
}
func (h entryHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *entryHeap) Push(x any) { *h = append(*h, x.(entry)) }

// Pop implements heap.Interface.
func (h *entryHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// lane has the events of one function that wait for their run, or those whose outcome waits to be put away. So no
// function keeps another one waiting. The Queue's mu guards it.
type lane struct {
	q        *Queue
	function string
	// outcomes is true for the lane of ended events.
	outcomes bool

	waiting entryHeap
	expired []entry
	// running holds when the events in flight were accepted, by stream and sequence number.
	running  map[key]int64
	expiring int

	// throttles counts the refusals in a row; the last was at throttledAt. Until resumeAt, an up-time, nothing is tried, and
	// then one event alone until it is not refused.
	throttles   int
	throttledAt time.Time
	resumeAt    int64
	// oldestEnds is not later than the up-time at which the first event becomes too old; 0 when unknown.
	oldestEnds int64

	timer  *time.Timer
	wakeAt int64
}

// key names a message.
type key struct {
	shard uint8
	seq   uint64
}

func (e entry) key() key { return key{e.shard, e.seq} }

// limit is how many events may be in flight.
func (l *lane) limit() int {
	if l.outcomes {
		return deliveries
	}
	fn := l.q.functions[l.function]
	switch {
	case fn == nil:
		return 0 // they wait for the function to come back, or for their age
	case fn.Scaling.MaxCapacity == 0:
		return expiries // they end without a run
	case l.throttles > 0:
		return 1
	case fn.Async.Concurrency > 0:
		return min(fn.Async.Concurrency, fn.Scaling.MaxCapacity)
	}
	return max(1, fn.Scaling.MaxCapacity-1)
}

// add puts an event in.
func (l *lane) add(e entry) {
	heap.Push(&l.waiting, e)
	if ends := e.born + l.q.maxAge(l.function).Milliseconds(); l.oldestEnds == 0 || ends < l.oldestEnds {
		l.oldestEnds = ends
	}
}

// pump starts what may start and sets the timer for the rest.
func (l *lane) pump() {
	if l.q.quiet || !l.q.loaded {
		l.disarm()
		return
	}
	now := l.q.up.now()
	if !l.outcomes {
		l.expire(now)
	}
	for len(l.expired) > 0 && l.expiring < expiries {
		e := l.expired[len(l.expired)-1]
		l.expired = l.expired[:len(l.expired)-1]
		l.expiring++
		l.start(e, true)
	}
	limit := l.limit()
	for len(l.running)-l.expiring < limit && len(l.waiting) > 0 && l.waiting[0].due <= now && l.resumeAt <= now {
		l.start(heap.Pop(&l.waiting).(entry), false)
	}
	l.arm(now, limit)
}

func (l *lane) start(e entry, tooOld bool) {
	l.running[e.key()] = e.accepted
	l.q.tasks.Go(func() { l.q.handle(l, e, tooOld) })
}

// expire takes out the events that are too old.
func (l *lane) expire(now int64) {
	if len(l.waiting) == 0 || now < l.oldestEnds {
		return
	}
	age := l.q.maxAge(l.function).Milliseconds()
	kept := l.waiting[:0]
	l.oldestEnds = 0
	for _, e := range l.waiting {
		ends := e.born + age
		if ends <= now {
			l.expired = append(l.expired, e)
			continue
		}
		if l.oldestEnds == 0 || ends < l.oldestEnds {
			l.oldestEnds = ends
		}
		kept = append(kept, e)
	}
	l.waiting = kept
	heap.Init(&l.waiting)
}

// arm sets the timer for the next moment at which pump has something to do. What ends calls pump itself.
func (l *lane) arm(now int64, limit int) {
	if len(l.waiting) == 0 {
		l.disarm()
		return
	}
	var at int64
	if len(l.running)-l.expiring < limit {
		at = max(l.waiting[0].due, l.resumeAt, 1)
	}
	if !l.outcomes && (at == 0 || l.oldestEnds < at) {
		at = l.oldestEnds
	}
	if at == 0 {
		l.disarm()
		return
	}
	if l.timer != nil && l.wakeAt == at {
		return
	}
	l.disarm()
	l.wakeAt = at
	l.timer = time.AfterFunc(time.Duration(max(1, at-now))*time.Millisecond, func() {
		l.q.mu.Lock()
		defer l.q.mu.Unlock()
		l.timer = nil
		l.pump()
	})
}

func (l *lane) disarm() {
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
}

// throttled notes that a try that began at began was refused. Those that were under way together count once.
func (l *lane) throttled(began time.Time) {
	if l.throttles > 0 && began.Before(l.throttledAt) {
		return
	}
	l.throttles++
	l.throttledAt = time.Now()
	l.resumeAt = l.q.up.now() + pause(l.throttles).Milliseconds()
}

// unthrottled notes that a try was not refused.
func (l *lane) unthrottled() {
	l.throttles, l.resumeAt = 0, 0
}

// pause is how long to wait after n setbacks in a row.
func pause(n int) time.Duration {
	return min(firstPause<<min(max(n-1, 0), 16), lastPause)
}

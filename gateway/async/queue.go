// Package async keeps the events of asynchronous invocations until they have been handled: it accepts an event when it
// is durable in NATS JetStream, runs the function with it, tries again as AWS does, and brings what failed to the
// dead-letter queue and the outcome to the function's destination (docs/async.md).
//
// JetStream is the durable log and no more: an event stays one message in a stream until nothing is left to be done about
// it, and every change of its state is a new message that replaces the old one. When what is tried lives in an index in
// memory, which follows the streams and is read from them at the start. JetStream's own redelivery is not used: it
// counts throttles as tries, and its acknowledgement deadline would have to outlast every function. So there is no
// deadline here that could run an event twice; only an end of the process between a run and the note of it does.
package async

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/lineage"
	"github.com/edge-serverless-box/esb/guard/budget"
)

const (
	// overhead is what an event counts towards the limit besides its bytes, so that the limit bounds the index too.
	overhead = 512
	// removers is how many handled events are removed from the streams at the same time.
	removers = 2 * shards
	// intake is how many bytes a second the embedded server may be given for long, and burst for a moment. It keeps what it
	// was given in memory for 10 s: more could kill a gateway with a memory limit. Events of 1 KB are far from it.
	intake = 8 << 20
	burst  = 32 << 20
	// intakeWait is how long an event waits for its turn.
	intakeWait = 10 * time.Second
	// sizeHeader has the size of a body that is left out (NATS JetStream, headers-only consumers).
	sizeHeader = "Nats-Msg-Size"
)

// Invoker runs functions; invoke.Invoker is the one of production.
type Invoker interface {
	Invoke(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) (gateway.Result, error)
}

// Objects stores records in S3.
type Objects interface {
	// Put makes an object of JSON.
	Put(ctx context.Context, bucket, key string, body []byte) error
}

// Options of a Queue.
type Options struct {
	// Dir is the folder of the embedded server. Not used with URL.
	Dir string
	// URL of a NATS cluster with JetStream (ESB_NATS_URL), empty for the embedded server. CredentialsFile, CAFile, CertFile
	// and KeyFile belong to it; each may be empty.
	URL, CredentialsFile, CAFile, CertFile, KeyFile string
	// Replicas of the streams in a cluster (ESB_NATS_REPLICAS).
	Replicas int
	// Prefix begins the names of streams and subjects (ESB_NATS_PREFIX). One box alone may use a prefix in a cluster.
	Prefix string
	// MaxBytes bounds the events (ASYNC_MAX_MB), DeadMaxBytes the dead letters (ASYNC_DEAD_LETTER_MAX_MB).
	MaxBytes, DeadMaxBytes int64
	// DeadRetention is how long dead letters are kept (ASYNC_DEAD_LETTER_RETENTION_DAYS), in time that a gateway runs; 0 is
	// for ever.
	DeadRetention time.Duration
	// RetryBase is the wait before the second try; the third waits twice as long (ASYNC_RETRY_BASE_SECONDS).
	RetryBase time.Duration
	// Region and AccountID are for the ARNs in records.
	Region, AccountID string
	Invoker           Invoker
	// Objects takes the records for S3; nil when the box has no object store.
	Objects Objects
	// Memory bounds what results hold; nil does not.
	Memory *budget.Budget
	Logger *slog.Logger
}

// Queue takes events and sees to them. Open starts it, Close ends it.
type Queue struct {
	opts  Options
	log   *slog.Logger
	store *store

	// ctx is the context of runs and deliveries; it ends when Close has waited long enough.
	ctx    context.Context
	cancel context.CancelFunc
	// feed is the context of what follows the streams and looks after the store.
	feed     context.Context
	stopFeed context.CancelFunc
	// tasks are the events in flight, followers what runs until Close, removing the removers.
	tasks, followers, removing sync.WaitGroup
	handled                    chan entry

	// bytes is what the events in the index count, and those that are being stored.
	bytes atomic.Int64
	turn  atomic.Uint32
	// pace keeps to intake; nil for a cluster.
	pace *pace
	// up is the clock of everything that is stored.
	up *uptime
	// broken is why the streams cannot be used yet.
	broken atomic.Pointer[error]
	// deadRefused is why the last dead letter could not be stored, nil when it could.
	deadRefused atomic.Pointer[error]
	// poster delivers records over HTTP.
	poster *http.Client

	// mu guards what follows, and the lanes.
	mu        sync.Mutex
	functions map[string]*gateway.Function
	runs      map[string]*lane
	outcomes  map[string]*lane
	// loaded is true when the index has everything that the streams had at the start; quiet when nothing starts any more.
	loaded, quiet bool
	closed        bool
}

// Open starts a Queue without functions: events wait until Apply names theirs. The embedded server's streams have been
// read when it returns; a cluster may be out of reach, and then events are refused until it is there.
func Open(ctx context.Context, opts Options) (*Queue, error) {
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	s, err := openStore(opts, opts.Logger)
	if err != nil {
		return nil, err
	}
	q := &Queue{
		opts: opts, log: opts.Logger, store: s, up: newUptime(),
		functions: map[string]*gateway.Function{}, runs: map[string]*lane{}, outcomes: map[string]*lane{},
		// Without a buffer: an event that waits for its removal would run twice after a crash.
		handled: make(chan entry),
		poster:  &http.Client{CheckRedirect: noRedirects, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: deliveries, IdleConnTimeout: time.Minute}},
	}
	q.ctx, q.cancel = context.WithCancel(context.WithoutCancel(ctx))
	q.feed, q.stopFeed = context.WithCancel(context.WithoutCancel(ctx))
	q.setBroken(errors.New("the streams are not set up yet"))
	if opts.URL == "" {
		q.pace = newPace(intake, burst)
	}
	for range removers {
		q.removing.Go(q.remove)
	}
	q.followers.Go(func() { s.watch(q.feed) })
	q.followers.Go(func() { q.beat(q.feed) })
	if opts.DeadRetention > 0 {
		q.followers.Go(func() { q.sweepOften(q.feed) })
	}
	if opts.URL != "" {
		q.followers.Go(q.attach)
		return q, nil
	}
	if err := q.load(ctx); err != nil {
		return nil, errors.Join(err, q.Close(ctx))
	}
	return q, nil
}

// attach loads the streams of a cluster as soon as it can be reached.
func (q *Queue) attach() {
	for n := 1; ; n++ {
		err := q.load(q.feed)
		if err == nil || q.feed.Err() != nil {
			return
		}
		q.setBroken(err)
		q.log.Error("queue of asynchronous events not available", "error", err.Error(), "failures", n)
		select {
		case <-q.feed.Done():
			return
		case <-time.After(min(pause(n), 15*time.Second)):
		}
	}
}

func (q *Queue) setBroken(err error) { q.broken.Store(&err) }

func (q *Queue) add(x indexed) {
	q.bytes.Add(int64(x.size))
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.lane(x.function, x.outcome)
	l.add(x.entry)
	l.pump()
}

// lane returns a function's lane. Callers hold mu.
func (q *Queue) lane(function string, outcomes bool) *lane {
	lanes := q.runs
	if outcomes {
		lanes = q.outcomes
	}
	l := lanes[function]
	if l == nil {
		l = &lane{q: q, function: function, outcomes: outcomes, running: map[key]int64{}}
		lanes[function] = l
	}
	return l
}

// Apply makes functions the current ones; their events run with them from the next try on. Those of a function that is
// not there wait for it until they are too old.
func (q *Queue) Apply(functions map[string]*gateway.Function) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.functions = functions
	for _, l := range q.runs {
		l.unthrottled() // what refused them may be mended
		l.oldestEnds = 1
	}
	q.pumpAll()
}

func (q *Queue) pumpAll() {
	for _, lanes := range []map[string]*lane{q.runs, q.outcomes} {
		for _, l := range lanes {
			l.pump()
		}
	}
}

// maxAge of a function's events. Callers hold mu.
func (q *Queue) maxAge(function string) time.Duration {
	if fn := q.functions[function]; fn != nil && fn.Async.MaxAge > 0 {
		return fn.Async.MaxAge
	}
	return gateway.MaxAsyncAge
}

// Enqueue stores an event of fn and returns nil when it is durable: from then on it is run at least once, with the
// current fn, under the request id of inv. ctx ends the wait of an event for its turn, but not its storing: a caller who
// leaves must not make it unclear whether the event was taken. The errors, all *gateway.Error:
//
// An event that comes to the function once too often in its chain (package lineage) is taken, and ends without a run.
//
//   - CodeTooLarge: the payload is over gateway.MaxAsyncEvent. CodeInvalid: a header of the invocation could not be passed on.
//   - CodeUnavailable: the queue is full, or the store is down. The event may have been stored all the same when the
//     store did not answer.
func (q *Queue) Enqueue(ctx context.Context, fn *gateway.Function, inv gateway.Invocation) error {
	began := time.Now()
	s := q.accept(fn, inv.RequestID, inv.TraceID)
	s.ClientContext, s.Qualifier = inv.ClientContext, inv.Qualifier
	if err := q.enqueue(ctx, fn.Name, s, inv.Payload); err != nil {
		refused.WithLabelValues(fn.Name, string(gateway.ErrorCode(err))).Inc()
		return err
	}
	accepted.WithLabelValues(fn.Name).Inc()
	enqueueTime.Observe(time.Since(began).Seconds())
	return nil
}

// accept makes the state of a new event of fn.
func (q *Queue) accept(fn *gateway.Function, requestID, traceID string) state {
	s := state{RequestID: requestID, Accepted: time.Now().UnixMilli(), Up: q.up.now()}
	var loops int
	if s.TraceID, loops = lineage.Hop(traceID, fn.Name); loops > lineage.Most && !fn.AllowLoops {
		s.Loops = loops
	}
	return s
}

// enqueue stores an event. One with a recordID, which is a record for another function, is stored once however often it
// comes within the time that the store recognises it.
func (q *Queue) enqueue(ctx context.Context, function string, s state, body []byte, recordID ...string) error {
	if s.Outcome == nil && len(body) > gateway.MaxAsyncEvent {
		return gateway.Errorf(gateway.CodeTooLarge, "function %s: asynchronous event of %d bytes, at most %d are allowed", function, len(body), gateway.MaxAsyncEvent)
	}
	for _, text := range []string{s.RequestID, s.TraceID, s.ClientContext} {
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return gateway.Errorf(gateway.CodeInvalid, "function %s: request id, trace id or client context holds a control character", function)
		}
	}
	if err := *q.broken.Load(); err != nil {
		return unavailable(function, err)
	}
	if err := q.store.space(); err != nil {
		return unavailable(function, err)
	}
	// It is counted while it is stored, and again by whoever reads it back from the stream.
	size := int64(len(body) + overhead)
	defer q.bytes.Add(-size)
	if q.bytes.Add(size) > q.opts.MaxBytes {
		return unavailable(function, fmt.Errorf("the queue is full: its events count %d MB already (ASYNC_MAX_MB)", q.opts.MaxBytes>>20))
	}
	if q.pace != nil {
		if err := q.pace.wait(ctx, function, len(body)+overhead, intakeWait); err != nil {
			return unavailable(function, fmt.Errorf("more than %d MB of events a second: %w", intake>>20, err))
		}
	}
	shard := int(q.turn.Add(1) % shards)
	var options []jetstream.PublishOpt
	for _, id := range recordID {
		// A stream knows its own messages only: the second must go to the same one.
		h := fnv.New32a()
		_, _ = h.Write([]byte(id)) // it never fails (package hash)
		shard = int(h.Sum32() % shards)
		options = append(options, jetstream.WithMsgID("record-"+id))
	}
	m, err := message(q.eventSubject(shard, function), s, body)
	if err != nil {
		return err
	}
	if _, err := q.store.publish(context.WithoutCancel(ctx), m, options...); err != nil {
		storeErrors.Inc()
		q.log.Error("event not stored", "function", function, "request_id", s.RequestID, "error", err.Error())
		return unavailable(function, err)
	}
	return nil
}

func unavailable(function string, err error) *gateway.Error {
	e := gateway.Errorf(gateway.CodeUnavailable, "function %s: the asynchronous event cannot be stored: %w", function, err)
	e.RetryAfter = time.Second
	return e
}

// Check is an error when events cannot be taken, for readiness.
func (q *Queue) Check(ctx context.Context) error {
	if err := *q.broken.Load(); err != nil {
		return err
	}
	return q.store.check(ctx)
}

// Notes are what an operator should know though the queue works.
func (q *Queue) Notes() []string {
	notes := q.store.notes()
	if n := q.bytes.Load(); n >= q.opts.MaxBytes/10*9 {
		notes = append(notes, fmt.Sprintf("the queue is almost full: its events count %d MB of %d, and then events are refused (ASYNC_MAX_MB)", n>>20, q.opts.MaxBytes>>20))
	}
	if err := q.deadRefused.Load(); err != nil {
		notes = append(notes, fmt.Sprintf("dead letters cannot be stored, and their events stay in the queue: %v (purge or replay some, or raise ASYNC_DEAD_LETTER_MAX_MB)", *err))
	}
	return notes
}

// FunctionState is what waits for one function.
type FunctionState struct {
	Function string `json:"function"`
	// Configured is false when functions.yml has no such function (any more): its events wait for it.
	Configured bool `json:"configured"`
	// Backlog waits for a run, a retry included; InFlight runs; Outcomes are ended events whose dead letter or record is
	// still to be put away; DeadLetters are in the dead-letter queue.
	Backlog     int    `json:"backlog"`
	InFlight    int    `json:"in_flight"`
	Outcomes    int    `json:"outcomes"`
	DeadLetters uint64 `json:"dead_letters"`
	// Oldest is when the oldest event that has not ended was accepted.
	Oldest *time.Time `json:"oldest,omitempty"`
	// PausedUntil is when the next run is tried after a throttle.
	PausedUntil *time.Time `json:"paused_until,omitempty"`
}

// backlog is the state of the index.
func (q *Queue) backlog() map[string]FunctionState {
	q.mu.Lock()
	defer q.mu.Unlock()
	states := make(map[string]FunctionState, len(q.functions))
	for name := range q.functions {
		states[name] = FunctionState{Function: name, Configured: true}
	}
	for name, l := range q.runs {
		s := states[name]
		s.Function = name
		s.Backlog, s.InFlight = len(l.waiting)+len(l.expired), len(l.running)
		oldest := int64(0)
		older := func(at int64) {
			if at > 0 && (oldest == 0 || at < oldest) {
				oldest = at
			}
		}
		for _, e := range l.waiting {
			older(e.accepted)
		}
		for _, e := range l.expired {
			older(e.accepted)
		}
		for _, at := range l.running {
			older(at)
		}
		if oldest > 0 {
			at := time.UnixMilli(oldest).UTC()
			s.Oldest = &at
		}
		if l.resumeAt > 0 && s.Backlog > 0 {
			at := time.Now().Add(time.Duration(l.resumeAt-q.up.now()) * time.Millisecond).UTC()
			s.PausedUntil = &at
		}
		states[name] = s
	}
	for name, l := range q.outcomes {
		s := states[name]
		s.Function = name
		s.Outcomes = len(l.waiting) + len(l.running)
		states[name] = s
	}
	for name, s := range states {
		if !s.Configured && s.Backlog+s.InFlight+s.Outcomes == 0 {
			delete(states, name)
		}
	}
	return states
}

// Quiesce lets no more events start; Enqueue goes on to store them, for the next process.
func (q *Queue) Quiesce() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.quiet = true
	q.pumpAll()
}

// Close ends the Queue. What is in flight has until ctx ends; then it is broken off and stays in the queue as if it had
// not been tried. It returns when everything that the Queue started has ended.
func (q *Queue) Close(ctx context.Context) error {
	q.Quiesce()
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		return nil
	}
	q.closed = true
	q.mu.Unlock()
	done := make(chan struct{})
	go func() {
		q.tasks.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		q.cancel()
		<-done
	}
	q.cancel()
	q.stopFeed()
	q.followers.Wait()
	close(q.handled)
	q.removing.Wait()
	q.poster.CloseIdleConnections()
	q.store.close()
	return nil
}

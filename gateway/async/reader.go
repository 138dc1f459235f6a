package async

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edge-serverless-box/esb/gateway"
)

// reader follows one stream into the index.
type reader struct {
	q     *Queue
	shard int
	// last is the sequence number that was read last; upTo that of the stream at the start. first is how many events there
	// were then.
	last, upTo uint64
	first      int
	// early are the events of before upTo, until all have been read and it is known which of them were replaced.
	early    map[uint64]indexed
	caughtUp chan struct{}
}

type indexed struct {
	entry
	function string
	outcome  bool
	replaces uint64
}

// load sets the streams up, reads them into the index, and follows them from then on.
func (q *Queue) load(ctx context.Context) error {
	if err := q.store.setUp(ctx); err != nil {
		return err
	}
	began := time.Now()
	if err := q.readUptime(ctx); err != nil {
		return err
	}
	n, err := q.readAll(ctx)
	if err != nil {
		return err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.loaded = true
	var none error
	q.broken.Store(&none)
	q.pumpAll()
	q.log.Info("queue of asynchronous events open", "events", n, "bytes", q.bytes.Load(), "duration_ms", time.Since(began).Milliseconds(), "embedded", q.opts.URL == "")
	return nil
}

// readAll follows the streams and returns how many events they had, when these are in the index. After an error nothing
// follows them and the index is empty.
func (q *Queue) readAll(ctx context.Context) (n int, err error) {
	feed, stop := context.WithCancel(q.feed)
	var following sync.WaitGroup
	defer func() {
		if err == nil {
			// They end with feed.
			q.followers.Go(func() {
				following.Wait()
				stop()
			})
			return
		}
		stop()
		following.Wait()
		q.mu.Lock()
		defer q.mu.Unlock()
		q.runs, q.outcomes = map[string]*lane{}, map[string]*lane{}
		q.bytes.Store(0)
	}()
	readers := make([]*reader, shards)
	for i := range readers {
		if readers[i], err = q.read(ctx, feed, &following, i); err != nil {
			return 0, err
		}
	}
	for i, r := range readers {
		select {
		case <-r.caughtUp:
		case <-ctx.Done():
			return 0, fmt.Errorf("read the events of stream %d: %w", i, ctx.Err())
		}
		n += r.first
	}
	return n, nil
}

// read follows a stream until feed ends.
func (q *Queue) read(ctx, feed context.Context, followers *sync.WaitGroup, shard int) (*reader, error) {
	stream := q.store.shard(shard)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	info, err := stream.Info(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the stream %d: %w", shard, err)
	}
	r := &reader{q: q, shard: shard, upTo: info.State.LastSeq, early: map[uint64]indexed{}, caughtUp: make(chan struct{})}
	if info.State.Msgs == 0 {
		r.settle()
	}
	consumer, err := stream.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy, HeadersOnly: true})
	if err != nil {
		return nil, fmt.Errorf("follow the stream %d: %w", shard, err)
	}
	following, err := consumer.Consume(r.take, jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
		q.log.Debug("following a stream", "shard", shard, "error", err.Error())
	}))
	if err != nil {
		return nil, fmt.Errorf("follow the stream %d: %w", shard, err)
	}
	followers.Go(func() {
		<-feed.Done()
		following.Stop()
		<-following.Closed()
	})
	return r, nil
}

// take puts a message of the stream into the index.
func (r *reader) take(m jetstream.Msg) {
	meta, err := m.Metadata()
	if err != nil || meta.Sequence.Stream <= r.last {
		return // delivered again
	}
	r.last = meta.Sequence.Stream
	x := r.index(m, r.last)
	if r.early == nil {
		r.q.add(x)
		return
	}
	r.early[x.seq] = x
	if r.last >= r.upTo || meta.NumPending == 0 {
		r.settle()
	}
}

func (r *reader) index(m jetstream.Msg, seq uint64) indexed {
	subject := m.Subject()
	x := indexed{function: subject[strings.LastIndexByte(subject, '.')+1:]}
	x.seq, x.shard = seq, uint8(r.shard)
	size, _ := strconv.Atoi(m.Headers().Get(sizeHeader))
	x.size = int32(size + len(m.Headers().Get(stateHeader)) + overhead)
	s, err := parseState(m.Headers())
	if err != nil {
		// It counts as too old, so that it is looked at at once, and buried there.
		x.born = -gateway.MaxAsyncAge.Milliseconds()
		r.q.log.Error("event without a readable state", "shard", r.shard, "seq", seq, "function", x.function)
		return x
	}
	x.accepted, x.replaces, x.outcome = s.Accepted, s.Replaces, s.Outcome != nil
	x.born, x.due = r.q.settle(s)
	return x
}

// settle ends the first reading: the events that a later message replaces, and that the last process had no time to
// remove, are removed now.
func (r *reader) settle() {
	replaced := make(map[uint64]bool)
	for _, seq := range slices.Sorted(maps.Keys(r.early)) {
		x := r.early[seq]
		switch {
		case x.replaces == 0 || x.replaces >= seq:
		case replaced[x.replaces]:
			// Stored twice: the store was away for longer than it recognises a repetition.
			x.replaced(r)
		default:
			replaced[x.replaces] = true
			if old, ok := r.early[x.replaces]; ok {
				old.replaced(r)
			}
		}
	}
	r.first = len(r.early)
	for _, x := range r.early {
		r.q.add(x)
	}
	r.early = nil
	close(r.caughtUp)
}

func (x indexed) replaced(r *reader) {
	delete(r.early, x.seq)
	r.q.bytes.Add(int64(x.size)) // as add does: remove takes it off
	r.q.handled <- x.entry
}

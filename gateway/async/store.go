package async

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sys/unix"
)

const (
	// shards is how many streams take events, by turns. One stream writes and syncs one message after the other; the
	// syncs of several run at the same time, which the disk takes together (measured: 4 times the events a second of
	// one stream, and no more with 8).
	shards = 4
	// maxMessage is the largest message: an event (1 MB), an answer (6 MB), and their state.
	maxMessage = 8 << 20
	// updateRoom is what a stream holds above the limit for new events: states that replace older ones for a moment.
	updateRoom = 256 << 20
	// minFree is the free space on the disk below which no more events are taken. JetStream closes down on a full disk.
	minFree = 64 << 20
	// startTimeout bounds the start of the embedded server, and one set-up of the streams.
	startTimeout = 60 * time.Second
	// requestTimeout bounds one exchange with JetStream.
	requestTimeout = 20 * time.Second
	// watchInterval is how often the embedded server is looked after.
	watchInterval = 5 * time.Second
	// dedupWindow is how long a repeated state or record, after an exchange without an answer, is recognised; unclearPause is
	// the longest pause before it is repeated, so that several tries come within that time.
	dedupWindow  = 2 * time.Minute
	unclearPause = 20 * time.Second
	// uptimeRoom is what the stream of the up-time may take: it has one message.
	uptimeRoom = 1 << 20
	// formKey is where a stream says the form of its messages, form the newest that this gateway understands, and the one that it
	// writes. It is raised when a gateway of before must not read what this one writes.
	formKey, form = "esb_form", 1
)

// store is JetStream, embedded or a cluster, and the streams in it.
type store struct {
	opts Options
	log  *slog.Logger

	lock *os.File // of the embedded server's folder
	// server is nil for a cluster. watch puts another in its place.
	server atomic.Pointer[server.Server]
	conn   *nats.Conn
	js     jetstream.JetStream

	// mu guards the streams, nil until they have been set up, and damaged.
	mu      sync.RWMutex
	events  [shards]jetstream.Stream
	dead    jetstream.Stream
	up      jetstream.Stream
	damaged []string
}

// openStore starts the embedded server, or connects to the cluster, which need not be reachable yet.
func openStore(opts Options, log *slog.Logger) (_ *store, err error) {
	s := &store{opts: opts, log: log}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if opts.URL == "" {
		if err := s.startServer(); err != nil {
			return nil, err
		}
		s.conn, err = nats.Connect("", nats.InProcessServer(s), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
		if err != nil {
			return nil, fmt.Errorf("connect to the embedded queue: %w", err)
		}
	} else if s.conn, err = dialCluster(opts, log); err != nil {
		return nil, err
	}
	if s.js, err = jetstream.New(s.conn, jetstream.WithDefaultTimeout(requestTimeout)); err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	return s, nil
}

func dialCluster(opts Options, log *slog.Logger) (*nats.Conn, error) {
	options := []nats.Option{
		nats.Name("esb gateway"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Error("NATS connection lost", "error", err.Error())
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) { log.Info("NATS connected", "url", c.ConnectedUrlRedacted()) }),
	}
	if opts.CredentialsFile != "" {
		options = append(options, nats.UserCredentials(opts.CredentialsFile))
	}
	if opts.CAFile != "" {
		options = append(options, nats.RootCAs(opts.CAFile))
	}
	if opts.CertFile != "" {
		options = append(options, nats.ClientCert(opts.CertFile, opts.KeyFile))
	}
	conn, err := nats.Connect(opts.URL, options...)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS (ESB_NATS_URL): %w", err)
	}
	return conn, nil
}

func (s *store) startServer() error {
	if err := os.MkdirAll(s.opts.Dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of the queue: %w", err)
	}
	// Two servers on one folder would spoil it.
	lock, err := os.OpenFile(filepath.Join(s.opts.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open the lock of the queue: %w", err)
	}
	s.lock = lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("lock the queue in %s: another gateway uses it: %w", s.opts.Dir, err)
	}
	if err := s.runServer(); err != nil {
		return err
	}
	lost, err := s.unreadable()
	if err != nil || len(lost) == 0 {
		return err
	}
	// Once more: what the machine had too little of may have passed.
	s.stopServer()
	for _, name := range lost {
		if err := writable(s.streamDir(name)); err != nil {
			return fmt.Errorf("the stream %s cannot be opened now: %w", name, err)
		}
	}
	if err := s.runServer(); err != nil {
		return err
	}
	if lost, err = s.unreadable(); err != nil || len(lost) == 0 {
		return err
	}
	// A stream whose description cannot be read is left out by JetStream, and a new one would be made on its files.
	// The box is unattended: it goes on with an empty stream, and keeps the files.
	s.stopServer()
	for _, name := range lost {
		if err := writable(s.streamDir(name)); err != nil {
			return fmt.Errorf("the stream %s cannot be opened now: %w", name, err)
		}
		kept := filepath.Join(s.opts.Dir, "damaged", name+"-"+time.Now().UTC().Format("20060102T150405.000"))
		if err := os.MkdirAll(filepath.Dir(kept), 0o700); err != nil {
			return fmt.Errorf("make the folder for damaged streams: %w", err)
		}
		if err := os.Rename(s.streamDir(name), kept); err != nil {
			return fmt.Errorf("set the damaged stream %s aside: %w", name, err)
		}
		s.log.Error("stream of asynchronous events is damaged and was set aside", "stream", name, "kept", kept)
		s.note("stream " + name + " was damaged; its files are in " + kept)
	}
	return s.runServer()
}

func (s *store) runServer() error {
	srv, err := server.NewServer(&server.Options{
		ServerName: "esb", DontListen: true, NoSigs: true, DisableJetStreamBanner: true,
		JetStream: true, StoreDir: s.opts.Dir, SyncAlways: true,
		// Each stream has a bound of its own. What is reserved for those of before must not be in the way of smaller ones.
		JetStreamMaxStore:  1 << 50,
		JetStreamMaxMemory: 32 << 20,
		MaxPayload:         maxMessage,
	})
	if err != nil {
		return fmt.Errorf("make the embedded NATS server: %w", err)
	}
	s.server.Store(srv)
	srv.SetLoggerV2(serverLog{s.log}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) || !srv.JetStreamEnabled() {
		return fmt.Errorf("the embedded NATS server did not start on %s within %v: see the log", s.opts.Dir, startTimeout)
	}
	return nil
}

func (s *store) stopServer() {
	if srv := s.server.Load(); srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
	}
}

// InProcessConn implements nats.InProcessConnProvider: a connection that was lost is made to the server of then.
func (s *store) InProcessConn() (net.Conn, error) { return s.server.Load().InProcessConn() }

func (s *store) streamDir(name string) string {
	return filepath.Join(s.opts.Dir, "jetstream", "$G", "streams", name)
}

// unreadable are the streams that have files and that the server has not read.
func (s *store) unreadable() ([]string, error) {
	state, err := s.server.Load().Jsz(&server.JSzOptions{Accounts: true, Streams: true})
	if err != nil {
		return nil, fmt.Errorf("ask the embedded NATS server for its streams: %w", err)
	}
	read := make(map[string]bool)
	for _, account := range state.AccountDetails {
		for _, stream := range account.Streams {
			read[stream.Name] = true
		}
	}
	var lost []string
	for _, name := range s.names() {
		if _, err := os.Stat(s.streamDir(name)); err == nil && !read[name] {
			lost = append(lost, name)
		}
	}
	return lost, nil
}

// writable says whether a file can be made in a folder: JetStream makes one in that of each stream, and leaves the stream out when it
// cannot.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, "_test_") // as JetStream names it
	if errors.Is(err, unix.ENOTDIR) {
		return nil // it is damaged
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

func (s *store) names() []string {
	names := []string{s.deadName(), s.uptimeName()}
	for i := range shards {
		names = append(names, s.eventName(i))
	}
	return names
}

func (s *store) eventName(shard int) string { return fmt.Sprintf("%s-event-%d", s.opts.Prefix, shard) }
func (s *store) deadName() string           { return s.opts.Prefix + "-dead" }
func (s *store) uptimeName() string         { return s.opts.Prefix + "-uptime" }

// setUp makes the streams that are missing and gives the others their limits.
func (s *store) setUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if most := s.conn.MaxPayload(); most > 0 && most < maxMessage {
		return fmt.Errorf("the NATS server takes messages of %d bytes only: set its max_payload to at least %d", most, maxMessage)
	}
	config := jetstream.StreamConfig{
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, Storage: jetstream.FileStorage,
		Replicas: max(1, s.opts.Replicas), AllowDirect: true, Duplicates: dedupWindow,
		Metadata: map[string]string{formKey: strconv.Itoa(form)},
	}
	var events [shards]jetstream.Stream
	for i := range shards {
		c := config
		c.Name, c.Description = s.eventName(i), "esb: events of asynchronous invocations"
		c.Subjects = []string{fmt.Sprintf("%s.event.%d.*", s.opts.Prefix, i)}
		c.MaxBytes = s.opts.MaxBytes + updateRoom
		stream, err := s.stream(ctx, c)
		if err != nil {
			return fmt.Errorf("make the stream %s: %w", c.Name, err)
		}
		events[i] = stream
	}
	c := config
	c.Name, c.Description = s.deadName(), "esb: dead letters of asynchronous invocations"
	c.Subjects = []string{s.opts.Prefix + ".dead.*"}
	c.MaxBytes = s.opts.DeadMaxBytes // no MaxAge: it would throw everything away when the clock is set forward (sweep)
	dead, err := s.stream(ctx, c)
	if err != nil {
		return fmt.Errorf("make the stream %s: %w", c.Name, err)
	}
	c = config
	c.Name, c.Description = s.uptimeName(), "esb: how long the gateway has run with the events"
	c.Subjects = []string{s.opts.Prefix + ".uptime"}
	c.MaxBytes, c.MaxMsgs, c.Discard = uptimeRoom, 1, jetstream.DiscardOld
	up, err := s.stream(ctx, c)
	if err != nil {
		return fmt.Errorf("make the stream %s: %w", c.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events, s.dead, s.up = events, dead, up
	return nil
}

// stream makes a stream, or gives it its limits. It writes nothing when that has been done: an open queue can do without space.
func (s *store) stream(ctx context.Context, config jetstream.StreamConfig) (jetstream.Stream, error) {
	there, err := s.js.Stream(ctx, config.Name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return s.js.CreateStream(ctx, config)
	case err != nil:
		return nil, err
	case formOf(there) > form:
		return nil, fmt.Errorf("its events have the form %d, which a newer esb has written; this one understands %d at most: use the newer esb again, or remove the stream, with its events", formOf(there), form)
	case sameLimits(there.CachedInfo().Config, config):
		return there, nil
	}
	changed, err := s.js.UpdateStream(ctx, config)
	if err == nil || s.space() == nil {
		return changed, err
	}
	s.log.Warn("the disk is full: a stream of asynchronous events keeps the limits of before", "stream", config.Name, "error", err.Error())
	return there, nil
}

// formOf is that of a stream's events; a stream of before there were forms has 1.
func formOf(stream jetstream.Stream) int {
	n, err := strconv.Atoi(stream.CachedInfo().Config.Metadata[formKey])
	if err != nil {
		return 1
	}
	return n
}

// sameLimits compares what setUp sets; the server fills in the rest.
func sameLimits(have, want jetstream.StreamConfig) bool {
	if want.MaxMsgs == 0 {
		want.MaxMsgs = -1 // as the server has it
	}
	return have.Description == want.Description && slices.Equal(have.Subjects, want.Subjects) && have.Retention == want.Retention &&
		have.Discard == want.Discard && have.Storage == want.Storage && have.Replicas == want.Replicas && have.AllowDirect == want.AllowDirect &&
		have.Duplicates == want.Duplicates && have.Metadata[formKey] == want.Metadata[formKey] && have.MaxBytes == want.MaxBytes && have.MaxMsgs == want.MaxMsgs && have.MaxAge == want.MaxAge
}

func (s *store) shard(i int) jetstream.Stream {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.events[i]
}

func (s *store) deadLetters() jetstream.Stream {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.dead
}

func (s *store) uptime() jetstream.Stream {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.up
}

func (s *store) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.damaged = append(s.damaged, text)
}

func (s *store) notes() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return append([]string(nil), s.damaged...)
}

// publish returns when the message is durable, and the sequence number that it has.
func (s *store) publish(ctx context.Context, m *nats.Msg, options ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	// Without an answer nobody knows whether it was stored: whoever calls decides about a second try.
	return s.js.PublishMsg(ctx, m, append(options, jetstream.WithRetryAttempts(0))...)
}

// check says whether events can be stored.
func (s *store) check(ctx context.Context) error {
	if !s.conn.IsConnected() {
		return fmt.Errorf("no connection to NATS: %s", strings.ToLower(s.conn.Status().String()))
	}
	if srv := s.server.Load(); srv != nil {
		if err := s.space(); err != nil {
			return err
		}
		if !srv.JetStreamEnabled() {
			return errors.New("JetStream has closed down: see the log")
		}
		return nil
	}
	if _, err := s.js.AccountInfo(ctx); err != nil {
		return fmt.Errorf("ask JetStream: %w", err)
	}
	return nil
}

// space is an error, unix.ENOSPC, when the disk of the embedded server is almost full.
func (s *store) space() error {
	if s.server.Load() == nil {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(s.opts.Dir, &fs); err != nil {
		return fmt.Errorf("ask for the free space of %s: %w", s.opts.Dir, err)
	}
	if free := fs.Bavail * uint64(fs.Bsize); free < minFree {
		return fmt.Errorf("the disk of %s has only %d MB left: no events are taken below %d MB: %w", s.opts.Dir, free>>20, minFree>>20, unix.ENOSPC)
	}
	return nil
}

// watch brings JetStream back after it has closed down for want of disk space, until ctx ends.
func (s *store) watch(ctx context.Context) {
	if s.server.Load() == nil {
		return
	}
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.server.Load().JetStreamEnabled() || s.space() != nil {
			continue
		}
		s.log.Warn("JetStream has closed down: starting it again")
		s.stopServer()
		if err := s.runServer(); err != nil {
			s.log.Error("JetStream does not start", "error", err.Error())
		}
	}
}

func (s *store) close() {
	if s.conn != nil {
		s.conn.Close()
	}
	s.stopServer()
	if s.lock != nil {
		_ = s.lock.Close() // and so the lock ends
	}
}

// serverLog takes the embedded server's log: what it notices goes to debug.
type serverLog struct{ log *slog.Logger }

func (l serverLog) Noticef(format string, v ...any) { l.log.Debug(fmt.Sprintf("nats: "+format, v...)) }
func (l serverLog) Warnf(format string, v ...any)   { l.log.Warn(fmt.Sprintf("nats: "+format, v...)) }
func (l serverLog) Errorf(format string, v ...any)  { l.log.Error(fmt.Sprintf("nats: "+format, v...)) }
func (l serverLog) Fatalf(format string, v ...any)  { l.log.Error(fmt.Sprintf("nats: "+format, v...)) }
func (l serverLog) Debugf(format string, v ...any)  {}
func (l serverLog) Tracef(format string, v ...any)  {}

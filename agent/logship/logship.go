// Package logship brings the lines of log files to VictoriaLogs and keeps the files of functions within their bound. It
// reads files, so that a store that is down or an agent that is killed loses nothing, sends one batch at a time, and
// keeps on disk how far it has come before it sends the next one: at most one batch is delivered twice.
package logship

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edge-serverless-box/esb/agent/logshare"
	"github.com/edge-serverless-box/esb/guard/statefile"
)

const (
	// readSize is how much of one owner's lines goes into a batch before the others have their turn.
	readSize = 256 << 10
	// maxLine is the longest line, in bytes; longer ones are cut. lambda-init's are up to 256 KiB before they are JSON.
	maxLine = 2 << 20
	// firstRetry and lastRetry bound the pause before a batch is sent again.
	firstRetry = 250 * time.Millisecond
	lastRetry  = 5 * time.Second
	// drainTimeout is how long Close waits for the answer to a batch that is on its way.
	drainTimeout = 3 * time.Second
	// remind is how often a trouble that goes on is logged.
	remind = 5 * time.Minute
)

// Troubles that hold up the batch.
const (
	troubleSend = "logs cannot be shipped; they are kept and tried again"
	troubleKeep = "no more logs are shipped until the disk takes how far they are"
)

// functionsDir is the folder of the containers' files below the log folder.
const functionsDir = "functions"

// gatewayDir is the folder of the gateway's files below the log folder where the gateway runs as a user of its own.
const gatewayDir = "gateway"

// Config of a Shipper. agent/settings documents those that are settings.
type Config struct {
	// Dir is the log folder: <service>.log with its rotated files <service>.log.*, and functions/<container>.log.
	Dir string
	// URL of VictoriaLogs; empty: nothing is shipped, and the files are only kept within MaxBytes.
	URL            string
	User, Password string
	// PasswordFile has the password when Password is empty.
	PasswordFile string
	// BatchBytes is the size from which a batch is sent at once, Interval how long a line waits at most.
	BatchBytes int
	Interval   time.Duration
	// Shares bound what the store gets of a function in a day; nil: there is no bound.
	Shares *logshare.Shares
	// MaxBytes is what the files of functions may take on disk together.
	MaxBytes int64
	// Container tells what is known of a container, the zero value for one of which nothing is left.
	Container func(name string) Container
	Logger    *slog.Logger
}

// Container is what the runtime knows of the writer of a log file.
type Container struct {
	// Function is its name.
	Function string
	// Supervised says that lambda-init alone writes the file, so that what its lines say of themselves is true.
	Supervised bool
	// Alive is false for one that has ended and writes no more.
	Alive bool
}

// Stats are figures since Open; DroppedLines since the log folder was made.
type Stats struct {
	// Lines and Batches that the store has accepted.
	Lines, Batches int64
	// Failures of sending.
	Failures int64
	// BacklogBytes are not shipped yet.
	BacklogBytes int64
	// DroppedLines were given up because the store was down and the bound was reached.
	DroppedLines int64
}

// Shipper ships until Close. One goroutine owns everything but the counters.
type Shipper struct {
	cfg   Config
	log   *slog.Logger
	store *Store // nil: nothing is shipped

	files map[fileID]*file
	// turn is whose lines the last batch ended with, and turns the file of each owner that has had his last.
	turn  string
	turns map[string]string
	// batch is what is being sent, until its offsets are on disk.
	batch   *batch
	sending bool
	sent    chan error
	// due is when there is something to do next.
	due   time.Time
	pause time.Duration
	// look is when the files' sizes are to be looked at, whatever becomes of the batch.
	look time.Time
	// used is what the files of functions took on disk after the last look.
	used int64
	// delayed: the batch could not be sent, or its offsets not be kept, and pause is how long it was put off.
	delayed bool
	// noHoles: the file system cannot free parts of files.
	noHoles  bool
	troubles map[string]time.Time

	// keep is writeOffsets; tests replace it to fail between the steps.
	keep func(string, offsets) error
	// base is what offsetsFile has, nil until this Shipper has written it.
	base map[fileID]position
	// series is its Series.
	series string

	lines, batches, failures, backlog, dropped atomic.Int64

	stop   chan struct{}
	closed sync.Once
	done   chan struct{}
}

// batch is one request to the store.
type batch struct {
	body  []byte
	lines int64
	to    map[*file]cursor
	// accepted by the store; its offsets are not on disk yet.
	accepted bool
	full     bool
	// skipped: there were lines above their function's share, which nobody gets.
	skipped bool
}

// cursor is where the next line of a file begins, and the invocation that it belongs to if it does not say.
type cursor struct {
	offset  int64
	request string
}

// Open starts shipping the files in cfg.Dir.
func Open(cfg Config) (*Shipper, error) {
	s, err := newShipper(cfg)
	if err != nil {
		return nil, err
	}
	go s.run()
	return s, nil
}

func newShipper(cfg Config) (*Shipper, error) {
	if err := os.MkdirAll(filepath.Join(cfg.Dir, functionsDir), 0o700); err != nil {
		return nil, fmt.Errorf("make the log folder (ESB_LOG_DIR): %w", err)
	}
	s := &Shipper{
		cfg: cfg, log: cfg.Logger, files: map[fileID]*file{}, turns: map[string]string{}, sent: make(chan error, 1), troubles: map[string]time.Time{},
		keep: writeOffsets, stop: make(chan struct{}), done: make(chan struct{}),
	}
	if cfg.URL != "" {
		s.store = NewStore(cfg)
	}
	all, err := s.recall(offsetsFile)
	if err != nil {
		return nil, err
	}
	s.takeOver(all)
	since, err := s.recall(sinceFile)
	if err != nil {
		return nil, err
	}
	if since.Series == all.Series { // both are without one after a program of before there were any
		s.takeOver(since)
	}
	return s, nil
}

// takeOver has s begin where an earlier Shipper was.
func (s *Shipper) takeOver(known offsets) {
	s.dropped.Store(max(s.dropped.Load(), known.DroppedLines))
	for _, p := range known.Files {
		s.files[fileID{p.Device, p.Inode}] = &file{position: p}
	}
}

// recall returns what a file of an earlier Shipper says. Nothing is known from one that is damaged, and it is moved aside.
func (s *Shipper) recall(name string) (offsets, error) {
	path := filepath.Join(s.cfg.Dir, name)
	known, err := readOffsets(path)
	var useless *statefile.Error
	if errors.As(err, &useless) && !useless.Newer() {
		// Lines twice are better than lines lost.
		aside := path + ".damaged"
		if err := os.Rename(path, aside); err != nil {
			return offsets{}, fmt.Errorf("move a damaged file aside: %w", err)
		}
		s.log.Error("log lines are shipped once more: what was shipped of them is not known", "error", err, "file", aside)
		return offsets{}, nil
	}
	return known, err
}

// Close waits for the batch that is on its way, ends what Open started, and returns when all of it has ended. What is
// not shipped is when the next Shipper runs.
func (s *Shipper) Close() error {
	s.closed.Do(func() { close(s.stop) })
	<-s.done
	return nil
}

// Stats may be called at any time.
func (s *Shipper) Stats() Stats {
	return Stats{
		Lines: s.lines.Load(), Batches: s.batches.Load(), Failures: s.failures.Load(), BacklogBytes: s.backlog.Load(),
		DroppedLines: s.dropped.Load(),
	}
}

func (s *Shipper) run() {
	defer close(s.done)
	life, end := context.WithCancel(context.Background())
	defer end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.stop:
			s.drain(end)
			return
		case err := <-s.sent:
			s.settle(err)
		case <-timer.C:
		}
		now := time.Now()
		if !now.Before(s.due) {
			s.due = now.Add(s.cfg.Interval)
			s.step(life)
		} else if !now.Before(s.look) {
			s.keepBound()
		}
		timer.Reset(time.Until(s.nextLook()))
	}
}

// step looks at the files, keeps them within their bound, and sends what there is when nothing is on its way.
func (s *Shipper) step(life context.Context) {
	if err := s.scan(); err != nil {
		s.trouble("log files cannot be listed", err)
	}
	s.makeRoom()
	if s.store == nil || s.sending {
		return
	}
	if s.batch != nil && s.batch.accepted {
		if s.commit(); s.batch != nil {
			return
		}
	}
	if s.batch == nil {
		s.batch = s.gather()
	}
	if s.batch == nil {
		return
	}
	if s.batch.lines == 0 {
		s.batch.accepted = true
		s.commit()
		return
	}
	s.sending = true
	body := s.batch.body
	go func() { s.sent <- s.store.Send(life, body) }()
}

// settle takes the store's answer to the batch.
func (s *Shipper) settle(err error) {
	s.sending = false
	if err != nil {
		s.failures.Add(1)
		s.delay(troubleSend, err)
		return
	}
	s.batch.accepted = true
	s.commit()
}

// commit puts on disk that the batch has been accepted. Until that has worked, nothing else is sent.
func (s *Shipper) commit() {
	b := s.batch
	for f, to := range b.to {
		if to.offset > f.Offset { // else bytes of the batch were dropped meanwhile
			f.Offset, f.Request = to.offset, to.request
		}
	}
	if err := s.save(); err != nil {
		s.delay(troubleKeep, err)
		return
	}
	s.batch, s.pause = nil, 0
	if b.lines > 0 {
		s.lines.Add(b.lines)
		s.batches.Add(1)
	}
	if s.delayed {
		s.delayed = false
		delete(s.troubles, troubleSend)
		delete(s.troubles, troubleKeep)
		s.log.Info("logs are shipped again", "backlog_bytes", s.backlog.Load())
	}
	if b.full {
		s.due = time.Now()
	}
}

// delay puts the batch off.
func (s *Shipper) delay(what string, err error) {
	s.delayed = true
	s.pause = min(max(2*s.pause, firstRetry), lastRetry)
	s.due = time.Now().Add(s.pause)
	s.trouble(what, err)
}

// drain waits for the batch on its way, so that a stop in order delivers nothing twice.
func (s *Shipper) drain(cancel context.CancelFunc) {
	if s.sending {
		timer := time.NewTimer(drainTimeout)
		defer timer.Stop()
		var err error
		select {
		case err = <-s.sent:
		case <-timer.C:
			cancel()
			err = <-s.sent
		}
		s.settle(err)
	}
	if s.store != nil {
		s.store.Close()
	}
	if s.base == nil {
		return
	}
	if err := s.saveAll(); err != nil {
		s.trouble(troubleKeep, err)
	}
}

// trouble logs what goes wrong, once and then now and again.
func (s *Shipper) trouble(what string, err error) {
	if last, known := s.troubles[what]; known && time.Since(last) < remind {
		return
	}
	s.troubles[what] = time.Now()
	s.log.Warn(what, "error", err, "backlog_bytes", s.backlog.Load())
}

// Package proven keeps the configurations that functions were last seen to work with in a file, so that a gateway that is started while a
// changed function does not work can still go back, also after a power cut.
package proven

import (
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/edge-serverless-box/esb/gateway"
	"github.com/edge-serverless-box/esb/gateway/pool"
	"github.com/edge-serverless-box/esb/guard/statefile"
)

// retryAfter is the pause after a write that failed: the disk may be full.
const retryAfter = 10 * time.Second

var _ pool.Proofs = (*Store)(nil)

// Store is such a file. It implements pool.Proofs; no call of that waits for the disk but the first.
type Store struct {
	path string
	log  *slog.Logger

	// changed is of one: there is something to write. closing ends run, which then closes closed.
	changed         chan struct{}
	closing, closed chan struct{}

	// mu guards what follows.
	mu sync.Mutex
	// read is true when what the file had is among proofs; unreadable, when somebody has been told that it cannot be read.
	read, unreadable bool
	proofs           map[string]pool.Proof
	// forgotten are those that were dropped while the file could not be read.
	forgotten map[string]bool
}

type content struct {
	Functions map[string]pool.Proof `json:"functions"`
}

// Open returns the Store of the file at path, which is read when something is asked of it: until then an earlier gateway may write it.
func Open(path string, log *slog.Logger) *Store {
	s := &Store{
		path: path, log: log, changed: make(chan struct{}, 1), closing: make(chan struct{}), closed: make(chan struct{}),
		proofs: map[string]pool.Proof{}, forgotten: map[string]bool{},
	}
	go s.run()
	return s
}

// Close writes what is not written yet, and ends the Store.
func (s *Store) Close() error {
	close(s.closing)
	<-s.closed
	select {
	case <-s.changed:
		return s.write()
	default:
		return nil
	}
}

// Proof implements pool.Proofs.
func (s *Store) Proof(function string) (pool.Proof, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.load()
	p, ok := s.proofs[function]
	return p, ok
}

// Keep implements pool.Proofs.
func (s *Store) Keep(function string, p pool.Proof) {
	p.Function = needed(p.Function)
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.load()
	if old, ok := s.proofs[function]; ok && reflect.DeepEqual(old, p) {
		return
	}
	s.proofs[function] = p
	delete(s.forgotten, function)
	s.mark()
}

// Forget implements pool.Proofs.
func (s *Store) Forget(gone func(function string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.load()
	before := len(s.proofs)
	maps.DeleteFunc(s.proofs, func(function string, _ pool.Proof) bool {
		if gone(function) && !s.read {
			s.forgotten[function] = true
		}
		return gone(function)
	})
	if len(s.proofs) != before {
		s.mark()
	}
}

// needed is what a container of fn is made of.
func needed(fn gateway.Function) gateway.Function {
	fn.Scaling, fn.Async, fn.Invoke, fn.Stores, fn.Schedules = gateway.Scaling{}, gateway.Async{}, nil, gateway.StoreAccess{}, nil
	return fn
}

// mark has run write. Callers hold mu.
func (s *Store) mark() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// load reads the file once. One that is damaged is put aside: nothing is lost that the next worker of each function does not bring back.
// One that cannot be read may be whole, and is left as it is until it can. Callers hold mu.
func (s *Store) load() error {
	if s.read {
		return nil
	}
	var c content
	err := statefile.Proven().Read(s.path, &c)
	var useless *statefile.Error
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
	case errors.As(err, &useless):
		c = content{}
		s.log.Warn("which configurations functions last worked with is not known: none goes back to one from before this start", "error", err.Error())
		if err := os.Rename(s.path, s.path+".broken"); err != nil {
			s.log.Warn("that file cannot be put aside", "error", err.Error())
		}
	default:
		if !s.unreadable {
			s.unreadable = true
			s.log.Warn("which configurations functions last worked with cannot be read; trying again", "error", err.Error())
		}
		return err
	}
	s.read = true
	// What was seen meanwhile is newer.
	for function, p := range c.Functions {
		if _, ok := s.proofs[function]; !ok && !s.forgotten[function] {
			s.proofs[function] = p
		}
	}
	s.forgotten = nil
	return nil
}

func (s *Store) run() {
	defer close(s.closed)
	failed := false
	for {
		var retry <-chan time.Time
		if failed {
			retry = time.After(retryAfter)
		}
		select {
		case <-s.changed:
		case <-retry:
		case <-s.closing:
			if failed {
				s.mu.Lock()
				s.mark()
				s.mu.Unlock()
			}
			return
		}
		err := s.write()
		if err != nil && !failed {
			s.log.Warn("which configurations functions work with cannot be kept; trying again", "error", err.Error())
		}
		failed = err != nil
	}
}

func (s *Store) write() error {
	s.mu.Lock()
	err := s.load() // or what it has would be lost
	proofs := maps.Clone(s.proofs)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	// Environments hold secrets.
	return statefile.Proven().Write(s.path, content{Functions: proofs}, 0o600)
}

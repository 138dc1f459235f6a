package code

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/edge-serverless-box/esb/guard/statefile"
)

// aside is in the name of a tree whose place another one has taken, see keep.
const aside = ".aside-"

// removeUnsynced removes trees that were not on the disk when the machine went down. No container outlives that.
func (s *Store) removeUnsynced() error {
	entries, err := os.ReadDir(s.path("trees"))
	errs := []error{err}
	for _, e := range entries {
		if _, err := os.Stat(s.path("trees", e.Name(), synced)); err == nil {
			continue
		}
		if s.ofThisBoot(e.Name()) {
			s.running.Go(func() { s.sync(e.Name()) })
			continue
		}
		errs = append(errs, os.RemoveAll(s.path("trees", e.Name())))
	}
	return errors.Join(append(errs, s.forget())...)
}

// ofThisBoot says whether a tree was made since the machine is up: containers may have it. One that a newer esb has made counts as such
// as long as it does not say another boot.
func (s *Store) ofThisBoot(name string) bool {
	about, err := s.describe(name)
	if err == nil {
		return about.Boot == s.boot
	}
	var useless *statefile.Error
	if !errors.As(err, &useless) || !useless.Newer() {
		return false
	}
	var said struct {
		Boot string `json:"boot"`
	}
	if data, err := os.ReadFile(s.path("trees", name, "info.json")); err == nil {
		_ = json.Unmarshal(data, &said) // of another form it says nothing
	}
	return said.Boot == "" || said.Boot == s.boot
}

// keep gives a tree that is made its place. What is there already came by another way meanwhile, and is the same; but one that this
// program cannot read, because a newer esb has made it or its description is damaged, stays beside: containers may have it.
func (s *Store) keep(ctx context.Context, staging, id string) error {
	place := s.path("trees", id)
	err := os.Rename(staging, place)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, unread := s.describe(id)
	if unread == nil {
		return nil
	}
	if err := os.Rename(place, place+aside+strings.ToLower(rand.Text())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.log.WarnContext(ctx, "function code that is here cannot be used and is made anew", "digest", id, "error", unread)
	if err := os.Rename(staging, place); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// Prune removes trees that have neither a lease nor a container, those first that were not asked for the longest, until
// the rest of them fits into MaxBytes. inUse says whether a container has a tree mounted.
func (s *Store) Prune(inUse func(id string) bool) error {
	removed, err := s.choose(inUse)
	errs := []error{err}
	for _, dir := range removed {
		errs = append(errs, os.RemoveAll(dir))
	}
	if len(removed) > 0 {
		s.libraries.Clear()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("prune function code: %w", err)
	}
	return nil
}

// choose moves what is to be removed out of the way, and returns where it is. A lease taken before mu is held here is in
// pins; one given back before has its container in inUse.
func (s *Store) choose(inUse func(id string) bool) (removed []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := os.ReadDir(s.path("trees"))
	if err != nil {
		return nil, err
	}
	type candidate struct {
		id    string
		bytes int64
		used  time.Time
	}
	var idle []candidate
	var total int64
	for _, e := range entries {
		name := e.Name()
		id, _, set := strings.Cut(name, aside)
		if s.pins[id] > 0 || inUse(id) {
			continue // also of one that cannot be read: who made it may have made containers of it
		}
		about, _ := s.describe(name)
		c := candidate{id: name, bytes: about.Bytes}
		if file, err := os.Stat(s.path("trees", name, "info.json")); err == nil && !set {
			c.used = file.ModTime()
		}
		total += c.bytes
		idle = append(idle, c)
	}
	slices.SortFunc(idle, func(a, b candidate) int { return a.used.Compare(b.used) })
	for _, c := range idle {
		if total <= s.cfg.MaxBytes && !c.used.IsZero() {
			break
		}
		to := s.path("tmp", "removed-"+c.id)
		if err := os.Rename(s.path("trees", c.id), to); err != nil {
			return removed, err
		}
		total -= c.bytes
		removed = append(removed, to)
		s.log.Info("unused function code removed", "digest", c.id, "bytes", c.bytes)
	}
	if len(removed) > 0 {
		err = s.forget()
	}
	return removed, err
}

// forget removes the refs to trees that are gone.
func (s *Store) forget() error {
	entries, err := os.ReadDir(s.path("refs"))
	errs := []error{err}
	for _, e := range entries {
		file := s.path("refs", e.Name())
		id, err := os.ReadFile(file)
		if err == nil {
			_, err = os.Stat(s.path("trees", string(id)))
		}
		if errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, os.Remove(file))
		}
	}
	return errors.Join(errs...)
}

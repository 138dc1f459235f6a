package cni

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// addressRest is how long an address that a container had is given to no other: who still believes in the container,
// the gateway until its next heartbeat, asks nobody else instead. Where no other address is left it is shorter, and
// the address that was released first comes first.
const addressRest = time.Minute

// restingOwner is who host-local is told has a resting address. The rest of the file is when the rest began, in Unix
// milliseconds. It is no attachment's id (attachmentID): nothing else takes it for one.
const restingOwner = "resting since "

// rest ends the lease of an attachment and lets its address rest. An attachment without a lease is no error.
func (n *Network) rest(id string) error {
	return n.cfg.withLeases(func(leases map[netip.Addr]string) error {
		now := strconv.FormatInt(time.Now().UnixMilli(), 10)
		for addr, owner := range leases {
			if owner != id {
				continue
			}
			// A crash in the middle leaves a file without an owner, which the next start removes.
			if err := os.WriteFile(n.cfg.leaseFile(addr), []byte(restingOwner+now), 0o600); err != nil {
				return fmt.Errorf("release address %s: %w", addr, err)
			}
		}
		return nil
	})
}

// wake gives the addresses back that have rested for long enough. It looks at them now and then only: it reads all
// leases.
func (n *Network) wake() error {
	n.mu.Lock()
	due := time.Since(n.woke) >= addressRest/4
	if due {
		n.woke = time.Now()
	}
	n.mu.Unlock()
	if !due {
		return nil
	}
	return n.endRest(func(resting map[netip.Addr]time.Time) []netip.Addr {
		var done []netip.Addr
		for addr, since := range resting {
			// One that begins in the future: the clock was set back.
			if age := time.Since(since); age >= addressRest || age < 0 {
				done = append(done, addr)
			}
		}
		return done
	})
}

// wakeOldest gives the address back that has rested the longest, for when there is no other. It is false when none
// rests.
func (n *Network) wakeOldest() (woken bool, err error) {
	err = n.endRest(func(resting map[netip.Addr]time.Time) []netip.Addr {
		var oldest netip.Addr
		for addr, since := range resting {
			if !oldest.IsValid() || since.Before(resting[oldest]) {
				oldest = addr
			}
		}
		if woken = oldest.IsValid(); !woken {
			return nil
		}
		return []netip.Addr{oldest}
	})
	return woken && err == nil, err
}

// endRest releases what pick names of the resting addresses.
func (n *Network) endRest(pick func(map[netip.Addr]time.Time) []netip.Addr) error {
	return n.cfg.withLeases(func(leases map[netip.Addr]string) error {
		resting := make(map[netip.Addr]time.Time)
		for addr, owner := range leases {
			if since, ok := restingSince(owner); ok {
				resting[addr] = since
			}
		}
		for _, addr := range pick(resting) {
			if err := os.Remove(n.cfg.leaseFile(addr)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("give address %s back: %w", addr, err)
			}
		}
		return nil
	})
}

// restingSince reads the owner of a lease; false when that is an attachment.
func restingSince(owner string) (time.Time, bool) {
	text, ok := strings.CutPrefix(owner, restingOwner)
	ms, err := strconv.ParseInt(text, 10, 64)
	return time.UnixMilli(ms), ok && err == nil
}

// lockLeases takes host-local's own lock, so that a lease that is being written is never looked at half. unlock is nil
// when nothing was ever leased.
func (cfg Config) lockLeases() (unlock func(), err error) {
	lock, err := os.OpenFile(filepath.Join(cfg.leaseDir(), "lock"), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the lock of the address leases: %w", err)
	}
	for {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("lock the address leases: %w", err)
	}
	return func() { _ = lock.Close() }, nil
}

// withLeases calls do with all leases, while nobody else writes one. Nothing is called when nothing was ever leased.
func (cfg Config) withLeases(do func(leases map[netip.Addr]string) error) error {
	unlock, err := cfg.lockLeases()
	if err != nil || unlock == nil {
		return err
	}
	defer unlock()
	leases, err := cfg.leases()
	if err != nil {
		return err
	}
	return do(leases)
}

func (cfg Config) leaseFile(addr netip.Addr) string {
	return filepath.Join(cfg.leaseDir(), addr.String())
}

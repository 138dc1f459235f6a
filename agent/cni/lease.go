package cni

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// attachments lists the ids of all attachments of which anything is left: a pin, a lease or a cached result.
func (cfg Config) attachments() (map[string]struct{}, error) {
	ids := make(map[string]struct{})
	add := func(id string) {
		if attachmentID.MatchString(id) {
			ids[id] = struct{}{}
		}
	}
	for _, dir := range []string{cfg.netnsDir(), cfg.usernsDir()} {
		pins, err := readDir(dir)
		if err != nil {
			return nil, fmt.Errorf("list namespaces: %w", err)
		}
		for _, name := range pins {
			add(name)
		}
	}
	results, err := readDir(filepath.Dir(cfg.resultFile("")))
	if err != nil {
		return nil, fmt.Errorf("list cached CNI results: %w", err)
	}
	for _, name := range results {
		id, ok := strings.CutPrefix(name, cfg.networkName()+"-")
		if id, isOurs := strings.CutSuffix(id, "-"+interfaceName); ok && isOurs {
			add(id)
		}
	}
	leases, err := cfg.leases()
	if err != nil {
		return nil, err
	}
	for _, id := range leases {
		add(id)
	}
	return ids, nil
}

// leases reads host-local's files, one an address: the attachment's id, CR LF, and the interface's name
// (containernetworking/plugins v1.9.1, plugins/ipam/host-local/backend/disk).
func (cfg Config) leases() (map[netip.Addr]string, error) {
	names, err := readDir(cfg.leaseDir())
	if err != nil {
		return nil, fmt.Errorf("list address leases: %w", err)
	}
	leases := make(map[netip.Addr]string)
	for _, name := range names {
		addr, err := netip.ParseAddr(name)
		if err != nil {
			continue // The lock, or the address that was given out last.
		}
		content, err := os.ReadFile(filepath.Join(cfg.leaseDir(), name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read an address lease: %w", err)
		}
		id, _, _ := strings.Cut(string(content), "\r\n")
		leases[addr] = strings.TrimSpace(id)
	}
	return leases, nil
}

// dropNamelessLeases removes leases without an owner, as a crash or a power cut leaves between making the file and
// its content reaching the disk. No release ever finds those.
func (n *Network) dropNamelessLeases() error {
	return n.cfg.withLeases(func(leases map[netip.Addr]string) error {
		for addr, id := range leases {
			if _, rests := restingSince(id); rests || attachmentID.MatchString(id) {
				continue
			}
			if err := os.Remove(n.cfg.leaseFile(addr)); err != nil {
				return fmt.Errorf("remove the address lease of nobody: %w", err)
			}
			n.log.Warn("released an address lease of nobody, left by a crash", "ip", addr.String())
		}
		return nil
	})
}

// readDir lists the names in a folder; one that does not exist is empty.
func readDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

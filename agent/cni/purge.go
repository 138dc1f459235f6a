package cni

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/edge-serverless-box/esb/agent/nftables"
)

// Purge removes everything that Networks of this configuration ever made: interfaces, namespaces, leases, bridge and
// firewall. It needs no plugin, works after a crash or a reboot, and may be called again. No Network of this
// configuration may be open. A bridge of that name that is not this stack's stays. IP forwarding stays on.
func Purge(ctx context.Context, cfg Config) error {
	cfg, err := cfg.check()
	if err != nil {
		return err
	}
	bridge, err := cfg.ownBridge()
	var conflict *conflictError
	switch {
	case errors.As(err, &conflict):
		// Another's bridge, and then the firewall of that name is another's too.
		cfg.Logger.Warn("left a bridge alone that is not this stack's", "bridge", cfg.Bridge, "reason", conflict.message)
		return cfg.purgeState(ctx)
	case err != nil:
		return err
	}
	if bridge != nil {
		ports, err := bridgePortsOf(bridge)
		if err != nil {
			return err
		}
		for _, port := range ports {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("remove the function network: %w", err)
			}
			// Something else that a person has plugged in is theirs.
			if port.Type() != "veth" {
				continue
			}
			if err := removeLink(port); err != nil {
				return err
			}
		}
		if err := removeLink(bridge); err != nil {
			return err
		}
	}
	if err := nftables.Remove(cfg.Bridge); err != nil {
		return err
	}
	return cfg.purgeState(ctx)
}

// purgeState lets go of the namespaces and removes the files.
func (cfg Config) purgeState(ctx context.Context) error {
	for _, dir := range []string{cfg.netnsDir(), cfg.usernsDir()} {
		pins, err := readDir(dir)
		if err != nil {
			return fmt.Errorf("list namespaces: %w", err)
		}
		for _, name := range pins {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("remove the function network: %w", err)
			}
			if err := unpin(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	for _, dir := range []string{cfg.netnsDir(), cfg.usernsDir(), cfg.leaseRoot(), cfg.cacheDir()} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove the network's state: %w", err)
		}
	}
	// Only when nothing else is in it.
	if entries, err := os.ReadDir(cfg.StateDir); err == nil && len(entries) == 0 {
		if err := os.Remove(cfg.StateDir); err != nil {
			return fmt.Errorf("remove the network's state: %w", err)
		}
	}
	return nil
}

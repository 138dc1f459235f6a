package preflight

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/edge-serverless-box/esb/guard/netstate"
	"github.com/edge-serverless-box/esb/native"
)

// Network is the function network.
type Network struct {
	Subnet netip.Prefix
	Bridge string
}

// checkNetwork finds interfaces that have the function network's addresses already, by an address or a route.
func checkNetwork(n Network) []error {
	link, err := netlink.LinkByName(n.Bridge)
	var none netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &none) {
		return []error{fmt.Errorf("look up interface %s: %w", n.Bridge, err)}
	}
	if err == nil && link.Type() != "bridge" {
		return []error{&native.Problem{
			What: fmt.Sprintf("a network link %s exists and is no bridge (%s)", n.Bridge, link.Type()),
			Do:   "Set ESB_BRIDGE to another name.",
		}}
	}
	found, err := netstate.Conflicts(n.Subnet, n.Bridge)
	if err != nil {
		return []error{err}
	}
	var errs []error
	for _, use := range found {
		errs = append(errs, &native.Problem{
			What: fmt.Sprintf("the function network %s overlaps %s", n.Subnet, use),
			Do:   "Set ESB_SUBNET to a subnet that is free here, for example 10.99.0.0/16 (and ESB_BRIDGE, when another stack runs).",
		})
	}
	return errs
}

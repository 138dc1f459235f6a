package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"github.com/edge-serverless-box/esb/agent"
	"github.com/edge-serverless-box/esb/agent/nftables"
)

const (
	// interfaceName is the functions' interface.
	interfaceName = "eth0"
	// pluginRuns bounds the plugins that run at once. The kernel takes one change of interfaces at a time (RTNL), so
	// more would only wait there, and burn CPU that starting containers need.
	pluginRuns = 4
	// firewallInterval is how often the firewall is looked at: other programs change theirs, and may take away all there is.
	firewallInterval = 10 * time.Second
	// cleanupTimeout bounds the release of one attachment, which runs without its caller's deadline.
	cleanupTimeout = 30 * time.Second
)

// attachmentID takes what idRanges makes. What comes from outside becomes part of a path, so it is checked.
var attachmentID = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$`)

// Attachment is a place for one container on the function network.
type Attachment struct {
	// ID names the attachment; Detach takes it, also in a later process.
	ID string
	// NetnsPath and UsernsPath are the files of the network namespace and of the user namespace that it belongs to, for the
	// container's OCI spec.
	NetnsPath, UsernsPath string
	// FirstID is the user id, and the group id, of the machine that is 0 in there; IDs from it on are this container's alone.
	FirstID uint32
	// IP is the container's address on the function network.
	IP netip.Addr
}

// Network is the function network. Its methods may be called concurrently.
type Network struct {
	cfg     Config
	log     *slog.Logger
	plugins *libcni.CNIConfig
	list    *libcni.NetworkConfigList
	// unplug is list without addresses: those are not released with their interface but rest (rest.go).
	unplug *libcni.NetworkConfigList
	// running bounds plugin runs.
	running *semaphore.Weighted
	// releases lets two Detach calls of one attachment share the work.
	releases singleflight.Group
	pool     *pool
	ids      idRanges
	// guard keeps the firewall until Close.
	guard sync.WaitGroup
	stop  context.CancelFunc

	// mu guards the following.
	mu sync.Mutex
	// own has the attachments that this Network made and has not released. Reconcile leaves them alone.
	own map[string]struct{}
	// woke is when the resting addresses were last looked through.
	woke time.Time
}

// Open makes the function network: it checks the subnet and the bridge's name against what is on the machine, makes
// bridge and firewall, or takes over those that an earlier process left, and starts to prepare attachments. IP
// forwarding is switched on where it is off, and stays on. Close ends it.
func Open(ctx context.Context, cfg Config) (*Network, error) {
	cfg, err := cfg.check()
	if err != nil {
		return nil, err
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("the function network needs root: run the agent as root")
	}
	if err := cfg.checkPlugins(); err != nil {
		return nil, err
	}
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU()
	}
	list, err := cfg.pluginList(true)
	if err != nil {
		return nil, err
	}
	unplug, err := cfg.pluginList(false)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{cfg.netnsDir(), cfg.usernsDir(), cfg.leaseRoot(), cfg.cacheDir()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make a folder for the network's state: %w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open the function network: %w", err)
	}
	made, err := cfg.openBridge()
	if err != nil {
		return nil, fmt.Errorf("function network: %w", err)
	}
	if err := nftables.Apply(cfg.firewall()); err != nil {
		err = fmt.Errorf("function network: %w", err)
		if made {
			err = errors.Join(err, nftables.Remove(cfg.Bridge), removeLink(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: cfg.Bridge}}))
		}
		return nil, err
	}
	// Given here, because libcni makes its own at the first use without a lock. Without Stderr: it would break the
	// JSON lines of the log, and a failing plugin's words are in its error.
	runner := &invoke.DefaultExec{RawExec: &invoke.RawExec{}}
	n := &Network{
		cfg:     cfg,
		log:     cfg.Logger,
		plugins: libcni.NewCNIConfigWithCacheDir([]string{cfg.PluginDir}, cfg.cacheDir(), runner),
		list:    list,
		unplug:  unplug,
		running: semaphore.NewWeighted(pluginRuns),
		own:     make(map[string]struct{}),
	}
	// The ranges of what an earlier process left stay taken until that is released.
	n.ids.taken = make(map[int]bool)
	left, err := cfg.attachments()
	if err != nil {
		return nil, err
	}
	for id := range left {
		if number, ok := rangeOf(id); ok {
			n.ids.taken[number] = true
		}
	}
	life, stop := context.WithCancel(context.Background())
	n.stop = stop
	n.guard.Go(func() { n.keepFirewall(life) })
	n.pool = startPool(cfg.PoolSize, n.create, n.log)
	return n, nil
}

// keepFirewall looks at the firewall until ctx ends.
func (n *Network) keepFirewall(ctx context.Context) {
	keeper := nftables.NewKeeper(n.cfg.firewall())
	failed := false
	for {
		err := keeper.Look()
		if err != nil && !failed {
			n.log.Error("the firewall of functions cannot be looked at; trying again", "bridge", n.cfg.Bridge, "error", err)
		}
		if failed = err != nil; !wait(ctx, firewallInterval) {
			return
		}
	}
}

// pluginList is the CNI configuration: no masquerading and no firewall there, because nftables does both at once for
// the whole subnet; isolated ports, so that functions do not even see each other's broadcasts.
func (cfg Config) pluginList(addresses bool) (*libcni.NetworkConfigList, error) {
	bridge := map[string]any{
		"type":          "bridge",
		"bridge":        cfg.Bridge,
		"ipMasq":        false,
		"hairpinMode":   false,
		"portIsolation": true,
		"mtu":           cfg.MTU,
	}
	if addresses {
		bridge["isGateway"] = true
		bridge["ipam"] = map[string]any{
			"type":    "host-local",
			"dataDir": cfg.leaseRoot(),
			"ranges":  []any{[]any{map[string]any{"subnet": cfg.Subnet.String(), "gateway": cfg.gateway().String()}}},
			"routes":  []any{map[string]any{"dst": "0.0.0.0/0"}},
		}
	}
	doc, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": cfg.networkName(), "plugins": []any{bridge},
	})
	if err != nil {
		return nil, fmt.Errorf("build the CNI configuration: %w", err)
	}
	list, err := libcni.NetworkConfFromBytes(doc)
	if err != nil {
		return nil, fmt.Errorf("build the CNI configuration: %w", err)
	}
	return list, nil
}

// Gateway returns the box's address on the function network, the first of the subnet.
func (n *Network) Gateway() netip.Addr { return n.cfg.gateway() }

// Attach returns an attachment of the caller's own: a prepared one when there is one, else it makes one. When the
// subnet is used up the error has agent.CodeExhausted; after Close, agent.CodeUnavailable.
func (n *Network) Attach(ctx context.Context) (Attachment, error) {
	a, ok, err := n.pool.take()
	if ok || err != nil {
		return a, err
	}
	a, err = n.create(ctx)
	if agent.ErrorCode(err) == agent.CodeExhausted {
		// The last address may have gone into the pool just now.
		if prepared, ok, _ := n.pool.take(); ok {
			return prepared, nil
		}
	}
	return a, err
}

// Detach releases an attachment: interface, address and namespace. It may be called twice, for one that is gone, and
// after a reboot. It runs to its end also when ctx ends before, so that nothing is half released.
func (n *Network) Detach(ctx context.Context, id string) error {
	if !attachmentID.MatchString(id) {
		return agent.Errorf(agent.CodeInvalid, "%q is not the id of a network attachment", id)
	}
	_, err, _ := n.releases.Do(id, func() (any, error) { return nil, n.release(ctx, id) })
	return err
}

// Reconcile releases each attachment, in use by none of the live ids, that an earlier process left: namespace,
// interface and address lease. Attachments that this Network made are not touched. Call it once at the start.
func (n *Network) Reconcile(ctx context.Context, live []string) error {
	keep := make(map[string]struct{}, len(live))
	for _, id := range live {
		keep[id] = struct{}{}
	}
	found, err := n.cfg.attachments()
	if err != nil {
		return err
	}
	if err := n.dropNamelessLeases(); err != nil {
		return err
	}
	group := new(errgroup.Group)
	group.SetLimit(pluginRuns)
	released := 0
	for id := range found {
		if _, ok := keep[id]; ok || n.isOwn(id) {
			continue
		}
		released++
		group.Go(func() error { return n.Detach(ctx, id) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("release network attachments that no container uses: %w", err)
	}
	if released > 0 {
		n.log.Info("released network attachments of an earlier run", "count", released)
	}
	return nil
}

// Close ends the background work and releases the prepared attachments. Those that were handed out stay, and so do
// bridge and firewall: containers outlive the agent. Purge removes everything.
func (n *Network) Close() error {
	n.stop()
	n.guard.Wait()
	unused := n.pool.close()
	group := new(errgroup.Group)
	group.SetLimit(pluginRuns)
	for _, a := range unused {
		group.Go(func() error { return n.Detach(context.Background(), a.ID) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("release prepared network attachments: %w", err)
	}
	return nil
}

// create makes an attachment. A step that fails undoes those before.
func (n *Network) create(ctx context.Context) (Attachment, error) {
	if err := n.running.Acquire(ctx, 1); err != nil {
		return Attachment{}, contextError(err)
	}
	defer n.running.Release(1)

	if err := n.wake(); err != nil {
		return Attachment{}, agent.Errorf(agent.CodeInternal, "network: %w", err)
	}
	for {
		a, err := n.make(ctx)
		if agent.ErrorCode(err) != agent.CodeExhausted {
			return a, err
		}
		woken, wakeErr := n.wakeOldest()
		if wakeErr != nil {
			return Attachment{}, agent.Errorf(agent.CodeInternal, "network: %w", wakeErr)
		}
		if !woken {
			return Attachment{}, err
		}
	}
}

// make makes an attachment with an address that does not rest.
func (n *Network) make(ctx context.Context) (Attachment, error) {
	id, err := n.ids.newID()
	if err != nil {
		return Attachment{}, err
	}
	a := Attachment{ID: id, NetnsPath: n.cfg.netnsPath(id), UsernsPath: n.cfg.usernsPath(id), FirstID: n.cfg.firstID(id)}
	n.setOwn(a.ID, true)
	if err := pinNamespaces(a.NetnsPath, a.UsernsPath, a.FirstID); err != nil {
		n.setOwn(a.ID, false)
		n.ids.release(a.ID)
		return Attachment{}, agent.Errorf(agent.CodeInternal, "network: %w", err)
	}
	ip, err := n.addInterface(ctx, a)
	if err == nil {
		a.IP = ip
		return a, nil
	}
	if undoErr := n.undo(ctx, a.ID); undoErr != nil {
		n.log.Error("could not undo a failed network attachment; the next start of the agent will", "attachment", a.ID, "error", undoErr)
	}
	return Attachment{}, n.explain(ctx, err)
}

// addInterface runs the plugins.
func (n *Network) addInterface(ctx context.Context, a Attachment) (netip.Addr, error) {
	result, err := n.plugins.AddNetworkList(ctx, n.list, n.runtimeConf(a.ID, a.NetnsPath))
	if err != nil {
		return netip.Addr{}, err
	}
	converted, err := types100.NewResultFromResult(result)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("read the result of the CNI plugin: %w", err)
	}
	ip, mac, err := endOf(converted)
	if err != nil {
		return netip.Addr{}, err
	}
	return ip, n.cfg.setNeighbour(ip, mac)
}

// endOf finds the container's addresses in the result of the plugins.
func endOf(result *types100.Result) (netip.Addr, net.HardwareAddr, error) {
	if len(result.IPs) == 0 {
		return netip.Addr{}, nil, errors.New("the CNI plugin returned no address")
	}
	ip, ok := netip.AddrFromSlice(result.IPs[0].Address.IP)
	if !ok {
		return netip.Addr{}, nil, fmt.Errorf("the CNI plugin returned the address %q", result.IPs[0].Address.String())
	}
	for _, i := range result.Interfaces {
		if i.Sandbox == "" {
			continue
		}
		mac, err := net.ParseMAC(i.Mac)
		if err != nil {
			return netip.Addr{}, nil, fmt.Errorf("the CNI plugin returned the hardware address %q: %w", i.Mac, err)
		}
		return ip.Unmap(), mac, nil
	}
	return netip.Addr{}, nil, errors.New("the CNI plugin returned no interface of the container's")
}

// explain turns a plugin's failure into an error for the agent's callers.
func (n *Network) explain(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return contextError(ctx.Err())
	// The plugins have no codes for these two; the texts are those of host-local v1.9.1 and of EXFULL.
	case strings.Contains(err.Error(), "no IP addresses available"):
		return agent.Errorf(agent.CodeExhausted, "the function subnet %s has no free address: remove functions, or set ESB_SUBNET to a larger network", n.cfg.Subnet)
	case strings.Contains(err.Error(), "exchange full"):
		return agent.Errorf(agent.CodeExhausted, "bridge %s of the function subnet %s is full: it takes %d containers", n.cfg.Bridge, n.cfg.Subnet, bridgePorts)
	}
	return agent.Errorf(agent.CodeInternal, "attach a container to the function network: %w", err)
}

func contextError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return agent.Errorf(agent.CodeDeadline, "the container had no network in time: %w", err)
	}
	return agent.Errorf(agent.CodeCanceled, "the caller left before the container had a network: %w", err)
}

// release waits for a free plugin run and undoes an attachment.
func (n *Network) release(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	if err := n.running.Acquire(ctx, 1); err != nil {
		return agent.Errorf(agent.CodeInternal, "release network attachment %s: %w", id, err)
	}
	defer n.running.Release(1)
	return n.undo(ctx, id)
}

// undo removes what there is of an attachment, with a context of its own. Its files go last: as long as one is
// there, Reconcile finds the attachment and tries again.
func (n *Network) undo(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	path := n.cfg.netnsPath(id)
	netns := path
	made, err := n.cachedResult(id)
	if err == nil && !isPinned(path) {
		// The plugin would fail on a path that is no namespace; without one it does nothing. The interface is gone
		// with the namespace, unless a process still holds that.
		netns = ""
		err = n.removeHostInterface(made)
	}
	if err == nil && made != nil && len(made.IPs) > 0 {
		if ip, ok := netip.AddrFromSlice(made.IPs[0].Address.IP); ok {
			err = n.cfg.dropNeighbour(ip.Unmap())
		}
	}
	if err == nil {
		// Forgets the result too.
		err = n.plugins.DelNetworkList(ctx, n.unplug, n.runtimeConf(id, netns))
	}
	if err == nil {
		err = n.rest(id)
	}
	if err == nil {
		err = errors.Join(unpin(n.cfg.usernsPath(id)), unpin(path))
	}
	if err != nil {
		return agent.Errorf(agent.CodeInternal, "release network attachment %s: %w", id, err)
	}
	n.setOwn(id, false)
	n.ids.release(id)
	return nil
}

// cachedResult is what the plugins said when they made an attachment, nil when that is not known.
func (n *Network) cachedResult(id string) (*types100.Result, error) {
	result, err := n.plugins.GetNetworkListCachedResult(n.list, n.runtimeConf(id, ""))
	if err != nil {
		// As a power cut leaves it, and then there is no interface any more.
		n.log.Warn("the cached CNI result of a network attachment cannot be read", "attachment", id, "error", err)
	}
	if result == nil {
		return nil, nil
	}
	converted, err := types100.NewResultFromResult(result)
	if err != nil {
		return nil, fmt.Errorf("read the cached CNI result: %w", err)
	}
	return converted, nil
}

// removeHostInterface deletes the box's end of an attachment's veth pair.
func (n *Network) removeHostInterface(made *types100.Result) error {
	if made == nil {
		return nil
	}
	bridge, err := n.cfg.ownBridge()
	if err != nil || bridge == nil {
		return err
	}
	for _, i := range made.Interfaces {
		link, err := netlink.LinkByName(i.Name)
		if i.Sandbox != "" || err != nil || link.Type() != "veth" || link.Attrs().MasterIndex != bridge.Attrs().Index {
			continue
		}
		if err := removeLink(link); err != nil {
			return err
		}
	}
	return nil
}

func (n *Network) runtimeConf(id, netns string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: id, NetNS: netns, IfName: interfaceName}
}

func (n *Network) setOwn(id string, own bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if own {
		n.own[id] = struct{}{}
	} else {
		delete(n.own, id)
	}
}

func (n *Network) isOwn(id string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	_, ok := n.own[id]
	return ok
}

// resultFile matches libcni's cache: <network>-<container>-<interface>.
func (cfg Config) resultFile(id string) string {
	return filepath.Join(cfg.cacheDir(), "results", cfg.networkName()+"-"+id+"-"+interfaceName)
}

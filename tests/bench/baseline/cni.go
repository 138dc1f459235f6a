package baseline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
)

// CNI is the network that a straightforward program gives its containers: the plugins bridge and host-local, started for each, and the
// masquerading of iptables where the machine has that.
type CNI struct {
	config *libcni.CNIConfig
	list   *libcni.NetworkConfigList
	bridge string
	// Masquerades says that iptables takes part.
	Masquerades bool
}

// OpenCNI makes a network of the plugins in a folder, with a bridge and a subnet ("10.97.3") that nothing else uses; what it keeps is in dir.
// Close removes it.
func OpenCNI(plugins, dir, bridge, subnet string) (*CNI, error) {
	_, err := exec.LookPath("iptables")
	n := &CNI{bridge: bridge, Masquerades: err == nil, config: libcni.NewCNIConfigWithCacheDir([]string{plugins}, filepath.Join(dir, "cache"), nil)}
	n.list, err = libcni.NetworkConfFromBytes(fmt.Appendf(nil, `{"cniVersion":"1.0.0","name":%q,"plugins":[{"type":"bridge","bridge":%q,"isGateway":true,"ipMasq":%t,
		"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"%s.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`,
		bridge, bridge, n.Masquerades, filepath.Join(dir, "leases"), subnet))
	if err != nil {
		return nil, fmt.Errorf("make a network of CNI's plugins: %w", err)
	}
	return n, os.MkdirAll(dir, 0o755)
}

func (n *CNI) add(ctx context.Context, id, netns string) (ip string, err error) {
	result, err := n.config.AddNetworkList(ctx, n.list, &libcni.RuntimeConf{ContainerID: id, NetNS: netns, IfName: "eth0"})
	if err != nil {
		return "", fmt.Errorf("connect %s by CNI's plugins: %w", id, err)
	}
	current, err := types100.GetResult(result)
	if err != nil {
		return "", err
	}
	if len(current.IPs) == 0 {
		return "", fmt.Errorf("connect %s by CNI's plugins: it has got no address", id)
	}
	return current.IPs[0].Address.IP.String(), nil
}

func (n *CNI) del(ctx context.Context, id, netns string) error {
	return n.config.DelNetworkList(ctx, n.list, &libcni.RuntimeConf{ContainerID: id, NetNS: netns, IfName: "eth0"})
}

// Close removes the bridge.
func (n *CNI) Close() error {
	link, err := netlink.LinkByName(n.bridge)
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return nil // nothing was connected
	}
	if err != nil {
		return fmt.Errorf("find the bridge %s: %w", n.bridge, err)
	}
	return netlink.LinkDel(link)
}

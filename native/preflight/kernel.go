package preflight

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/edge-serverless-box/esb/guard/ownthread"
	"github.com/edge-serverless-box/esb/native"
)

// checkKernel tries the features that containers need.
func checkKernel() []error {
	errs := []error{
		checkOverlay("/proc/filesystems"), checkSeccomp("/proc/sys/kernel/seccomp/actions_avail"),
		checkUserNamespaces("/proc/sys/user/max_user_namespaces"),
	}
	return append(errs, ownthread.Do(tryNamespace))
}

func checkOverlay(filesystems string) error {
	if hasFilesystem(filesystems, "overlay") {
		return nil
	}
	// The file lists loaded file systems only. What modprobe says does not matter, the list does.
	_ = exec.Command("modprobe", "overlay").Run()
	if hasFilesystem(filesystems, "overlay") {
		return nil
	}
	return &native.Problem{
		What: "the kernel has no overlayfs (" + filesystems + " does not list overlay)",
		Do:   "Load it (modprobe overlay), or use a kernel with CONFIG_OVERLAY_FS.",
	}
}

func hasFilesystem(file, name string) bool {
	data, err := os.ReadFile(file)
	return err == nil && slices.Contains(strings.Fields(string(data)), name)
}

func checkSeccomp(actions string) error {
	if _, err := os.Stat(actions); err != nil {
		return &native.Problem{
			What: "the kernel cannot filter system calls (" + actions + " is missing)",
			Do:   "Use a kernel with CONFIG_SECCOMP_FILTER: functions are not run without it.",
		}
	}
	return nil
}

// checkUserNamespaces makes sure that functions can be users of their own.
func checkUserNamespaces(limit string) error {
	data, err := os.ReadFile(limit)
	if err != nil {
		return &native.Problem{
			What: "the kernel has no user namespaces (" + limit + " is missing)",
			Do:   "Use a kernel with CONFIG_USER_NS: functions are not run as root.",
		}
	}
	if strings.TrimSpace(string(data)) == "0" {
		return &native.Problem{
			What: "no user namespace may be made (" + limit + " is 0)",
			Do:   "Set user.max_user_namespaces to 10000 or more (sysctl -w, and /etc/sysctl.d): functions are not run as root.",
		}
	}
	return nil
}

// tryNamespace makes what a function container's network is made of, in namespaces of the calling thread.
func tryNamespace() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return &native.Problem{
			What: fmt.Sprintf("network and mount namespaces cannot be made (%v)", err),
			Do:   "Run on a machine, or in a privileged container, whose root has CAP_SYS_ADMIN and whose kernel has CONFIG_NET_NS.",
		}
	}
	var errs []error
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "esbcheck0"}}
	if err := netlink.LinkAdd(bridge); err != nil {
		errs = append(errs, missing("bridges", "bridge", "CONFIG_BRIDGE", err))
	}
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "esbcheck1"}, PeerName: "esbcheck2"}
	if err := netlink.LinkAdd(veth); err != nil {
		errs = append(errs, missing("veth pairs", "veth", "CONFIG_VETH", err))
	}
	if err := tryNftables(); err != nil {
		errs = append(errs, missing("nftables rules", "nf_tables", "CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET", err))
	}
	return errors.Join(errs...)
}

func tryNftables() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.AddTable(&nftables.Table{Name: "esbcheck", Family: nftables.TableFamilyINet})
	return conn.Flush()
}

func missing(what, module, config string, err error) error {
	return &native.Problem{
		What: fmt.Sprintf("the kernel cannot make %s (%v)", what, err),
		Do:   fmt.Sprintf("Load the module (modprobe %s), or use a kernel with %s.", module, config),
	}
}

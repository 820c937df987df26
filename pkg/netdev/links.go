// Package netdev gives tasks their network interface: a veth pair between the
// node's namespace and the task's, with its addresses, routes and neighbours,
// and what the node itself needs around it: forwarding, the address that DNS
// answers on, masquerading to the outside, and nothing but answers from there.
//
// Packets between tasks never reach the kernel's routing: an eBPF program on
// the host side of each pair handles them. What is set up here carries the
// rest, task to node and task to outside.
package netdev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
)

// Gateway is the next hop of every task. No interface holds it: a permanent
// neighbour entry in the task's namespace leads to the host side of its pair.
var Gateway = netip.MustParseAddr("169.254.1.1")

// taskDevice is what a task calls its interface.
const taskDevice = "eth0"

// devicePrefix begins the name of the host side of each pair.
const devicePrefix = "orc"

// Config says what the node looks like.
type Config struct {
	// Uplink is the device towards the other nodes and the outside.
	Uplink string
	// TaskMTU in bytes; 0: the uplink's less the overlay's overhead.
	TaskMTU int
	// DNSAddr is where the node's DNS server listens for tasks.
	DNSAddr netip.Addr
	// Pool holds all task addresses and virtual IPs of the cluster.
	Pool netip.Prefix
	// Pool6 is the prefix of their IPv6 addresses (api.Pool6); without it they
	// have none.
	Pool6 netip.Prefix
	// Owner is a short tag that tells our interfaces from those of another
	// cluster in the same namespace; "orch" if empty.
	Owner string
	// Sysctl sets a setting of the node, by its path below /proc/sys. Who wants to
	// put back what was changed gives one that notes it.
	Sysctl func(key, value string) error
}

// Links are the task interfaces of the node whose namespace the process is in.
// There is no state beside the kernel's: a new process finds what an earlier
// one made. Methods may be called concurrently for different tasks.
type Links struct {
	cfg Config
}

// New returns the links of a node. It touches nothing.
func New(cfg Config) *Links {
	if cfg.Owner == "" {
		cfg.Owner = "orch"
	}
	if cfg.Sysctl == nil {
		cfg.Sysctl = sysctl
	}
	return &Links{cfg: cfg}
}

// Setup makes the node ready for tasks. It is idempotent, and changes nothing
// that is already as it should be.
func (l *Links) Setup(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := l.addDNSAddr(); err != nil {
		return fmt.Errorf("add address %s: %w", l.cfg.DNSAddr, err)
	}
	if err := l.cfg.Sysctl("net/ipv4/ip_forward", "1"); err != nil {
		return err
	}
	if err := l.setupIPv6(); err != nil {
		return fmt.Errorf("set up IPv6: %w", err)
	}
	if err := l.setTables(); err != nil {
		return fmt.Errorf("masquerade %s on %s, and guard it: %w", l.cfg.Pool, l.cfg.Uplink, err)
	}
	if err := l.letThrough(); err != nil {
		return fmt.Errorf("let %s through the engine's firewall: %w", l.cfg.Pool, err)
	}
	return nil
}

// Purge removes all that Setup and Attach made, but leaves settings as they are:
// others may have come to need them.
func (l *Links) Purge(ctx context.Context) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, link := range links {
		_, ours := l.taskOf(link)
		if !ours && !halfMade(link) {
			continue
		}
		if err := deleteLink(link); err != nil {
			errs = append(errs, fmt.Errorf("delete %s: %w", link.Attrs().Name, err))
		}
	}
	if err := removeNowhere6(); err != nil {
		errs = append(errs, fmt.Errorf("delete the IPv6 route of last resort: %w", err))
	}
	if err := removeTables(); err != nil {
		errs = append(errs, fmt.Errorf("delete nftables table: %w", err))
	}
	if err := removeLetThrough(); err != nil {
		errs = append(errs, err)
	}
	if err := l.removeDNSAddr(); err != nil {
		errs = append(errs, fmt.Errorf("delete address %s: %w", l.cfg.DNSAddr, err))
	}
	return errors.Join(append(errs, ctx.Err())...)
}

// List returns the interface index of the host side of each task's pair.
func (l *Links) List(ctx context.Context) (map[api.TaskID]int, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	tasks := make(map[api.TaskID]int)
	for _, link := range links {
		if task, ours := l.taskOf(link); ours {
			tasks[task] = link.Attrs().Index
		}
	}
	return tasks, nil
}

// DeviceName is the name of the host side of a task's pair. A name has 15
// bytes at most, so it has the end of the task's ID; the interface's alias has
// all of it.
func DeviceName(task api.TaskID) string {
	id := string(task)
	if room := unix.IFNAMSIZ - 1 - len(devicePrefix); len(id) > room {
		id = id[len(id)-room:]
	}
	return devicePrefix + id
}

func (l *Links) alias(task api.TaskID) string {
	return "orch:" + l.cfg.Owner + ":" + string(task)
}

// taskOf reports which of our tasks a link belongs to.
func (l *Links) taskOf(link netlink.Link) (api.TaskID, bool) {
	if link.Type() != "veth" {
		return "", false
	}
	id, ours := strings.CutPrefix(link.Attrs().Alias, l.alias(""))
	return api.TaskID(id), ours
}

// halfMade reports whether a link was created by Attach, which then died
// before it could set the alias.
func halfMade(link netlink.Link) bool {
	attrs := link.Attrs()
	return link.Type() == "veth" && attrs.Alias == "" &&
		strings.HasPrefix(attrs.Name, devicePrefix) && hardwareAddr(Gateway).String() == attrs.HardwareAddr.String()
}

func deleteLink(link netlink.Link) error {
	err := netlink.LinkDel(link)
	if errors.Is(err, unix.ENODEV) || isNotFound(err) {
		return nil // the task's namespace went away in the same moment
	}
	return err
}

func (l *Links) addDNSAddr() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	return netlink.AddrReplace(lo, hostAddr(l.cfg.DNSAddr))
}

func (l *Links) removeDNSAddr() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	err = netlink.AddrDel(lo, hostAddr(l.cfg.DNSAddr))
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	return err
}

// hostAddr is an address of the node alone. Its scope keeps the kernel from
// choosing it as the source of packets to tasks.
func hostAddr(addr netip.Addr) *netlink.Addr {
	return &netlink.Addr{IPNet: single(addr), Scope: unix.RT_SCOPE_HOST}
}

// single is addr as a network of one address.
func single(addr netip.Addr) *net.IPNet {
	return &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}
}

func hardwareAddr(addr netip.Addr) net.HardwareAddr {
	mac := api.EndpointMAC(addr)
	return mac[:]
}

// sysctl sets a value of the calling thread's network namespace; key is
// written with slashes.
func sysctl(key, value string) error {
	path := "/proc/sys/" + key
	if now, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(now)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", strings.ReplaceAll(key, "/", "."), value, err)
	}
	return nil
}

func isNotFound(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}

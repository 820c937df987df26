// Package wireguard makes the devices that encrypt what a node sends to others,
// and gives them their keys and peers.
//
// A device's peers are the other nodes, and what may be sent to one and taken from
// it is its underlay address alone: the device gets whole VXLAN packets as they
// would else have left, and puts each into another between the same two nodes. No
// route leads to it. The programs of the data plane hand it what is to be
// encrypted, and take what it has opened.
//
// A node makes its key itself. The private half is in the kernel and nowhere
// else: it lives as long as the device does. While keys are replaced there are two
// devices, of one epoch and of the next.
//
// There is no state beside the kernel's: a new process finds what an earlier one
// made. All of it happens in the network namespace of the calling thread.
package wireguard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/orch-dev/orch/pkg/api"
)

// devicePrefix begins the names of the devices, which end with 0 or 1.
const devicePrefix = "orch-wg"

// deviceOf is the name of the device of an epoch. The one before it, and the one
// after, have the other name.
func deviceOf(epoch uint64) string { return devicePrefix + strconv.FormatUint(epoch%2, 10) }

// portOf is the UDP port of the device of an epoch.
func portOf(epoch uint64) int { return api.TunnelPort + int(epoch%2) }

// Tunnels are the WireGuard devices of a node. Its methods may be called from
// several goroutines.
type Tunnels struct {
	uplink string
	owner  string

	mu   sync.Mutex
	idle bool // there are no devices, and none are wanted
}

// New returns the devices of a node that reaches the others by the device uplink.
// Owner tells them from those of another cluster. It touches nothing.
func New(uplink, owner string) *Tunnels { return &Tunnels{uplink: uplink, owner: owner} }

// Lacks says why the kernel has no WireGuard; "" if it has. It tries to make a
// device, which also loads the module where there is one.
func Lacks() string {
	const probe = "orch-wg-probe"
	attrs := netlink.NewLinkAttrs()
	attrs.Name = probe
	err := netlink.LinkAdd(&netlink.Wireguard{LinkAttrs: attrs})
	if errors.Is(err, unix.EEXIST) {
		err = nil // another was just trying, or died over it
	}
	if err == nil {
		err = deleteDevice(probe)
	}
	switch {
	case err == nil:
		return ""
	case errors.Is(err, unix.EOPNOTSUPP):
		return "its kernel has no WireGuard: `modprobe wireguard`, or a kernel with CONFIG_WIREGUARD (Linux 5.6)"
	}
	return fmt.Sprintf("WireGuard cannot be used: %v", err)
}

// Apply makes the devices and peers be what the plan says, and returns the
// indexes of the interfaces in the order of the plan's epochs. One that cannot be
// made has 0, and the error says why.
func (t *Tunnels) Apply(plan api.NetworkPlan) ([]int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.idle && len(plan.Tunnels.Epochs) == 0 {
		return nil, nil
	}
	t.idle = false
	err := t.remove(plan.Tunnels.Epochs)
	if len(plan.Tunnels.Epochs) == 0 {
		t.idle = err == nil
		return nil, err
	}
	control, openErr := wgctrl.New()
	if openErr != nil {
		return make([]int, len(plan.Tunnels.Epochs)), errors.Join(err, fmt.Errorf("open the control of WireGuard: %w", openErr))
	}
	defer control.Close()
	var devices []int
	for _, epoch := range plan.Tunnels.Epochs {
		index, deviceErr := t.apply(control, epoch, plan)
		if deviceErr != nil {
			err = errors.Join(err, fmt.Errorf("device %s: %w", deviceOf(epoch), deviceErr))
		}
		devices = append(devices, index)
	}
	return devices, err
}

// apply makes the device of one epoch and gives it its peers.
func (t *Tunnels) apply(control *wgctrl.Client, epoch uint64, plan api.NetworkPlan) (int, error) {
	link, err := t.ensure(control, epoch)
	if err != nil {
		return 0, err
	}
	device, err := control.Device(link.Attrs().Name)
	if err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	if changes := peerChanges(device.Peers, wantedPeers(plan, epoch)); len(changes) > 0 {
		if err := control.ConfigureDevice(device.Name, wgtypes.Config{Peers: changes}); err != nil {
			return 0, fmt.Errorf("set peers: %w", err)
		}
	}
	return link.Attrs().Index, nil
}

// ensure makes the device of an epoch, with a key of its own, unless it is there.
func (t *Tunnels) ensure(control *wgctrl.Client, epoch uint64) (netlink.Link, error) {
	mtu, err := t.mtu()
	if err != nil {
		return nil, err
	}
	link, err := t.find(epoch)
	if err != nil {
		return nil, err
	}
	if link == nil {
		if link, err = t.create(control, epoch, mtu); err != nil {
			return nil, errors.Join(err, deleteDevice(deviceOf(epoch)))
		}
	}
	if link.Attrs().MTU != mtu {
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return nil, fmt.Errorf("set MTU: %w", err)
		}
	}
	return link, nil
}

// mtu is that of the devices: what is left of the uplink's.
func (t *Tunnels) mtu() (int, error) {
	uplink, err := netlink.LinkByName(t.uplink)
	if err != nil {
		return 0, fmt.Errorf("look up uplink %s: %w", t.uplink, err)
	}
	return uplink.Attrs().MTU - api.TunnelOverhead, nil
}

// create makes the device of an epoch, and a key for it.
func (t *Tunnels) create(control *wgctrl.Client, epoch uint64, mtu int) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = deviceOf(epoch), mtu
	link := &netlink.Wireguard{LinkAttrs: attrs}
	if err := netlink.LinkAdd(link); err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	port := portOf(epoch)
	if err := control.ConfigureDevice(attrs.Name, wgtypes.Config{PrivateKey: &key, ListenPort: &port}); err != nil {
		return nil, fmt.Errorf("set key and port: %w", err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			return nil, fmt.Errorf("UDP port %d is another's: %w", port, err)
		}
		return nil, fmt.Errorf("set up: %w", err)
	}
	// Last: a device without its alias is not finished.
	if err := netlink.LinkSetAlias(link, t.alias(epoch)); err != nil {
		return nil, fmt.Errorf("set alias: %w", err)
	}
	return netlink.LinkByName(attrs.Name)
}

// alias says whose a device is, and of which epoch.
func (t *Tunnels) alias(epoch uint64) string {
	return "orch:" + t.owner + ":" + strconv.FormatUint(epoch, 10)
}

// epochOf is the inverse of alias.
func (t *Tunnels) epochOf(link netlink.Link) (uint64, bool) {
	text, ours := strings.CutPrefix(link.Attrs().Alias, "orch:"+t.owner+":")
	epoch, err := strconv.ParseUint(text, 10, 64)
	return epoch, ours && err == nil
}

// find gives the device of an epoch, or nil. One of another epoch, or half made,
// is in the way and is deleted.
func (t *Tunnels) find(epoch uint64) (netlink.Link, error) {
	link, err := lookUp(deviceOf(epoch))
	if err != nil || link == nil {
		return nil, err
	}
	of, ours := t.epochOf(link)
	switch {
	case ours && of == epoch:
		return link, nil
	case ours || link.Type() == "wireguard" && link.Attrs().Alias == "":
		return nil, deleteDevice(link.Attrs().Name)
	}
	return nil, fmt.Errorf("there is one that is not of this cluster (alias %q)", link.Attrs().Alias)
}

// remove deletes the devices of other epochs.
func (t *Tunnels) remove(keep []uint64) error {
	var err error
	for i := range uint64(2) {
		link, lookErr := lookUp(deviceOf(i))
		if lookErr != nil || link == nil {
			err = errors.Join(err, lookErr)
			continue
		}
		if epoch, ours := t.epochOf(link); ours && !slices.Contains(keep, epoch) {
			err = errors.Join(err, deleteDevice(link.Attrs().Name))
		}
	}
	return err
}

// Purge deletes all devices, and the keys with them.
func (t *Tunnels) Purge() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.remove(nil)
}

// Keys are the public keys of the devices that are there, by epoch.
func (t *Tunnels) Keys() ([]api.TunnelKey, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.idle {
		return nil, nil
	}
	var keys []api.TunnelKey
	for i := range uint64(2) {
		link, err := lookUp(deviceOf(i))
		if err != nil {
			return nil, err
		}
		if link == nil {
			continue
		}
		epoch, ours := t.epochOf(link)
		if !ours {
			continue
		}
		public, err := publicKey(link.Attrs().Name)
		if err != nil {
			return nil, err
		}
		keys = append(keys, api.TunnelKey{Epoch: epoch, Public: public})
	}
	slices.SortFunc(keys, func(a, b api.TunnelKey) int { return int(int64(a.Epoch - b.Epoch)) })
	return keys, nil
}

func publicKey(device string) ([]byte, error) {
	control, err := wgctrl.New()
	if err != nil {
		return nil, fmt.Errorf("open the control of WireGuard: %w", err)
	}
	defer control.Close()
	d, err := control.Device(device)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", device, err)
	}
	return d.PublicKey[:], nil
}

// wantedPeers are the other nodes that have a key of the epoch: where the device of
// each is, by its key.
func wantedPeers(plan api.NetworkPlan, epoch uint64) map[wgtypes.Key]netip.AddrPort {
	peers := make(map[wgtypes.Key]netip.AddrPort)
	for _, m := range plan.Members {
		if m.Node == plan.Node {
			continue
		}
		for _, key := range m.Keys {
			if key.Epoch == epoch && len(key.Public) == wgtypes.KeyLen {
				peers[wgtypes.Key(key.Public)] = netip.AddrPortFrom(m.Addr, uint16(portOf(epoch)))
			}
		}
	}
	return peers
}

// peerChanges leads from the peers that a device has to those wanted. What goes
// comes first, as an address belongs to one peer.
func peerChanges(have []wgtypes.Peer, want map[wgtypes.Key]netip.AddrPort) []wgtypes.PeerConfig {
	var changes []wgtypes.PeerConfig
	known := make(map[wgtypes.Key]bool)
	for _, p := range have {
		at, wanted := want[p.PublicKey]
		switch {
		case !wanted:
			changes = append(changes, wgtypes.PeerConfig{PublicKey: p.PublicKey, Remove: true})
		case isAt(p, at):
			known[p.PublicKey] = true
		}
	}
	for key, at := range want {
		if known[key] {
			continue
		}
		changes = append(changes, wgtypes.PeerConfig{
			PublicKey: key, Endpoint: net.UDPAddrFromAddrPort(at),
			ReplaceAllowedIPs: true, AllowedIPs: []net.IPNet{single(at.Addr())},
		})
	}
	return changes
}

// isAt reports whether a peer is set up to be at that place. What it was heard from
// last, if that differs, is put right.
func isAt(p wgtypes.Peer, at netip.AddrPort) bool {
	only := single(at.Addr())
	return p.Endpoint != nil && p.Endpoint.String() == at.String() &&
		len(p.AllowedIPs) == 1 && p.AllowedIPs[0].String() == only.String()
}

// single is the range of one address.
func single(addr netip.Addr) net.IPNet {
	return net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(addr.BitLen(), addr.BitLen())}
}

// lookUp gives a device by its name, nil if there is none.
func lookUp(name string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", name, err)
	}
	return link, nil
}

// deleteDevice deletes a device, if it is there.
func deleteDevice(name string) error {
	link, err := lookUp(name)
	if err != nil || link == nil {
		return err
	}
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return nil
}

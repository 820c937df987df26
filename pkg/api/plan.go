package api

import (
	"net/netip"
	"slices"
)

// NetworkPlan is all that one node's data plane has to know: the whole desired
// state, never a change to it. Applying the same plan twice changes nothing.
// Slices are in a defined order (by address, then port), so that equal plans
// compare equal.
type NetworkPlan struct {
	// Generation is the index of the cluster state the plan was made from;
	// once it is in the kernel the node acknowledges it.
	Generation Index
	Node       NodeID
	// Underlay is the node's own address, Pool the range of task addresses and
	// virtual IPs.
	Underlay netip.Addr
	Pool     netip.Prefix
	// Pool6 is the prefix of the cluster's IPv6 addresses, see Address6; unset:
	// it has none.
	Pool6 netip.Prefix
	// Members are all nodes of the cluster, this one included: VXLAN from any
	// other source is dropped.
	Members   []Member
	Endpoints []PlanEndpoint
	Frontends []Frontend
	Tunnels   TunnelPlan
}

// Published are the ports of the node that clients connect to, of any address and
// protocol, ascending.
func (p *NetworkPlan) Published() []uint16 {
	var ports []uint16
	for _, f := range p.Frontends {
		if !f.Virtual() {
			ports = append(ports, f.Port)
		}
	}
	slices.Sort(ports)
	return slices.Compact(ports)
}

// Member is a node as the overlay sees it.
type Member struct {
	Node NodeID
	Addr netip.Addr
	// Keys are its public keys of the plan's epochs, ascending.
	Keys []TunnelKey
}

// TunnelPlan says which WireGuard devices a node has, and by which it sends.
type TunnelPlan struct {
	// Epochs are those of the devices, ascending: at most two, one after the
	// other. None: no network is encrypted.
	Epochs []uint64
	// Send is the epoch of the device to send by.
	Send uint64
	// Devices are the indexes of the interfaces, in the order of Epochs; 0 stands
	// for one that could not be made. Who makes the devices fills it in.
	Devices []int
}

// SendDevice is the index of the interface to send by, 0 if there is none.
func (t TunnelPlan) SendDevice() int {
	for i, epoch := range t.Epochs {
		if epoch == t.Send && i < len(t.Devices) {
			return t.Devices[i]
		}
	}
	return 0
}

// PlanEndpoint is one task's address: where it is and whom it may talk to.
type PlanEndpoint struct {
	Addr netip.Addr
	// Node is the underlay address of the node that runs the task.
	Node netip.Addr
	// Networks are the numbers of the task's networks, ascending.
	Networks []uint32
	// Outside: the task may send to addresses outside the pool (at least one
	// of its networks is not internal).
	Outside bool
	// Encrypted: what goes between the task and other nodes is encrypted, or
	// dropped (at least one of its networks is encrypted).
	Encrypted bool
	// IfIndex is the host side of the task's veth: set on the task's own node
	// once the interface is there, else 0.
	IfIndex int
}

// FrontendKey is what a client connects to.
type FrontendKey struct {
	// Addr is a virtual IP, an address of a node, or the unspecified address:
	// any address of the node.
	Addr netip.Addr
	// Port and Protocol; zero values on a virtual IP, which takes every port
	// and keeps it.
	Port     uint16
	Protocol Protocol
}

// Virtual reports whether the frontend is a service's virtual IP rather than a
// published port.
func (k FrontendKey) Virtual() bool { return k.Protocol == "" }

// Frontend is a published port or a virtual IP with its backends.
type Frontend struct {
	FrontendKey
	// Service is the name shown in metrics and explanations.
	Service string
	// Networks are the numbers of the networks a virtual IP answers on,
	// ascending; empty for a published port.
	Networks []uint32
	// Host: a published port of this node alone, also for the node's tasks, which
	// else reach every node's published ports here.
	Host bool
	// Affinity: all flows from one address go to one backend.
	Affinity bool
	// DSR: replies to clients outside go straight to them (ReturnDSR).
	DSR      bool
	Backends []Backend
}

// Backend is an endpoint seen from a frontend.
type Backend struct {
	Addr netip.Addr
	Port uint16 // 0 behind a virtual IP: the client's destination port
	// Weight is relative to the frontend's other backends, 1..256; 0: it gets no
	// new flows while one with a weight serves, and keeps those it has.
	Weight uint16
	// Draining backends keep the flows they have and get no new ones.
	Draining bool
}

// EndpointMAC is the hardware address of the endpoint with an IPv4 address. The
// inner destination MAC of an overlay packet names the endpoint by it.
func EndpointMAC(addr netip.Addr) [6]byte {
	a := addr.As4()
	return [6]byte{0x02, 0x6f, a[0], a[1], a[2], a[3]}
}

// Fixed numbers of the overlay.
const (
	OverlayPort     = 4789 // UDP, VXLAN (RFC 7348)
	OverlayOverhead = 50   // bytes: Ethernet 14, IPv4 20, UDP 8, VXLAN 8
	TunnelPort      = 7947 // UDP, WireGuard; the next one too, while keys are replaced
	TunnelOverhead  = 60   // bytes, of WireGuard: IPv4 20, UDP 8, header 16, tag 16
	DefaultAPIPort  = 2377 // TCP
	GossipPort      = 7946 // TCP and UDP
	MetricsPort     = 9477 // TCP
)

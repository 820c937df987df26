package membership

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

// role is what a node tells of itself with its being alive: a manager, where its API
// answers. It is for nodes that cannot reach any manager that they know, because all
// have another address now. Whoever believes it still proves who it talks to.
type role struct {
	manager atomic.Pointer[netip.AddrPort]
}

// NodeMeta implements memberlist.Delegate.
func (r *role) NodeMeta(limit int) []byte {
	addr := r.manager.Load()
	if addr == nil {
		return nil
	}
	meta, _ := addr.MarshalText()
	if len(meta) > limit {
		return nil
	}
	return meta
}

// decodeRole returns where a manager's API answers, the zero address for others.
func decodeRole(meta []byte) netip.AddrPort {
	addr, err := netip.ParseAddrPort(string(meta))
	if err != nil {
		return netip.AddrPort{}
	}
	return addr
}

// tellTimeout bounds how long SetManager waits for the word to be out; it goes out
// all the same.
const tellTimeout = 100 * time.Millisecond

// SetManager has the others know that this node is a manager, whose API answers at
// addr, or with the zero address that it is none. They hear of it soon.
func (m *Members) SetManager(addr netip.AddrPort) {
	if addr.IsValid() {
		m.role.manager.Store(&addr)
	} else {
		m.role.manager.Store(nil)
	}
	if list := m.list.Load(); list != nil {
		if err := list.UpdateNode(tellTimeout); err != nil {
			m.cfg.Log.Debug("gossip: tell the role", "err", err)
		}
	}
}

// Managers are the addresses (IP:port) at which other nodes that are alive say that
// they answer as managers, in order.
func (m *Members) Managers() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var addrs []string
	for id, peer := range m.peers {
		if id != m.cfg.ID && peer.manager.IsValid() {
			addrs = append(addrs, peer.manager.String())
		}
	}
	slices.Sort(addrs)
	return addrs
}

// peer is what is known of a node that is alive.
type peer struct {
	addr    string         // where it gossips, host:port
	manager netip.AddrPort // where it answers as a manager; invalid: it is none
}

func newPeer(n *memberlist.Node) peer { return peer{addr: n.Address(), manager: decodeRole(n.Meta)} }

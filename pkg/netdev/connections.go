package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// quiet is how long a connection must have been silent, with the server having
// spoken last, to be taken for one that is only kept for later.
const quiet = 5 * time.Second

// OpenConnections counts the TCP connections from elsewhere to servers in the
// network namespace at path on which something is going on: a handshake, data
// that were not read or not acknowledged yet, a client that spoke last and waits
// for its answer, or anything said within the last seconds. Connections that the
// namespace's own processes opened do not count, nor do idle ones.
//
// It asks the kernel's socket monitoring (sock_diag(7), struct inet_diag_msg of
// linux/inet_diag.h), so that it needs nothing from the process.
func (l *Links) OpenConnections(path string) (int, error) {
	conns, err := connectionsIn(path, openStates|1<<tcpListen)
	return countOpen(conns), err
}

// Listens reports whether something in the network namespace at path listens on each
// of the TCP ports.
func (l *Links) Listens(path string, ports []uint16) (bool, error) {
	conns, err := connectionsIn(path, 1<<tcpListen)
	served := servedBy(conns)
	return !slices.ContainsFunc(ports, func(port uint16) bool { return !served[port] }), err
}

// connectionsIn are the TCP sockets of both families, in a network namespace, that are
// in one of the states, a set of bits.
func connectionsIn(path string, states uint32) (conns []connection, err error) {
	err = Do(path, func() error {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} { // the latter has IPv4's of servers for both
			found, err := connections(family, states)
			if err != nil {
				return err
			}
			conns = append(conns, found...)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at the connections in %s: %w", path, err)
	}
	return conns, nil
}

// connection is what the kernel says of a socket.
type connection struct {
	state         uint8
	port          uint16 // its own
	peer          netip.Addr
	unread, unack uint32
	sent, heard   time.Duration // since data were
	spoken        bool          // the client has sent anything
}

// States of include/net/tcp_states.h.
const (
	tcpEstablished = 1
	tcpSynReceived = 3
	tcpFinWait1    = 4
	tcpCloseWait   = 8
	tcpListen      = 10

	openStates = 1<<tcpEstablished | 1<<tcpSynReceived | 1<<tcpFinWait1 | 1<<tcpCloseWait
)

// servedBy are the ports on which a server listens.
func servedBy(conns []connection) map[uint16]bool {
	served := make(map[uint16]bool)
	for _, c := range conns {
		if c.state == tcpListen {
			served[c.port] = true
		}
	}
	return served
}

func countOpen(conns []connection) int {
	served, open := servedBy(conns), 0
	for _, c := range conns {
		if c.state != tcpListen && served[c.port] && !c.peer.IsLoopback() && c.busy() {
			open++
		}
	}
	return open
}

func (c connection) busy() bool {
	switch {
	case c.state == tcpSynReceived, c.unread > 0, c.unack > 0:
		return true
	case c.state == tcpFinWait1: // the process has said all that it had to
		return false
	case c.spoken && c.heard < c.sent:
		return true
	}
	return min(c.heard, c.sent) < quiet
}

// diagRequest is struct inet_diag_req_v2.
type diagRequest struct {
	family, protocol, ext uint8
	states                uint32
}

const (
	diagRequestSize = 56
	diagMessageSize = 72
	diagInfo        = 2 // INET_DIAG_INFO: struct tcp_info
)

// Len implements nl.NetlinkRequestData.
func (r *diagRequest) Len() int { return diagRequestSize }

// Serialize implements nl.NetlinkRequestData.
func (r *diagRequest) Serialize() []byte {
	b := make([]byte, diagRequestSize) // the rest is the socket asked for: any
	b[0], b[1], b[2] = r.family, r.protocol, r.ext
	binary.NativeEndian.PutUint32(b[4:], r.states)
	return b
}

func connections(family uint8, states uint32) ([]connection, error) {
	req := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddData(&diagRequest{
		family: family, protocol: unix.IPPROTO_TCP, ext: 1 << (diagInfo - 1),
		states: states,
	})
	// What comes or goes during a dump does not matter: this is asked again.
	messages, err := req.Execute(unix.NETLINK_INET_DIAG, 0)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("dump sockets: %w", err)
	}
	var list []connection
	for _, m := range messages {
		if c, ok := parseConnection(m); ok {
			list = append(list, c)
		}
	}
	return list, nil
}

// parseConnection reads struct inet_diag_msg and the attributes behind it.
func parseConnection(m []byte) (connection, bool) {
	if len(m) < diagMessageSize {
		return connection{}, false
	}
	c := connection{
		state:  m[1],
		port:   binary.BigEndian.Uint16(m[4:]),
		unread: binary.NativeEndian.Uint32(m[56:]),
		unack:  binary.NativeEndian.Uint32(m[60:]),
	}
	if m[0] == unix.AF_INET {
		c.peer = netip.AddrFrom4([4]byte(m[24:28]))
	} else {
		c.peer = netip.AddrFrom16([16]byte(m[24:40])).Unmap()
	}
	// Not by nl.ParseRouteAttr, which panics where the last one lacks its padding.
	for attrs := m[diagMessageSize:]; len(attrs) >= unix.SizeofRtAttr; {
		size, kind := int(binary.NativeEndian.Uint16(attrs)), binary.NativeEndian.Uint16(attrs[2:])
		if size < unix.SizeofRtAttr || size > len(attrs) {
			return connection{}, false
		}
		if kind == diagInfo {
			var info unix.TCPInfo // a kernel may know more or fewer of its fields
			copy(unsafe.Slice((*byte)(unsafe.Pointer(&info)), unsafe.Sizeof(info)), attrs[unix.SizeofRtAttr:size])
			c.sent = time.Duration(info.Last_data_sent) * time.Millisecond
			c.heard = time.Duration(info.Last_data_recv) * time.Millisecond
			c.spoken = info.Bytes_received > 0
		}
		attrs = attrs[min((size+unix.RTA_ALIGNTO-1)&^(unix.RTA_ALIGNTO-1), len(attrs)):]
	}
	return c, true
}

package netdev

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/pkg/api"
)

const forwardChain = "forward"

// members is the set of the addresses of the cluster's nodes.
func members() *nftables.Set {
	return &nftables.Set{Table: table(nftables.TableFamilyIPv4), Name: "members", KeyType: nftables.TypeIPAddr}
}

// membersAtOnce is how many go into one message to the kernel, which has its limits. Of
// more than that not all are there for a moment.
const membersAtOnce = 1000

// GuardMembers has the kernel know the addresses of the cluster's nodes: it sends them
// no VXLAN but what the programs make and root does, which would pass for this node's
// own. Rules that another program has taken away are made again.
func (l *Links) GuardMembers(nodes []netip.Addr) error {
	err := setMembers(nodes)
	if errors.Is(err, unix.ENOENT) {
		err = errors.Join(l.setTables(), setMembers(nodes))
	}
	return err
}

func setMembers(nodes []netip.Addr) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.FlushSet(members())
	for part := range slices.Chunk(nodes, membersAtOnce) {
		elements := make([]nftables.SetElement, len(part))
		for i, addr := range part {
			elements[i].Key = addr.AsSlice()
		}
		if err := conn.SetAddElements(members(), elements); err != nil {
			return err
		}
		if err := conn.Flush(); err != nil {
			return err
		}
	}
	return conn.Flush()
}

// notRoot is: meta skuid != 0. Root could send it by raw packets as well, and
// `orch doctor` asks the other nodes' programs whether they are there.
func notRoot() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeySKUID, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(0)},
	}
}

// foreignOverlay is: udp dport OVERLAY ip daddr @members counter drop.
//
// Nodes take VXLAN from each other's addresses, and what a process of this node sends,
// or a container that its engine masquerades, comes from there. The programs' own
// passes neither this hook nor that of what is forwarded.
func foreignOverlay(s side) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(api.OverlayPort)},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: s.destination, Len: 4},
		&expr.Lookup{SourceRegister: 1, SetName: members().Name},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

// beforeFilter is just before the firewalls of others, which then need not count
// or log what is dropped here.
var beforeFilter = nftables.ChainPriorityRef(*nftables.ChainPriorityFilter - 1)

// uninvited is: daddr POOL ct state not established, related counter drop.
//
// The kernel would forward to a task from whatever device a packet came in by,
// and no program is on any but the uplink. What it has to forward to the pool are
// answers to what tasks have asked outside, which it has seen go; tasks, and who
// asks for a published port, reach tasks by the programs, past this hook.
func uninvited(s side) []expr.Any {
	state := func(bits uint32) []byte { return binaryutil.NativeEndian.PutUint32(bits) }
	return append(inPrefix(s.destination, expr.CmpOpEq, s.pool),
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: state(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
			Xor:  state(0),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: state(0)},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	)
}

package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is the one nftables table that is ours.
const tableName = "orch"

func table() *nftables.Table {
	return &nftables.Table{Name: tableName, Family: nftables.TableFamilyIPv4}
}

// masquerade gives packets from a task to the outside the node's address. The
// kernel takes the whole batch or nothing, and connections keep the address
// they have.
func (l *Links) masquerade() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	t := conn.AddTable(table())
	chain := conn.AddChain(&nftables.Chain{
		Name: "postrouting", Table: t,
		Type:     nftables.ChainTypeNAT,
		Hooknum:  nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityNATSource,
	})
	conn.FlushChain(chain)
	conn.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: l.outbound()})
	return conn.Flush()
}

// outbound is: ip saddr POOL ip daddr != POOL oifname UPLINK masquerade.
func (l *Links) outbound() []expr.Any {
	const sourceOffset, destinationOffset = 12, 16
	rule := inPrefix(sourceOffset, expr.CmpOpEq, l.cfg.Pool)
	rule = append(rule, inPrefix(destinationOffset, expr.CmpOpNeq, l.cfg.Pool)...)
	device := make([]byte, unix.IFNAMSIZ)
	copy(device, l.cfg.Uplink)
	return append(rule,
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: device},
		&expr.Masq{},
	)
}

// inPrefix compares the address at offset in the IPv4 header.
func inPrefix(offset uint32, op expr.CmpOp, prefix netip.Prefix) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: net.CIDRMask(prefix.Bits(), 32),
			Xor:  binaryutil.NativeEndian.PutUint32(0),
		},
		&expr.Cmp{Op: op, Register: 1, Data: prefix.Masked().Addr().AsSlice()},
	}
}

func removeMasquerade() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	conn.DelTable(table())
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// ForwardingBlocked names the nftables chain, if there is one, that drops
// forwarded packets unless a rule says otherwise; no table of ours can overrule
// it. The Docker Engine's, which leaves room for our rules, does not count.
func ForwardingBlocked() (chain string, blocked bool, err error) {
	conn, err := nftables.New()
	if err != nil {
		return "", false, err
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyIPv4)
	if err != nil {
		return "", false, fmt.Errorf("list nftables chains: %w", err)
	}
	for _, c := range chains {
		if c.Name == userChain {
			return "", false, nil
		}
	}
	for _, c := range chains {
		forward := c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward && c.Type == nftables.ChainTypeFilter
		if forward && c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
			return c.Table.Name + "/" + c.Name, true, nil
		}
	}
	return "", false, nil
}

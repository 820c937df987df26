package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is the one nftables table of each family that is ours.
const tableName = "orch"

// side is what the rules have to know of one family: its pool, and where in its
// header the addresses are.
type side struct {
	family              nftables.TableFamily
	pool                netip.Prefix
	source, destination uint32
}

// sides are the families that tasks have addresses of.
func (l *Links) sides() []side {
	all := []side{{nftables.TableFamilyIPv4, l.cfg.Pool, 12, 16}}
	if l.cfg.Pool6.IsValid() && hasIPv6() {
		all = append(all, side{nftables.TableFamilyIPv6, l.cfg.Pool6, 8, 24})
	}
	return all
}

func table(family nftables.TableFamily) *nftables.Table {
	return &nftables.Table{Name: tableName, Family: family}
}

// setTables gives packets from a task to the outside the node's address, lets
// nothing in from there but answers, and no VXLAN out that is not the programs'. The
// kernel takes the whole batch or nothing, and connections keep the address they have.
func (l *Links) setTables() error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	for _, s := range l.sides() {
		t := conn.AddTable(table(s.family))
		add := func(chain nftables.Chain, rules ...[]expr.Any) {
			chain.Table = t
			c := conn.AddChain(&chain)
			conn.FlushChain(c)
			for _, r := range rules {
				conn.AddRule(&nftables.Rule{Table: t, Chain: c, Exprs: r})
			}
		}
		var foreign [][]expr.Any
		if s.family == nftables.TableFamilyIPv4 { // by which nodes reach each other
			if err := conn.AddSet(members(), nil); err != nil {
				return err
			}
			foreign = append(foreign, foreignOverlay(s))
			add(nftables.Chain{Name: "output", Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput,
				Priority: beforeFilter}, append(notRoot(), foreignOverlay(s)...))
		}
		add(nftables.Chain{Name: "postrouting", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting,
			Priority: nftables.ChainPriorityNATSource}, l.outbound(s))
		add(nftables.Chain{Name: forwardChain, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward,
			Priority: beforeFilter}, append(foreign, uninvited(s))...)
	}
	return conn.Flush()
}

// outbound is: saddr POOL daddr != POOL oifname UPLINK masquerade.
func (l *Links) outbound(s side) []expr.Any {
	rule := inPrefix(s.source, expr.CmpOpEq, s.pool)
	rule = append(rule, inPrefix(s.destination, expr.CmpOpNeq, s.pool)...)
	device := make([]byte, unix.IFNAMSIZ)
	copy(device, l.cfg.Uplink)
	return append(rule,
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: device},
		&expr.Masq{},
	)
}

// inPrefix compares the address at offset in the IP header.
func inPrefix(offset uint32, op expr.CmpOp, prefix netip.Prefix) []expr.Any {
	bits := prefix.Addr().BitLen()
	length := uint32(bits / 8)
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: length,
			Mask: net.CIDRMask(prefix.Bits(), bits),
			Xor:  make([]byte, length),
		},
		&expr.Cmp{Op: op, Register: 1, Data: prefix.Masked().Addr().AsSlice()},
	}
}

func removeTables() error {
	var errs []error
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		conn.DelTable(table(family))
		if err := conn.Flush(); !errors.Is(err, unix.ENOENT) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
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

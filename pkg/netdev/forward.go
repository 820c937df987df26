package netdev

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

// userChain is where the Docker Engine leaves room for others' rules, before
// its own, in the namespace that it runs in: it drops what it does not know of
// all that the node forwards (Docker's documentation, "Packet filtering and
// firewalls"). Its table is the engine's.
const userChain = "DOCKER-USER"

// ruleMark is the comment of our rules in it.
var ruleMark = userdata.AppendString(nil, userdata.TypeComment, "orch")

// letThrough lets what tasks exchange with the outside pass the engine's
// firewall, if there is one. Packets for the pool that come from outside the
// cluster and are no answers are dropped all the same: those that came in by the
// uplink by its program, those of any other device by our own table (uninvited).
// The rules have a form that the iptables command knows: it reads the whole
// chain, and the engine uses it.
func (l *Links) letThrough() error {
	for _, s := range l.sides() {
		err := replaceInUserChain(s.family,
			inPrefix(s.source, expr.CmpOpEq, s.pool),
			inPrefix(s.destination, expr.CmpOpEq, s.pool),
		)
		if err != nil {
			return err
		}
	}
	return nil
}

// removeLetThrough takes our rules out of the engine's chains.
func removeLetThrough() error {
	return errors.Join(replaceInUserChain(nftables.TableFamilyIPv4), replaceInUserChain(nftables.TableFamilyIPv6))
}

// replaceInUserChain makes our rules in the engine's chain of a family, if there
// is one, accept what matches, and nothing else.
func replaceInUserChain(family nftables.TableFamily, matches ...[]expr.Any) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	chain, err := findUserChain(conn, family)
	if err != nil || chain == nil {
		return err
	}
	if err := deleteMarked(conn, chain); err != nil {
		return err
	}
	for _, match := range matches {
		rule := append(match, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
		conn.InsertRule(&nftables.Rule{Table: chain.Table, Chain: chain, Exprs: rule, UserData: ruleMark})
	}
	return conn.Flush()
}

func findUserChain(conn *nftables.Conn, family nftables.TableFamily) (*nftables.Chain, error) {
	chains, err := conn.ListChainsOfTableFamily(family)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	for _, c := range chains {
		if c.Name == userChain {
			return c, nil
		}
	}
	return nil, nil
}

// deleteMarked adds to the batch that our rules are deleted.
func deleteMarked(conn *nftables.Conn, chain *nftables.Chain) error {
	rules, err := conn.GetRules(chain.Table, chain)
	if err != nil {
		return fmt.Errorf("list rules of %s: %w", chain.Name, err)
	}
	for _, r := range rules {
		if !bytes.Equal(r.UserData, ruleMark) {
			continue
		}
		if err := conn.DelRule(r); err != nil {
			return fmt.Errorf("delete a rule of %s: %w", chain.Name, err)
		}
	}
	return nil
}

// Package ipam allocates what must be unique in a cluster: the numbers of
// networks, virtual IPs, published ports and the addresses of tasks. It is a
// planner: it reads a snapshot of the store and returns changes, without a
// clock, randomness or I/O of its own.
package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/orch-dev/orch/pkg/api"
)

// Problem is something that could not be allocated and has no task to carry
// the reason.
type Problem struct {
	Ref  api.Ref
	Text string // in a user's words
}

func (p Problem) String() string { return p.Text }

// Plan allocates all that is missing. A task for which there is no address
// carries the reason; other failures are returned. Planning again after the
// changes were applied changes nothing.
func Plan(snap *api.Snapshot) ([]api.Change, []Problem) {
	p := &planner{snap: snap, services: map[api.ServiceID]*api.Service{}}
	p.numberNetworks()
	p.assignPorts()

	pool, err := newPool(snap)
	if err != nil {
		p.problems = append(p.problems, Problem{api.Ref{Kind: api.KindCluster}, err.Error()})
	} else {
		p.assignVIPs(pool)
		p.assignAddresses(pool)
	}
	return p.changes(pool), p.problems
}

type planner struct {
	snap     *api.Snapshot
	networks []api.Change
	services map[api.ServiceID]*api.Service // changed copies
	tasks    []api.Change
	problems []Problem
}

// service returns the copy of s that may be changed.
func (p *planner) service(s *api.Service) *api.Service {
	if p.services[s.ID] == nil {
		c := *s
		p.services[s.ID] = &c
	}
	return p.services[s.ID]
}

func (p *planner) changes(pool *pool) []api.Change {
	var out []api.Change
	if pool != nil && pool.cursor != p.snap.Cluster.AddrCursor {
		c := *p.snap.Cluster
		c.AddrCursor = pool.cursor
		out = append(out, api.Change{Cluster: &c})
	}
	out = append(out, p.networks...)
	for _, s := range api.Sorted(p.services) {
		out = append(out, api.Change{Service: s})
	}
	return append(out, p.tasks...)
}

// numberNetworks gives each network without a number the smallest free one.
func (p *planner) numberNetworks() {
	used := map[uint32]bool{}
	for _, n := range p.snap.Networks {
		used[n.Number] = true
	}
	next := uint32(1)
	for _, n := range api.Sorted(p.snap.Networks) {
		if n.Number != 0 {
			continue
		}
		for used[next] {
			next++
		}
		used[next] = true
		c := *n
		c.Number = next
		p.networks = append(p.networks, api.Change{Network: &c})
	}
}

func (p *planner) assignVIPs(pool *pool) {
	for _, s := range byAge(p.snap.Services) {
		if s.Spec.EndpointMode == api.EndpointDNSRR {
			if s.VIP.IsValid() {
				p.service(s).VIP = netip.Addr{}
			}
			continue
		}
		if s.VIP.IsValid() {
			continue
		}
		addr, ok := pool.next()
		if !ok {
			p.problems = append(p.problems, Problem{
				api.Ref{Kind: api.KindService, ID: string(s.ID)},
				fmt.Sprintf("service %s has no virtual IP: %s", s.Spec.Name, pool.exhausted()),
			})
			continue
		}
		p.service(s).VIP = addr
	}
}

func (p *planner) assignAddresses(pool *pool) {
	for _, t := range api.Sorted(p.snap.Tasks) {
		if t.Desired != api.DesiredRun || t.Status.State != api.TaskPending || t.Endpoint.Addr.IsValid() {
			continue
		}
		c := *t
		if addr, ok := pool.next(); ok {
			c.Endpoint = api.Endpoint{Addr: addr, State: api.EndpointPending}
			if c.Reason == pool.exhausted() {
				c.Reason = ""
			}
		} else {
			c.Reason = pool.exhausted()
			if t.Reason == c.Reason {
				continue
			}
		}
		p.tasks = append(p.tasks, api.Change{Task: &c})
	}
}

// byAge sorts services oldest first, those not in the store yet last: whoever
// came first keeps what it has.
func byAge(services map[api.ServiceID]*api.Service) []*api.Service {
	out := api.Sorted(services)
	slices.SortStableFunc(out, func(a, b *api.Service) int {
		if a.Meta.Created == 0 || b.Meta.Created == 0 {
			return cmp.Compare(b.Meta.Created, a.Meta.Created)
		}
		return cmp.Compare(a.Meta.Created, b.Meta.Created)
	})
	return out
}

// pool is the range of addresses with what is taken of it.
type pool struct {
	prefix      netip.Prefix
	first, last uint32 // usable addresses, inclusive
	taken       map[netip.Addr]bool
	// cursor is the address allocated last. The search goes on behind it, so
	// that an address just freed is the last to be used again: nodes and
	// clients may still hold something about its former owner.
	cursor netip.Addr
	full   bool
}

func newPool(snap *api.Snapshot) (*pool, error) {
	if snap.Cluster == nil {
		return nil, fmt.Errorf("there is no cluster yet, so there is no address pool")
	}
	prefix, err := netip.ParsePrefix(snap.Cluster.Pool)
	if err != nil || !prefix.Addr().Is4() || prefix.Bits() > 29 {
		return nil, fmt.Errorf("address pool %q is not an IPv4 CIDR of /29 or larger", snap.Cluster.Pool)
	}
	prefix = prefix.Masked()
	base := number(prefix.Addr())
	p := &pool{
		prefix: prefix,
		// The network's own, its first and its broadcast address stay unused.
		first:  base + 2,
		last:   base + 1<<(32-prefix.Bits()) - 2,
		taken:  map[netip.Addr]bool{},
		cursor: snap.Cluster.AddrCursor,
	}
	for _, s := range snap.Services {
		p.taken[s.VIP] = true
	}
	for _, t := range snap.Tasks {
		if t.Endpoint.State != api.EndpointGone {
			p.taken[t.Endpoint.Addr] = true
		}
	}
	return p, nil
}

// next takes the first free address behind the cursor, or reports false when
// all are taken.
func (p *pool) next() (netip.Addr, bool) {
	if p.full {
		return netip.Addr{}, false
	}
	at := p.last
	if p.cursor.IsValid() && p.prefix.Contains(p.cursor) {
		at = number(p.cursor)
	}
	for range p.last - p.first + 1 {
		at++
		if at > p.last || at < p.first {
			at = p.first
		}
		if addr := address(at); !p.taken[addr] {
			p.taken[addr] = true
			p.cursor = addr
			return addr, true
		}
	}
	p.full = true
	return netip.Addr{}, false
}

func (p *pool) exhausted() string {
	return fmt.Sprintf("no free address in the pool %s", p.prefix)
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func address(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

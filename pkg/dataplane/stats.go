package dataplane

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/orch-dev/orch/bpf"
	"github.com/orch-dev/orch/pkg/api"
)

// Counter counts packets and their bytes, from the IP header on.
type Counter struct {
	Packets uint64
	Bytes   uint64
}

// Stats are the data plane's counters since its maps were made.
type Stats struct {
	Frontends []FrontendStats
	Backends  []BackendStats
	Pairs     []PairStats
	// Drops, by reason: packets that went nowhere.
	Drops map[string]Counter
	// Verdicts, by name: what became of every other packet that was looked at.
	Verdicts map[string]Counter
}

// FrontendStats counts what clients sent to a frontend through this node.
type FrontendStats struct {
	api.FrontendKey
	Service string
	Counter
	Flows      uint64 // new flows
	Handshakes Handshakes
}

// Handshakes says how long connections took to open, where their clients enter:
// from the client's SYN to its acknowledgment of the answer.
type Handshakes struct {
	// Counts has those that took less than HandshakeLeast, then in each those of up to
	// twice as much as in the one before, and all others in the last.
	Counts [16]uint64
	Total  time.Duration // of all together
}

// HandshakeLeast is HANDSHAKE_LEAST of types.h.
const HandshakeLeast = 128 * time.Microsecond

// PairStats counts what this node, as the one where clients enter, sent to backends
// on a node: another, or itself.
type PairStats struct {
	Node netip.Addr // its underlay address
	Counter
	Flows uint64 // new flows
}

// BackendStats counts what this node sent to a backend of a frontend.
type BackendStats struct {
	Frontend api.FrontendKey
	Service  string
	Addr     netip.Addr
	Port     uint16
	Counter
	Flows uint64 // new flows
}

// Stats reads every counter, in the order of frontends and backends.
func (d *Dataplane) Stats() (Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Stats{Drops: make(map[string]Counter), Verdicts: make(map[string]Counter)}
	if err := d.readVerdicts(&s); err != nil {
		return Stats{}, err
	}
	if d.have == nil {
		return s, nil
	}
	byID := make(map[uint32]frontendName)
	for key, f := range d.have.frontends {
		name, ok := d.frontends[key]
		if !ok {
			name.key = apiKey(key)
		}
		byID[f.Id] = name
		sum, err := sumStats(d.maps["frontend_stats"], f.Id)
		if err != nil {
			return Stats{}, err
		}
		handshakes, err := d.handshakes(f.Id)
		if err != nil {
			return Stats{}, err
		}
		s.Frontends = append(s.Frontends, FrontendStats{
			FrontendKey: name.key, Service: name.service,
			Counter: Counter{Packets: sum.Packets, Bytes: sum.Bytes}, Flows: sum.Flows, Handshakes: handshakes,
		})
	}
	pairs, err := entries[uint32, bpf.OrchStats](d.maps["departed"])
	if err != nil {
		return Stats{}, err
	}
	for id, b := range d.have.backends {
		sum, err := sumStats(d.maps["backend_stats"], id)
		if err != nil {
			return Stats{}, err
		}
		name := byID[b.Frontend]
		s.Backends = append(s.Backends, BackendStats{
			Frontend: name.key, Service: name.service, Addr: addrOf(b.Addr), Port: be16(b.Port),
			Counter: Counter{Packets: sum.Packets, Bytes: sum.Bytes}, Flows: sum.Flows,
		})
		node := d.have.endpoints[b.Addr].Node
		pairs[node] = plus(pairs[node], sum)
	}
	for node, sum := range pairs {
		s.Pairs = append(s.Pairs, PairStats{Node: addrOf(node), Counter: Counter{Packets: sum.Packets, Bytes: sum.Bytes}, Flows: sum.Flows})
	}
	slices.SortFunc(s.Pairs, func(a, b PairStats) int { return a.Node.Compare(b.Node) })
	slices.SortFunc(s.Frontends, func(a, b FrontendStats) int { return compareKeys(a.FrontendKey, b.FrontendKey) })
	slices.SortFunc(s.Backends, func(a, b BackendStats) int {
		return cmp.Or(compareKeys(a.Frontend, b.Frontend), a.Addr.Compare(b.Addr))
	})
	return s, nil
}

func compareKeys(a, b api.FrontendKey) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
}

func sumStats(m *ebpf.Map, id uint32) (bpf.OrchStats, error) {
	var perCPU []bpf.OrchStats
	var sum bpf.OrchStats
	if err := m.Lookup(id, &perCPU); err != nil {
		return sum, fmt.Errorf("read %s: %w", m, err)
	}
	for _, s := range perCPU {
		sum.Packets += s.Packets
		sum.Bytes += s.Bytes
		sum.Flows += s.Flows
	}
	return sum, nil
}

// verdictName is what user space calls a verdict.
type verdictName struct {
	name string
	drop bool
}

// plus adds counters up.
func plus(a, b bpf.OrchStats) bpf.OrchStats {
	return bpf.OrchStats{Packets: a.Packets + b.Packets, Bytes: a.Bytes + b.Bytes, Flows: a.Flows + b.Flows}
}

// depart keeps what was counted of a backend that goes, for its node.
func (d *Dataplane) depart(backend, node uint32) error {
	sum, err := sumStats(d.maps["backend_stats"], backend)
	if err != nil || sum == (bpf.OrchStats{}) {
		return err
	}
	var before bpf.OrchStats
	if err := d.maps["departed"].Lookup(node, &before); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("read departed: %w", err)
	}
	if err := d.maps["departed"].Put(node, plus(before, sum)); err != nil {
		return fmt.Errorf("update departed: %w", err)
	}
	return nil
}

// handshakes adds up those of a frontend.
func (d *Dataplane) handshakes(frontend uint32) (sum Handshakes, err error) {
	var perCPU []bpf.OrchHandshakes
	if err := d.maps["handshakes"].Lookup(frontend, &perCPU); err != nil {
		return sum, fmt.Errorf("read handshakes: %w", err)
	}
	for _, h := range perCPU {
		sum.Total += time.Duration(h.Micros) * time.Microsecond
		for i, n := range h.Count {
			sum.Counts[i] += uint64(n)
		}
	}
	return sum, nil
}

// verdictNames gives the verdicts the names that the C code has for them.
func (d *Dataplane) verdictNames() (map[uint32]verdictName, error) {
	var verdicts *btf.Enum
	if err := d.spec.Types.TypeByName("verdict", &verdicts); err != nil {
		return nil, fmt.Errorf("read the verdicts' names: %w", err)
	}
	names := make(map[uint32]verdictName)
	for _, v := range verdicts.Values {
		if v.Name == "VERDICT_NONE" || v.Name == "VERDICTS" {
			continue
		}
		name, drop := strings.CutPrefix(v.Name, "DROP_")
		names[uint32(v.Value)] = verdictName{strings.ToLower(strings.ReplaceAll(name, "_", "-")), drop}
	}
	return names, nil
}

func (d *Dataplane) sumVerdict(verdict uint32) (Counter, error) {
	var perCPU []bpf.OrchCounter
	if err := d.maps["verdicts"].Lookup(verdict, &perCPU); err != nil {
		return Counter{}, fmt.Errorf("read verdicts: %w", err)
	}
	var sum Counter
	for _, c := range perCPU {
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
	}
	return sum, nil
}

func (d *Dataplane) readVerdicts(s *Stats) error {
	names, err := d.verdictNames()
	if err != nil {
		return err
	}
	for verdict, name := range names {
		sum, err := d.sumVerdict(verdict)
		if err != nil {
			return err
		}
		if name.drop {
			s.Drops[name.name] = sum
		} else {
			s.Verdicts[name.name] = sum
		}
	}
	return nil
}

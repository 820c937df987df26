package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/orch-dev/orch/pkg/api"
)

// verdict says why a node cannot run a task; nil where it can. It reads
// after a number of nodes: "1 not ready", "2 do not satisfy node.role==worker".
type verdict struct {
	filter    int // in the order in which filters are asked
	one, many string
}

func same(filter int, text string) *verdict { return &verdict{filter, text, text} }

// sentence is the verdict as it reads after one node's name.
func (v *verdict) sentence() string {
	if strings.HasPrefix(v.one, "does ") {
		return v.one
	}
	return "is " + v.one
}

// Filters, in the order in which they are asked and reported.
const (
	filterReady = iota + 1
	filterAvailability
	filterConstraint
	filterVolume
	filterMaxReplicas
	filterResources
)

// needs is what one task asks of a node, with what is asked about every node.
type needs struct {
	svc     *api.Service
	reserve api.Resources
	home    int // position of the node that has its volume, if that binds it, else -1
	volume  string

	lasting []*verdict
	shares  []share
}

func (p *planner) needs(svc *api.Service, t *api.Task) needs {
	n := needs{
		svc: svc, reserve: t.Spec.Reservations, home: -1,
		lasting: p.lastingVerdicts(svc), shares: p.sharesOf(svc.ID),
	}
	if t.NodeID == "" {
		n.home, n.volume = p.volumeHome(svc, t)
	}
	return n
}

// judge asks every filter about the node at position i.
func (p *planner) judge(need needs, i int) *verdict {
	if v := need.lasting[i]; v != nil {
		return v
	}
	if need.home >= 0 && need.home != i {
		return same(filterVolume, "without the volume "+need.volume+", which is on "+p.nodes[need.home].Hostname)
	}
	if most := need.svc.Spec.Placement.MaxReplicasPerNode; most > 0 && need.shares[i].staying >= most {
		return same(filterMaxReplicas, fmt.Sprintf("full with %d of this service", most))
	}
	return lacking(p.nodes[i], &p.loads[i], need.reserve)
}

// lastingVerdicts are those of the filters that hold for all of the service's
// tasks, by position of the node.
func (p *planner) lastingVerdicts(svc *api.Service) []*verdict {
	if v, known := p.lasting[svc.ID]; known {
		return v
	}
	verdicts := make([]*verdict, len(p.nodes))
	for i, n := range p.nodes {
		unmet, isUnmet := svc.Spec.Placement.Unmet(n)
		switch {
		case n.State != api.NodeReady:
			verdicts[i] = same(filterReady, "not ready")
		case n.Availability == api.AvailabilityPause:
			verdicts[i] = same(filterAvailability, "paused")
		case n.Availability == api.AvailabilityDrain:
			verdicts[i] = same(filterAvailability, "drained")
		case isUnmet:
			verdicts[i] = &verdict{filterConstraint, "does not satisfy " + unmet.String(), "do not satisfy " + unmet.String()}
		}
	}
	p.lasting[svc.ID] = verdicts
	return verdicts
}

// lacking compares what is reserved on a node with what it has. A node that has
// not said what it has is not limited.
func lacking(n *api.Node, l *load, r api.Resources) *verdict {
	const billion = 1_000_000_000
	if r.NanoCPUs > 0 && n.Info.CPUs > 0 && l.reserved.NanoCPUs+r.NanoCPUs > int64(n.Info.CPUs)*billion {
		return same(filterResources, fmt.Sprintf("without %g CPUs to reserve", float64(r.NanoCPUs)/billion))
	}
	if r.MemoryBytes > 0 && n.Info.MemoryBytes > 0 && l.reserved.MemoryBytes+r.MemoryBytes > n.Info.MemoryBytes {
		return same(filterResources, fmt.Sprintf("without %d MiB of memory to reserve", (r.MemoryBytes+1<<20-1)>>20))
	}
	return nil
}

const (
	unplaceableReason = "no suitable node: "
	waitingReason     = "waits for "
)

// Unplaceable reports whether a task waits because no node suits it, rather than
// for a delay or another service.
func Unplaceable(t *api.Task) bool {
	return t.Status.State == api.TaskPending && strings.HasPrefix(t.Reason, unplaceableReason)
}

// isOwnReason reports whether a task's reason is one that this package gave: it
// is void once the task is placed, where another goes on to tell why the task
// was made.
func isOwnReason(reason string) bool {
	return strings.HasPrefix(reason, unplaceableReason) || strings.HasPrefix(reason, waitingReason)
}

// unplaceable sums up what every node was refused for.
func (p *planner) unplaceable(need needs) string {
	if len(p.nodes) == 0 {
		return unplaceableReason + "the cluster has none"
	}
	count := map[verdict]int{}
	for i := range p.nodes {
		count[*p.judge(need, i)]++
	}
	verdicts := slices.SortedFunc(maps.Keys(count), func(a, b verdict) int {
		return cmp.Or(cmp.Compare(a.filter, b.filter), cmp.Compare(a.one, b.one))
	})
	var parts []string
	for _, v := range verdicts {
		text := v.many
		if count[v] == 1 {
			text = v.one
		}
		parts = append(parts, fmt.Sprintf("%d %s", count[v], text))
	}
	return unplaceableReason + strings.Join(parts, ", ")
}

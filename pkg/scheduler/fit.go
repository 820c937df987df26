package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/orch-dev/orch/pkg/api"
)

// fit is what placing one service's tasks goes by, for a batch of them.
type fit struct {
	*planner
	svc     *api.Service
	shares  []share
	spec    *api.TaskSpec // what verdicts is about
	verdict []*verdict    // lasting ones, by position
	kinds   []*kind
}

// kind is what tasks that suit the same nodes have in common: once a batch has
// asked about all nodes for one of them, it goes on from there.
type kind struct {
	reserve api.Resources
	nodes   *branch // where the next one goes is on top
	refused string  // why no node suits any more: loads only grow
	counts  string  // how many nodes suited
}

func (p *planner) fit(svc *api.Service) *fit {
	return &fit{planner: p, svc: svc, shares: p.sharesOf(svc)}
}

// place returns the position of the node for t with why it is that one, or -1
// and why it has to wait.
func (f *fit) place(t *api.Task) (int, string) {
	f.about(&t.Spec)
	if t.NodeID != "" { // of a global service: this node or none
		return f.placeOn(t)
	}
	if home := f.homeOf(t); home != nil {
		return f.placeHome(t, home)
	}
	k := f.kindOf(t)
	i, ok := k.nodes.top()
	if !ok {
		if k.refused == "" {
			k.refused = f.unplaceable(t, nil)
		}
		return -1, k.refused
	}
	return i, k.counts + f.advantage(i)
}

// about makes the verdicts be about a spec. A batch's tasks have one, as a rule.
func (f *fit) about(spec *api.TaskSpec) {
	if f.spec == spec || f.spec != nil && alike(f.spec, spec) {
		return
	}
	f.spec, f.kinds = spec, nil
	f.verdict = make([]*verdict, len(f.nodes))
	for i := range f.nodes {
		f.verdict[i] = f.lasting(f.svc, spec, i)
	}
}

// sameVolume reports whether two mounts ask the same of a node.
func sameVolume(a, b api.Mount) bool {
	return a.Type == b.Type && a.Source == b.Source && a.Driver == b.Driver && a.Shared == b.Shared
}

// alike reports whether the filters say the same about two specs.
func alike(a, b *api.TaskSpec) bool {
	driver := func(l *api.LogConfig) string {
		if l == nil {
			return ""
		}
		return l.Driver
	}
	return a.Image == b.Image && a.Pin.Platform == b.Pin.Platform && slices.EqualFunc(a.Mounts, b.Mounts, sameVolume) && driver(a.Log) == driver(b.Log)
}

// kindOf returns the task's kind, with the nodes that suit it in order.
func (f *fit) kindOf(t *api.Task) *kind {
	r := &t.Spec.Reservations
	for _, k := range f.kinds {
		if k.reserve.NanoCPUs == r.NanoCPUs && k.reserve.MemoryBytes == r.MemoryBytes && maps.Equal(k.reserve.Generic, r.Generic) {
			return k
		}
	}
	k := &kind{reserve: *r, nodes: f.spread()}
	suit := 0
	for i := range f.nodes {
		suits := f.judge(r, i) == nil
		k.nodes.grow(i, suits)
		if suits {
			suit++
		}
	}
	k.nodes.order()
	k.counts = fmt.Sprintf("%d of %d nodes suited, it had ", suit, len(f.nodes))
	f.kinds = append(f.kinds, k)
	return k
}

// judge asks every filter about the node at position i, for any task.
func (f *fit) judge(r *api.Resources, i int) *verdict {
	if v := f.verdict[i]; v != nil {
		return v
	}
	return f.passing(f.svc, f.shares, r, i)
}

// add counts a task that was placed, and puts its node where it now belongs.
func (f *fit) add(i int, t *api.Task) {
	f.count(f.svc, t, 1)
	if stays(f.svc, t) {
		f.shares[i].staying++
	}
	for at := 0; at < len(f.kinds); {
		k := f.kinds[at]
		if top, ok := k.nodes.top(); ok && top == i {
			k.nodes.settle(f.judge(&k.reserve, i) == nil)
			at++
			continue
		}
		// Another kind's order is void where its node is not on top: it is made
		// anew when it is asked for.
		f.kinds = slices.Delete(f.kinds, at, at+1)
	}
}

// advantage says what the node at position i had in favour of it.
func (f *fit) advantage(i int) string {
	s, l := f.shares[i], &f.loads[i]
	text := fmt.Sprintf("%d of this service and %d tasks in all", s.staying, l.staying)
	for _, key := range f.svc.Spec.Placement.Preferences {
		text += fmt.Sprintf(", %s is %q", key, api.Attribute(f.nodes[i], key))
	}
	if s.failures >= failuresToAvoid {
		text += fmt.Sprintf(", and no better one is left: the service failed %d times here lately", s.failures)
	}
	return text
}

func (f *fit) placeOn(t *api.Task) (int, string) {
	i, known := f.position[t.NodeID]
	if !known {
		return -1, unplaceableReason + "node " + string(t.NodeID) + " does not exist"
	}
	if v := f.judge(&t.Spec.Reservations, i); v != nil {
		return -1, unplaceableReason + "node " + f.nodes[i].Hostname + " " + v.sentence()
	}
	return i, "one task runs on each node that suits"
}

// unplaceable sums up what every node was refused for.
func (f *fit) unplaceable(t *api.Task, home *home) string {
	if len(f.nodes) == 0 {
		return unplaceableReason + "the cluster has none"
	}
	count := map[verdict]int{}
	for i := range f.nodes {
		if v := f.verdictOf(t, home, i); v != nil {
			count[*v]++
		}
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

// verdictOf asks every filter about one node, for one task that may have a home.
func (f *fit) verdictOf(t *api.Task, home *home, i int) *verdict {
	if v := f.verdict[i]; v != nil {
		return v
	}
	if home != nil && !home.has(i) {
		return same(filterVolume, home.where(f.planner))
	}
	return f.judge(&t.Spec.Reservations, i)
}

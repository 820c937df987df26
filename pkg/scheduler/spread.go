package scheduler

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/orch-dev/orch/pkg/api"
)

// branch is a heap of nodes, or of branches that have one value of a preferred
// attribute each: the next task goes to what is on top. As a placement changes
// only the node that was on top, only the tops have to find their place again.
//
// Branches come by the tasks of the service below them, so that each value of
// an attribute gets as many, whatever the number of nodes that have it.
type branch struct {
	f        *fit
	keys     []string // attributes that divide what is below
	value    string
	staying  int
	nodes    []int // where keys is empty
	branches []*branch
	byValue  map[string]*branch
}

func (f *fit) spread() *branch {
	return &branch{f: f, keys: f.svc.Spec.Placement.Preferences}
}

// grow counts what is on the node at position i and adds it, if it suits; order
// has to follow.
func (b *branch) grow(i int, suits bool) {
	b.staying += b.f.shares[i].staying
	if len(b.keys) == 0 {
		if suits {
			b.nodes = append(b.nodes, i)
		}
		return
	}
	value := api.Attribute(b.f.nodes[i], b.keys[0])
	below := b.byValue[value]
	if below == nil {
		if b.byValue == nil {
			b.byValue = map[string]*branch{}
		}
		below = &branch{f: b.f, keys: b.keys[1:], value: value}
		b.byValue[value] = below
		b.branches = append(b.branches, below)
	}
	below.grow(i, suits)
}

// order makes heaps of what grow has put together.
func (b *branch) order() {
	for _, below := range b.branches {
		below.order()
	}
	b.branches = slices.DeleteFunc(b.branches, func(below *branch) bool { return below.Len() == 0 })
	heap.Init(b)
}

// top is the position of the node that is next; false if none is left.
func (b *branch) top() (int, bool) {
	switch {
	case b.Len() == 0:
		return 0, false
	case len(b.keys) == 0:
		return b.nodes[0], true
	}
	return b.branches[0].top()
}

// settle puts the top where it belongs after a task was placed on it, or takes
// it away if it suits no more.
func (b *branch) settle(suits bool) {
	b.staying++
	if len(b.keys) > 0 {
		b.branches[0].settle(suits)
		suits = b.branches[0].Len() > 0
	}
	if suits {
		heap.Fix(b, 0)
	} else {
		heap.Pop(b)
	}
}

// Len implements heap.Interface.
func (b *branch) Len() int { return len(b.nodes) + len(b.branches) }

// Less implements heap.Interface.
func (b *branch) Less(i, j int) bool {
	if len(b.keys) == 0 {
		return b.f.better(b.nodes[i], b.nodes[j]) < 0
	}
	x, y := b.branches[i], b.branches[j]
	atX, _ := x.top()
	atY, _ := y.top()
	return cmp.Or(
		b.f.avoided(atX)-b.f.avoided(atY),
		cmp.Compare(x.staying, y.staying),
		b.f.better(atX, atY),
	) < 0
}

// Swap implements heap.Interface.
func (b *branch) Swap(i, j int) {
	if len(b.keys) == 0 {
		b.nodes[i], b.nodes[j] = b.nodes[j], b.nodes[i]
		return
	}
	b.branches[i], b.branches[j] = b.branches[j], b.branches[i]
}

// Push implements heap.Interface. Nothing is added once a heap was made.
func (*branch) Push(any) { panic("scheduler: a node was added to a heap") }

// Pop implements heap.Interface.
func (b *branch) Pop() any {
	if len(b.keys) == 0 {
		b.nodes = b.nodes[:len(b.nodes)-1]
	} else {
		b.branches = b.branches[:len(b.branches)-1]
	}
	return nil
}

// better compares the nodes at positions i and j for a task of the service: it
// is negative if the first is to be preferred. Nodes that are equal in
// everything keep their order.
func (f *fit) better(i, j int) int {
	a, b := &f.loads[i], &f.loads[j]
	return cmp.Or(
		f.avoided(i)-f.avoided(j),
		cmp.Compare(f.shares[i].staying, f.shares[j].staying),
		cmp.Compare(a.fill(f.nodes[i]), b.fill(f.nodes[j])),
		cmp.Compare(a.staying, b.staying),
		cmp.Compare(a.all, b.all),
		cmp.Compare(i, j),
	)
}

// avoided is 1 for a node that keeps failing the service, else 0.
func (f *fit) avoided(i int) int {
	if f.shares[i].failures >= failuresToAvoid {
		return 1
	}
	return 0
}

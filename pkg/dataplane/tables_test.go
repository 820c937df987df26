package dataplane_test

import (
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/orch-dev/orch/pkg/dataplane"
)

// A table follows its backends where it is, as they come to drain and back; one
// that has no room gets another.
func TestTableInPlace(t *testing.T) {
	c := newCluster(t, dataplane.ModeTC)
	n := c.nodes[0]
	apply := func(draining ...int) {
		t.Helper()
		backends := c.backends(1, 2, 3)
		for _, i := range draining {
			backends[i].Draining = true
		}
		n.apply(c.plan(n, backends...))
	}
	n.apply(c.plan(n, c.backends(1)...))
	small, _ := n.table()
	apply()
	first, all := n.table()
	if len(all) != 3 || first == small {
		t.Fatalf("the table that grew is %v with the backends %v, was %v", first, all, small)
	}
	for _, draining := range [][]int{{0}, {0, 2}, {1}, {}} {
		apply(draining...)
		same, now := n.table()
		if len(now) != 3-len(draining) {
			t.Errorf("with %v draining the table has the backends %v", draining, now)
		}
		if same != first {
			t.Errorf("with %v draining there is another table", draining)
		}
		for _, i := range draining {
			if id := uint32(i + 1); now[id] > 0 {
				t.Errorf("backend %d drains and has %d places", id, now[id])
			}
		}
	}
	apply(0, 1, 2)
	if _, none := n.table(); len(none) != 0 {
		t.Errorf("with all draining the table has the backends %v", none)
	}
}

// table reads the first frontend's table: which map it is, and how many places
// each backend has.
func (n *node) table() (ebpf.MapID, map[uint32]int) {
	n.t.Helper()
	pins, err := filepath.Glob(filepath.Join(n.pins, "maps", "tables_*"))
	if err != nil || len(pins) != 1 {
		n.t.Fatalf("%v, %v", pins, err)
	}
	tables, err := ebpf.LoadPinnedMap(pins[0], nil)
	if err != nil {
		n.t.Fatal(err)
	}
	defer tables.Close()
	var inner *ebpf.Map
	if err := tables.Lookup(uint32(1), &inner); err != nil {
		n.t.Fatal(err)
	}
	defer inner.Close()
	info, err := inner.Info()
	if err != nil {
		n.t.Fatal(err)
	}
	id, _ := info.ID()
	var size [16]uint32
	if err := inner.Lookup(uint32(0), &size); err != nil {
		n.t.Fatal(err)
	}
	places := make(map[uint32]int)
	for i := range size[0] {
		var part [16]uint32
		if err := inner.Lookup(1+i/16, &part); err != nil {
			n.t.Fatal(err)
		}
		places[part[i%16]]++
	}
	return id, places
}

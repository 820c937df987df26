package api

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var byValue = cmpopts.EquateComparable(netip.Addr{})

func TestWithSharesWhatDidNotChange(t *testing.T) {
	before := &Snapshot{
		Index: 7,
		Nodes: map[NodeID]*Node{"n1": {ID: "n1"}},
		Tasks: map[TaskID]*Task{"t1": {ID: "t1"}, "t2": {ID: "t2"}},
	}
	after := before.With([]Change{
		{Task: &Task{ID: "t1", Reason: "changed"}},
		DeleteTask(&Task{ID: "t2"}),
		{Service: &Service{ID: "s1"}},
	})

	want := &Snapshot{
		Index:    7,
		Nodes:    map[NodeID]*Node{"n1": {ID: "n1"}},
		Services: map[ServiceID]*Service{"s1": {ID: "s1"}},
		Tasks:    map[TaskID]*Task{"t1": {ID: "t1", Reason: "changed"}},
	}
	if diff := cmp.Diff(want, after, byValue, cmpopts.IgnoreUnexported(Snapshot{})); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
	if len(before.Tasks) != 2 || before.Tasks["t1"].Reason != "" || before.Services != nil {
		t.Errorf("the snapshot itself changed: %+v", before)
	}
}

func TestMergeKeepsTheLastChangeOfEachObject(t *testing.T) {
	made := &Task{ID: "new"}
	placed := &Task{ID: "new", NodeID: "n1"}
	known := &Task{ID: "old", Meta: Meta{Modified: 3}}
	brief := &Task{ID: "brief"}

	got := Merge(
		[]Change{{Task: made}, {Task: known}, {Task: brief}},
		[]Change{{Task: placed}, DeleteTask(brief), DeleteTask(known)},
	)
	want := []Change{{Task: placed}, DeleteTask(known)}
	if diff := cmp.Diff(want, got, byValue); diff != "" {
		t.Errorf("Merge (-want +got):\n%s", diff)
	}
}

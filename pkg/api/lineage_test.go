package api

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// Whatever differs between two snapshots, Since names, however they hang
// together; and it knows of those that are near.
func TestSinceNamesWhatDiffers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := []*Snapshot{(&Snapshot{}).With([]Change{{Cluster: &Cluster{}}})}
		for i := range rapid.IntRange(1, 80).Draw(t, "snapshots") {
			from := all[rapid.IntRange(max(0, i-3), i).Draw(t, "from")]
			all = append(all, from.With([]Change{{
				Task:   &Task{ID: TaskID(fmt.Sprint(rapid.IntRange(0, 5).Draw(t, "task")))},
				Delete: rapid.Bool().Draw(t, "delete"),
			}}))
		}
		a := rapid.IntRange(0, len(all)-1).Draw(t, "a")
		b := rapid.IntRange(0, len(all)-1).Draw(t, "b")
		refs, known := all[a].Since(all[b])
		if near := lineageSteps / 2; !known && max(a, b) < near {
			t.Fatalf("of the first %d, %d and %d have nothing in common", near, a, b)
		}
		named := map[string]bool{}
		for _, ref := range refs {
			named[ref.ID] = true
		}
		for i := range 6 {
			if id := fmt.Sprint(i); known && !named[id] && all[a].Tasks[TaskID(id)] != all[b].Tasks[TaskID(id)] {
				t.Fatalf("%d and %d differ in task %s, and only %v are named", a, b, id, refs)
			}
		}
	})
}

// What was made by itself has nothing in common with others, nor does what has
// become another state altogether.
func TestSinceKnowsItsLimits(t *testing.T) {
	first := (&Snapshot{}).With([]Change{{Cluster: &Cluster{}}})
	var many []Change
	for i := range lineageRefs + 1 {
		many = append(many, Change{Task: &Task{ID: TaskID(fmt.Sprint(i))}})
	}
	for name, other := range map[string]*Snapshot{"one of none": {}, "one of another": (&Snapshot{}).With(many[:1]), "after all has changed": first.With(many)} {
		if refs, known := other.Since(first); known {
			t.Errorf("%s: %d differences are named", name, len(refs))
		}
	}
	next := first
	for _, c := range many[:10*lineageSteps] {
		next = next.With([]Change{c})
		if n := len(next.lineage); n > lineageSteps+2 {
			t.Fatalf("it holds on to %d steps", n)
		}
	}
}

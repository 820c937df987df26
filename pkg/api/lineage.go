package api

import "slices"

// lineage is the latest steps on the way to a snapshot, the last of which led to
// it; empty for one that With did not make. By it those who keep something that
// they counted from one snapshot bring it up to date with another, at the cost of
// what changed: see Snapshot.Since.
type lineage []step

// step is what one call of With changed.
type step struct {
	to   *state
	refs []Ref
}

// state is a step's identity. It is not empty, so that each has an address of
// its own.
type state struct{ _ byte }

// Snapshots know this much of where they come from, so that they hold on to
// little: it is more than changes from one plan of the leader to the next, but
// where most of the state does.
const (
	lineageSteps = 32
	lineageRefs  = 4096
)

// with adds a step, and drops the oldest ones beyond what is known.
func (l lineage) with(changes []Change) lineage {
	last := step{to: new(state)}
	if len(l) == 0 || len(changes) > lineageRefs {
		return lineage{last}
	}
	last.refs = make([]Ref, len(changes))
	for i, c := range changes {
		last.refs[i] = c.Ref()
	}
	from, refs := len(l), len(changes)
	for from > 0 && len(l)-from < lineageSteps && refs+len(l[from-1].refs) <= lineageRefs {
		from--
		refs += len(l[from].refs)
	}
	return append(slices.Clone(l[max(0, from-1):]), last)
}

// Since names the objects that may differ between the snapshot and another: some
// of them perhaps more than once, some perhaps equal. It is false if it is not
// known how the two hang together; both are then to be read as a whole.
func (s *Snapshot) Since(other *Snapshot) (refs []Ref, known bool) {
	for i := len(s.lineage) - 1; i >= 0; i-- {
		at := slices.IndexFunc(other.lineage, func(o step) bool { return o.to == s.lineage[i].to })
		if at < 0 {
			continue
		}
		for _, part := range []lineage{s.lineage[i+1:], other.lineage[at+1:]} {
			for _, one := range part {
				refs = append(refs, one.refs...)
			}
		}
		return refs, true
	}
	return nil, false
}

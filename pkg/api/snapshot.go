package api

import (
	"cmp"
	"maps"
	"slices"
)

// Snapshot is one consistent state of the store, as planners read it. Objects
// and maps are shared and must not be changed: copy, then change. Nil maps are
// empty ones.
type Snapshot struct {
	Index    Index                  `json:"index"`
	Cluster  *Cluster               `json:"cluster,omitempty"`
	Nodes    map[NodeID]*Node       `json:"nodes,omitempty"`
	Services map[ServiceID]*Service `json:"services,omitempty"`
	Tasks    map[TaskID]*Task       `json:"tasks,omitempty"`
	Networks map[NetworkID]*Network `json:"networks,omitempty"`
	Files    map[FileID]*File       `json:"files,omitempty"`

	lineage lineage // how With made it
}

// Version is that of the state.
func (s *Snapshot) Version() Version {
	v := Version{Index: s.Index}
	if s.Cluster != nil {
		v.Epoch = s.Cluster.Epoch
	}
	return v
}

// Change puts (inserts or replaces) or deletes one object of the store: exactly
// one of the pointers is set.
//
// The object's Meta.Modified is the version that the change was made from, 0 if
// the object must not exist yet. The store applies a list of changes only if
// every one of them still finds its version; it then stamps Meta,
// Service.SpecVersion (when Spec.Task or Spec.Networks changed) and
// Endpoint.Since (when Endpoint.State changed) with the entry's index.
type Change struct {
	Cluster *Cluster `json:"cluster,omitempty"`
	Node    *Node    `json:"node,omitempty"`
	Service *Service `json:"service,omitempty"`
	Task    *Task    `json:"task,omitempty"`
	Network *Network `json:"network,omitempty"`
	File    *File    `json:"file,omitempty"`

	// Delete removes the object, of which only ID and Meta are looked at.
	Delete bool `json:"delete,omitempty"`
}

// Kind names a type of object in the store.
type Kind string

const (
	KindCluster Kind = "cluster"
	KindNode    Kind = "node"
	KindService Kind = "service"
	KindTask    Kind = "task"
	KindNetwork Kind = "network"
	KindFile    Kind = "file"
)

// Ref names one object of the store.
type Ref struct {
	Kind Kind
	ID   string // the singleton cluster object has none
}

// DeleteTask is the change that deletes t, without the weight of its spec.
func DeleteTask(t *Task) Change {
	return Change{Task: &Task{ID: t.ID, Meta: t.Meta}, Delete: true}
}

// DeleteFile is the change that deletes f, without its content.
func DeleteFile(f *File) Change {
	return Change{File: &File{ID: f.ID, Meta: f.Meta}, Delete: true}
}

// Ref names the object that the change is about; the zero Ref if it is about none.
func (c Change) Ref() Ref {
	switch {
	case c.Cluster != nil:
		return Ref{Kind: KindCluster}
	case c.Node != nil:
		return Ref{KindNode, string(c.Node.ID)}
	case c.Service != nil:
		return Ref{KindService, string(c.Service.ID)}
	case c.Task != nil:
		return Ref{KindTask, string(c.Task.ID)}
	case c.Network != nil:
		return Ref{KindNetwork, string(c.Network.ID)}
	case c.File != nil:
		return Ref{KindFile, string(c.File.ID)}
	}
	return Ref{}
}

// Expected is the version (Meta.Modified) that the object must have for the
// change to apply, 0 if it must not exist.
func (c Change) Expected() Index {
	switch {
	case c.Cluster != nil:
		return c.Cluster.Meta.Modified
	case c.Node != nil:
		return c.Node.Meta.Modified
	case c.Service != nil:
		return c.Service.Meta.Modified
	case c.Task != nil:
		return c.Task.Meta.Modified
	case c.Network != nil:
		return c.Network.Meta.Modified
	case c.File != nil:
		return c.File.Meta.Modified
	}
	return 0
}

// Merge joins lists of changes that were planned one on top of the other (see
// Snapshot.With) into one that the store can apply at once: of each object the
// last change only, in the place of the first. All of them name the version in
// the store, so the last one names it too. An object both made and deleted in
// the lists leaves no change.
func Merge(lists ...[]Change) []Change {
	var merged []Change
	at := map[Ref]int{}
	for _, list := range lists {
		for _, c := range list {
			ref := c.Ref()
			if i, seen := at[ref]; seen {
				merged[i] = c
				continue
			}
			at[ref] = len(merged)
			merged = append(merged, c)
		}
	}
	return slices.DeleteFunc(merged, func(c Change) bool {
		return c.Delete && c.Expected() == 0
	})
}

// With returns the snapshot as it is with the changes made, for the next
// planner in a row. It shares all that did not change. Nothing is stamped:
// objects keep the Meta, SpecVersion and Endpoint.Since they came with, and
// Index stays.
func (s *Snapshot) With(changes []Change) *Snapshot {
	if len(changes) == 0 {
		return s
	}
	next := *s
	next.lineage = s.lineage.with(changes)
	var nodes, services, tasks, networks, files bool // copied already
	for _, c := range changes {
		switch {
		case c.Cluster != nil:
			next.Cluster = c.Cluster
			if c.Delete {
				next.Cluster = nil
			}
		case c.Node != nil:
			set(&next.Nodes, &nodes, c.Node.ID, c.Node, c.Delete)
		case c.Service != nil:
			set(&next.Services, &services, c.Service.ID, c.Service, c.Delete)
		case c.Task != nil:
			set(&next.Tasks, &tasks, c.Task.ID, c.Task, c.Delete)
		case c.Network != nil:
			set(&next.Networks, &networks, c.Network.ID, c.Network, c.Delete)
		case c.File != nil:
			set(&next.Files, &files, c.File.ID, c.File, c.Delete)
		}
	}
	return &next
}

// set changes one entry of *m, which it replaces by a copy unless *copied.
func set[K comparable, V any](m *map[K]V, copied *bool, k K, v V, remove bool) {
	if !*copied {
		*copied = true
		*m = maps.Clone(*m)
		if *m == nil {
			*m = map[K]V{}
		}
	}
	if remove {
		delete(*m, k)
		return
	}
	(*m)[k] = v
}

// Sorted returns the values of one of a snapshot's maps in the order of their
// keys, so that planners visit objects in the same order every time.
func Sorted[K cmp.Ordered, V any](m map[K]V) []V {
	out := make([]V, 0, len(m))
	for _, k := range SortedKeys(m) {
		out = append(out, m[k])
	}
	return out
}

// SortedKeys returns the keys of a map in their order.
func SortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	if len(m) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(m))
}

// ServiceByName returns the service with that full name, or nil.
func (s *Snapshot) ServiceByName(name string) *Service {
	for _, svc := range s.Services {
		if svc.Spec.Name == name {
			return svc
		}
	}
	return nil
}

// NetworkByName returns the network with that full name, or nil.
func (s *Snapshot) NetworkByName(name string) *Network {
	for _, n := range s.Networks {
		if n.Name == name {
			return n
		}
	}
	return nil
}

package store

import (
	"fmt"

	"github.com/orch-dev/orch/pkg/api"
)

// The reads below see the newest state; two of them may see two states. What
// must fit together is read from one Snapshot. They return nil for what does not
// exist.

// Cluster returns the singleton cluster object.
func (s *Store) Cluster() *api.Cluster { return s.get(api.KindCluster, byID, "cluster").Cluster }

// Node returns the node with that ID.
func (s *Store) Node(id api.NodeID) *api.Node { return s.get(api.KindNode, byID, string(id)).Node }

// Service returns the service with that ID.
func (s *Store) Service(id api.ServiceID) *api.Service {
	return s.get(api.KindService, byID, string(id)).Service
}

// ServiceByName returns the service with that full name.
func (s *Store) ServiceByName(name string) *api.Service {
	return s.get(api.KindService, byClaim, serviceName(name)).Service
}

// Task returns the task with that ID.
func (s *Store) Task(id api.TaskID) *api.Task { return s.get(api.KindTask, byID, string(id)).Task }

// Network returns the network with that ID.
func (s *Store) Network(id api.NetworkID) *api.Network {
	return s.get(api.KindNetwork, byID, string(id)).Network
}

// NetworkByName returns the network with that full name.
func (s *Store) NetworkByName(name string) *api.Network {
	return s.get(api.KindNetwork, byClaim, networkName(name)).Network
}

// TasksByNode returns the tasks placed on a node, ordered by ID.
func (s *Store) TasksByNode(id api.NodeID) []*api.Task {
	s.mu.RLock()
	txn := s.db.Txn(false)
	s.mu.RUnlock()
	found, err := list(txn, api.KindTask, byNode, string(id))
	if err != nil {
		panic(fmt.Sprintf("read store: %v", err)) // only an index that does not exist
	}
	tasks := make([]*api.Task, len(found))
	for i, c := range found {
		tasks[i] = c.Task
	}
	return tasks
}

func (s *Store) get(kind api.Kind, index, key string) api.Change {
	s.mu.RLock()
	txn := s.db.Txn(false)
	s.mu.RUnlock()
	c, err := first(txn, kind, index, key)
	if err != nil {
		panic(fmt.Sprintf("read store: %v", err)) // only an index that does not exist
	}
	if c == nil {
		return api.Change{}
	}
	return *c
}

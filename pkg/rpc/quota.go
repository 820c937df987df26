package rpc

import (
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// What one node or user may have open with a node at a time. Managers, who may do
// everything anyway and who pass on what others ask, have no such bounds.
const (
	maxConnections = 64
	maxCalls       = 64
	// maxWorkerMessage bounds a request of a worker, which reports at most what
	// became of its own tasks.
	maxWorkerMessage = 4 << 20
	// bodyTime is how long a caller may take to send a request, other than
	// content.
	bodyTime = 30 * time.Second
)

// quota counts what each node or user has open.
type quota struct {
	most int
	mu   sync.Mutex
	open map[api.NodeID]int
}

func newQuota(most int) *quota { return &quota{most: most, open: make(map[api.NodeID]int)} }

// enter counts one more, unless there are too many already. The caller calls leave
// once it is over.
func (q *quota) enter(id api.NodeID) (leave func(), ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open[id] >= q.most {
		return nil, false
	}
	q.open[id]++
	return sync.OnceFunc(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.open[id]--; q.open[id] == 0 {
			delete(q.open, id)
		}
	}), true
}

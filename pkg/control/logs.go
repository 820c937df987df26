package control

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// ServiceLogs joins the output of a service's tasks, each chunk with the name
// of its task and node. A node that cannot be reached is said so in the stream
// and does not end it.
func (s *Server) ServiceLogs(ctx context.Context, req *api.ServiceLogsRequest, send func(*api.LogChunk) error) error {
	snap := s.Replica.Snapshot()
	svc, err := findService(snap, req.Service)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	each := func(chunk *api.LogChunk) error {
		mu.Lock()
		defer mu.Unlock()
		return send(chunk)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, t := range api.Sorted(snap.Tasks) {
		node := snap.Nodes[t.NodeID]
		if t.ServiceID != svc.ID || node == nil || t.Status.Removed || t.Status.ContainerID == "" {
			continue
		}
		g.Go(func() error {
			if node.State == api.NodeDown {
				text := "cannot read the output: the node is down\n"
				return each(&api.LogChunk{Task: t.Name(), Node: node.Hostname, Stderr: true, Data: []byte(text)})
			}
			err := rpc.Stream(ctx, s.Peers.Node(node), api.ProcTaskLogs,
				&api.TaskLogsRequest{Task: t.ID, Options: req.Options},
				func(chunk *api.LogChunk) error {
					chunk.Task, chunk.Node = t.Name(), node.Hostname
					return each(chunk)
				})
			if err != nil && ctx.Err() == nil {
				text := fmt.Sprintf("cannot read the output: %v\n", err)
				return each(&api.LogChunk{Task: t.Name(), Node: node.Hostname, Stderr: true, Data: []byte(text)})
			}
			return nil
		})
	}
	return g.Wait()
}

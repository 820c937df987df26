package agent

import (
	"context"
	"net/netip"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// Explainer says what the data plane does with packets.
type Explainer interface {
	Frontends() ([]api.NetFrontend, error)
	Drops() ([]api.NetDrop, error)
	Flows(api.NetFlowsRequest) (*api.NetFlows, error)
	Trace(api.NetTraceRequest) (*api.NetTrace, error)
}

// ServeNet adds to a mux what a node answers about its network. Node returns its
// data plane, and the cluster as it knows it or nil; an error while it has none.
func ServeNet(mux *rpc.Mux, node func() (Explainer, *api.Snapshot, error)) {
	rpc.Handle(mux, api.ProcNetFrontends, func(context.Context, *api.Empty) (*api.NetFrontends, error) {
		plane, view, err := node()
		if err != nil {
			return nil, err
		}
		list, err := plane.Frontends()
		names := namesIn(view)
		for i := range list {
			names.tell(list[i].Backends)
		}
		return &api.NetFrontends{Frontends: list}, err
	})
	rpc.Handle(mux, api.ProcNetDrops, func(context.Context, *api.Empty) (*api.NetDrops, error) {
		plane, _, err := node()
		if err != nil {
			return nil, err
		}
		list, err := plane.Drops()
		return &api.NetDrops{Drops: list}, err
	})
	rpc.Handle(mux, api.ProcNetFlows, func(_ context.Context, req *api.NetFlowsRequest) (*api.NetFlows, error) {
		plane, view, err := node()
		if err != nil {
			return nil, err
		}
		list, err := plane.Flows(*req)
		if err != nil {
			return nil, err
		}
		names := namesIn(view)
		for i, f := range list.Flows {
			list.Flows[i].Task = names.tasks[f.Backend.Addr()]
		}
		return list, nil
	})
	rpc.Handle(mux, api.ProcNetTrace, func(_ context.Context, req *api.NetTraceRequest) (*api.NetTrace, error) {
		plane, view, err := node()
		if err != nil {
			return nil, err
		}
		trace, err := plane.Trace(*req)
		if err != nil {
			return nil, err
		}
		names := namesIn(view)
		names.tell(trace.Candidates)
		trace.Task = names.tasks[trace.Backend.Addr()]
		return trace, nil
	})
}

// netNames are what people call the addresses of a cluster.
type netNames struct{ tasks, nodes map[netip.Addr]string }

func namesIn(view *api.Snapshot) netNames {
	n := netNames{make(map[netip.Addr]string), make(map[netip.Addr]string)}
	if view == nil {
		return n
	}
	for _, node := range view.Nodes {
		n.nodes[node.Addr] = node.Hostname
	}
	for _, t := range view.Tasks {
		if !t.Endpoint.Addr.IsValid() || t.Endpoint.State == api.EndpointGone {
			continue
		}
		name := t.Name()
		if node := view.Nodes[t.NodeID]; t.Slot == 0 && node != nil {
			name = t.ServiceName + "." + node.Hostname
		}
		n.tasks[t.Endpoint.Addr] = name
	}
	return n
}

// tell fills in the names of backends.
func (n netNames) tell(backends []api.NetBackend) {
	for i := range backends {
		b := &backends[i]
		b.Task = n.tasks[b.Addr]
		if addr, err := netip.ParseAddr(b.Node); err == nil && n.nodes[addr] != "" {
			b.Node = n.nodes[addr]
		}
	}
}

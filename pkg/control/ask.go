package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

const (
	// explainTimeout bounds what a node may take to look something up,
	// diagnoseTimeout what it may take to try out its ways to the others.
	explainTimeout  = 8 * time.Second
	diagnoseTimeout = 40 * time.Second
)

// serveAsk adds what is asked of nodes. A manager needs no leader for it.
func (s *Server) serveAsk() {
	rpc.Handle(s.mux, api.ProcAskFrontends, func(ctx context.Context, req *api.Ask[api.Empty]) (*api.Answers[api.NetFrontends], error) {
		return ask[api.Empty, api.NetFrontends](ctx, s, api.ProcNetFrontends, req, explainTimeout)
	})
	rpc.Handle(s.mux, api.ProcAskDrops, func(ctx context.Context, req *api.Ask[api.Empty]) (*api.Answers[api.NetDrops], error) {
		return ask[api.Empty, api.NetDrops](ctx, s, api.ProcNetDrops, req, explainTimeout)
	})
	rpc.Handle(s.mux, api.ProcAskFlows, func(ctx context.Context, req *api.Ask[api.NetFlowsRequest]) (*api.Answers[api.NetFlows], error) {
		return ask[api.NetFlowsRequest, api.NetFlows](ctx, s, api.ProcNetFlows, req, explainTimeout)
	})
	rpc.Handle(s.mux, api.ProcAskTrace, func(ctx context.Context, req *api.Ask[api.NetTraceRequest]) (*api.Answers[api.NetTrace], error) {
		return ask[api.NetTraceRequest, api.NetTrace](ctx, s, api.ProcNetTrace, req, explainTimeout)
	})
	rpc.Handle(s.mux, api.ProcAskDiagnose, s.Diagnose)
}

// ask asks every node that the request is for, side by side. A node that does
// not answer is said so in its place.
func ask[Req, Res any](ctx context.Context, s *Server, procedure string, req *api.Ask[Req], timeout time.Duration) (*api.Answers[Res], error) {
	snap := s.Replica.Snapshot()
	nodes := api.Sorted(snap.Nodes)
	if req.Node != "" {
		node, err := findNode(snap, req.Node)
		if err != nil {
			return nil, err
		}
		nodes = []*api.Node{node}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answers := make([]api.Answer[Res], len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		answers[i] = api.Answer[Res]{Node: n.ID, Hostname: n.Hostname, Addr: n.Addr}
		wg.Go(func() {
			res, err := rpc.Call[Req, Res](ctx, s.Peers.Node(n), procedure, &req.Request)
			if err != nil {
				answers[i].Error = fmt.Sprintf("does not answer: %v", err)
				return
			}
			answers[i].Answer = res
		})
	}
	wg.Wait()
	slices.SortStableFunc(answers, func(a, b api.Answer[Res]) int { return cmp.Compare(a.Hostname, b.Hostname) })
	return &api.Answers[Res]{Nodes: answers}, nil
}

// Diagnose has the nodes examine themselves, and compares their clocks with
// this manager's.
func (s *Server) Diagnose(ctx context.Context, req *api.Ask[api.Empty]) (*api.Answers[api.NodeFacts], error) {
	answers, err := ask[api.Empty, api.NodeFacts](ctx, s, api.ProcDiagnose, req, diagnoseTimeout)
	if err != nil {
		return nil, err
	}
	nodes := s.Replica.Snapshot().Nodes
	for _, a := range answers.Nodes {
		node := nodes[a.Node]
		if a.Answer == nil || node == nil {
			continue
		}
		asked := s.Now()
		clock, err := rpc.Call[api.Empty, api.Clock](ctx, s.Peers.Node(node), api.ProcClock, &api.Empty{})
		if err != nil {
			continue
		}
		took := s.Now().Sub(asked)
		a.Answer.Clock = &api.ClockDifference{Ahead: clock.Now.Sub(asked.Add(took / 2)), Within: took/2 + time.Millisecond}
	}
	return answers, nil
}

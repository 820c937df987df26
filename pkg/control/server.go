// Package control answers the cluster's API on a manager: users' calls, the
// agents' streams of assignments and their reports. Calls that need the leader
// are forwarded to it.
package control

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/manager"
	"github.com/orch-dev/orch/pkg/rpc"
)

// leaderWait is how long a call is held while no leader is elected; an agent's
// report is soon sent again.
const (
	leaderWait       = 5 * time.Second
	leaderWaitReport = time.Second
)

// Config is what a Server needs.
type Config struct {
	Node    api.NodeID
	Replica *manager.Replica
	Tracker *manager.Tracker
	Peers   *rpc.Pool
	NewID   func() string
	Now     func() time.Time
	Log     *slog.Logger
}

// Server answers the procedures of a manager.
type Server struct {
	Config
	mux *rpc.Mux
}

func New(cfg Config) *Server {
	s := &Server{Config: cfg, mux: rpc.NewMux()}
	rpc.Handle(s.mux, api.ProcAdmit, s.Admit)
	rpc.Handle(s.mux, api.ProcAddVoter, s.AddVoter)
	rpc.Handle(s.mux, api.ProcJoinTokens, s.JoinTokens)
	rpc.Handle(s.mux, api.ProcNodes, s.Nodes)
	rpc.Handle(s.mux, api.ProcUpdateNode, s.UpdateNode)
	rpc.Handle(s.mux, api.ProcDeploy, s.Deploy)
	rpc.HandleStream(s.mux, api.ProcWatchStack, s.WatchStack)
	rpc.Handle(s.mux, api.ProcStacks, s.Stacks)
	rpc.Handle(s.mux, api.ProcRemoveStack, s.RemoveStack)
	rpc.Handle(s.mux, api.ProcServices, s.Services)
	rpc.Handle(s.mux, api.ProcTasks, s.Tasks)
	rpc.Handle(s.mux, api.ProcScale, s.Scale)
	rpc.Handle(s.mux, api.ProcUpdate, s.Update)
	rpc.Handle(s.mux, api.ProcSteer, s.Steer)
	rpc.HandleStream(s.mux, api.ProcServiceLogs, s.ServiceLogs)
	rpc.HandleStream(s.mux, api.ProcSession, s.Session)
	rpc.Handle(s.mux, api.ProcReport, s.Report)
	return s
}

// local procedures are answered by any manager from its own replica; stale ones
// too, but only while no leader can be asked.
var (
	local = map[string]bool{api.ProcSession: true}
	stale = map[string]bool{
		api.ProcNodes: true, api.ProcStacks: true, api.ProcServices: true,
		api.ProcTasks: true, api.ProcJoinTokens: true, api.ProcServiceLogs: true,
	}
)

// ServeHTTP answers here what this manager may answer and forwards the rest to
// the leader. While there is none it waits a bounded time for one.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	procedure := r.URL.Path
	if local[procedure] || s.leads() {
		s.mux.ServeHTTP(w, r)
		return
	}
	wait := leaderWait
	if procedure == api.ProcReport {
		wait = leaderWaitReport
	}
	addr, ok := s.awaitLeader(r.Context(), wait)
	switch {
	case ok && addr == "": // it is this node now
		s.mux.ServeHTTP(w, r)
	case ok && rpc.Hops(r) < maxHops:
		s.Peers.Get(addr).Forward(w, r)
	case stale[procedure] && s.Replica.Snapshot().Cluster != nil:
		s.mux.ServeHTTP(w, r)
	default:
		rpc.WriteError(w, r, api.Errorf(api.CodeUnavailable,
			"no quorum: the cluster has no leader, because too few of its managers answer; nothing was changed (see `orch node ls`)"))
	}
}

// maxHops is how often a call is passed on: by a worker to a manager, by that one
// to the leader.
const maxHops = 2

// leads reports whether this manager leads and knows all that the leaders before
// it did: from an older state it would answer that what exists does not, and
// would drop reports of tasks that it has not heard of.
func (s *Server) leads() bool { return s.Replica.Raft.IsLeader() && s.Tracker.Leads() }

// awaitLeader returns the leader's API address, or "" if this node leads.
func (s *Server) awaitLeader(ctx context.Context, wait time.Duration) (addr string, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		if s.leads() {
			return "", true
		}
		if id, addr, ok := s.Replica.Raft.Leader(); ok && id != s.Node {
			return addr, true
		}
		select {
		case <-ctx.Done():
			return "", false
		case <-poll.C:
		}
	}
}

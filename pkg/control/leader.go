package control

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// leaderWait is how long a call is held while no leader is elected; an agent's
// report is soon sent again.
const (
	leaderWait       = 5 * time.Second
	leaderWaitReport = time.Second
	leaderPoll       = 20 * time.Millisecond
)

// local procedures are answered by any manager from its own replica; reads too,
// but only if the caller wants that.
var (
	local = map[string]bool{
		api.ProcSession: true, api.ProcRenew: true, api.ProcTaskFiles: true, api.ProcAskFrontends: true, api.ProcAskDrops: true,
		api.ProcAskFlows: true, api.ProcAskTrace: true, api.ProcAskDiagnose: true,
	}
	reads = map[string]bool{
		api.ProcNodes: true, api.ProcStacks: true, api.ProcServices: true,
		api.ProcTasks: true, api.ProcJoinTokens: true, api.ProcServiceLogs: true, api.ProcWhy: true, api.ProcFiles: true, api.ProcFile: true,
		api.ProcAuthority: true, api.ProcBackup: true,
	}
)

// ServeHTTP answers here what this manager may answer and has the leader answer
// the rest.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	procedure, caller := r.URL.Path, rpc.CallerOf(r.Context())
	if caller.By != "" {
		if err := s.MayPassOn(caller.By); err != nil {
			s.Log.Warn("refused a call that was passed on", "by", caller.By, "for", caller, "procedure", procedure, "err", err)
			rpc.WriteError(w, r, err)
			return
		}
	}
	renewsUser := procedure == api.ProcRenew && caller.Role == api.RoleUser
	if local[procedure] && !renewsUser || reads[procedure] && rpc.ReadOf(r) == api.ReadStale {
		s.answer(w, r)
		return
	}
	if rpc.ReadOf(r) == api.ReadStale {
		rpc.WriteError(w, r, api.Errorf(api.CodeInvalid, "--stale is for commands that list things: this one needs the leader"))
		return
	}
	end, ok := s.calls.begin(r)
	if !ok {
		rpc.WriteError(w, r, api.Undone("this manager is being stopped: ask another"))
		return
	}
	defer end()
	switch {
	case rpc.Hops(r) == 0 && s.deposed(caller) && !s.leads():
		rpc.WriteError(w, r, api.Undone("this node is not a manager any more: ask another"))
	case rpc.Hops(r) == 0:
		s.haveLeader(w, r)
	case s.leads():
		s.lead(w, r)
	default: // the manager that passed it on looks for another
		rpc.WriteError(w, r, api.Undone("this manager does not lead: ask another"))
	}
}

// haveLeader has the leader answer a request: this manager, or the one that it is
// passed on to. While there is none the request is held, for a bounded time, and
// it is tried again as long as nothing was done.
func (s *Server) haveLeader(w http.ResponseWriter, r *http.Request) {
	wait := leaderWait
	if r.URL.Path == api.ProcReport {
		wait = leaderWaitReport
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	held, err := rpc.Hold(w, r)
	if err != nil {
		rpc.WriteError(w, r, err)
		return
	}
	defer held.Release()
	for try := 0; ctx.Err() == nil; try++ {
		addr, found := s.leader(try)
		handler := s.lead
		switch {
		case addr == "":
		case reads[r.URL.Path] && !rpc.IsStream(r):
			handler = s.readFrom(addr, try)
		default:
			handler = s.Peers.Manager(addr).Forward
		}
		if found && held.Try(w, handler) {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(leaderPoll):
		}
	}
	nobody := func(w http.ResponseWriter, r *http.Request) {
		rpc.WriteError(w, r, api.Errorf(api.CodeUnavailable, "no quorum: the cluster has no leader, because too few of its managers answer; nothing was changed. "+
			"What this manager knew last is shown by commands that list things with --stale, such as `orch node ls --stale`"))
	}
	held.Try(w, nobody)
}

// readFrom has the leader at addr answer a request that changes nothing. It is not
// waited for once it leads no more: if its machine is gone, only time would tell.
func (s *Server) readFrom(addr string, try int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		leads, end := context.WithCancel(r.Context())
		defer end()
		go func() {
			defer end()
			for now, found := addr, true; found && now == addr; now, found = s.leader(try) {
				select {
				case <-leads.Done():
					return
				case <-time.After(leaderPoll):
				}
			}
		}()
		s.Peers.Manager(addr).ForwardRead(leads, w, r)
	}
}

// leader returns the API address of the manager to ask, "" for this one. A manager
// that takes no part in Raft does not know, and asks one after the other.
func (s *Server) leader(try int) (addr string, found bool) {
	if s.leads() {
		return "", true
	}
	if s.Replica.Raft.Stalled() {
		others := managersBut(s.Replica.Snapshot(), s.Node)
		if len(others) == 0 {
			return "", false
		}
		return others[try%len(others)].APIAddr(), true
	}
	id, addr, ok := s.Replica.Raft.Leader()
	return addr, ok && id != s.Node
}

// lead answers a request as the leader. A consistent read waits for an entry of its
// own: what was acknowledged before it, by whichever leader, is applied then. That a
// quorum answers heartbeats says less: they may have been sent before the read came.
func (s *Server) lead(w http.ResponseWriter, r *http.Request) {
	if rpc.ReadOf(r) == api.ReadConsistent && reads[r.URL.Path] {
		ctx, cancel := context.WithTimeout(r.Context(), leaderWait)
		defer cancel()
		if err := s.Replica.Raft.Barrier(ctx); err != nil {
			rpc.WriteError(w, r, api.Undone("no quorum: the leader cannot make sure that it still leads: %v", err))
			return
		}
	}
	s.answer(w, r)
}

// leads reports whether this manager leads and knows all that the leaders before
// it did: from an older state it would answer that what exists does not, and
// would drop reports of tasks that it has not heard of.
func (s *Server) leads() bool { return s.Replica.Leads(s.Tracker) }

// managersBut are the managers without one of them.
func managersBut(snap *api.Snapshot, but api.NodeID) []*api.Node {
	var out []*api.Node
	for _, n := range api.Sorted(snap.Nodes) {
		if n.Role == api.RoleManager && n.ID != but {
			out = append(out, n)
		}
	}
	return out
}

// calls are those in progress, but for streams, which have no end of their own.
type calls struct {
	mu     sync.Mutex
	open   int
	ending chan struct{} // set once no other is taken; closed when none is open
}

// begin counts a call until end is called. It is not ok if no call is taken any more.
func (c *calls) begin(r *http.Request) (end func(), ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending != nil {
		return nil, false
	}
	if rpc.IsStream(r) {
		return func() {}, true
	}
	c.open++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.open--; c.open == 0 && c.ending != nil {
			close(c.ending)
		}
	}, true
}

// finish takes no more calls and returns a channel that is closed when those in
// progress are answered.
func (c *calls) finish() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending == nil {
		if c.ending = make(chan struct{}); c.open == 0 {
			close(c.ending)
		}
	}
	return c.ending
}

// farewell is how long a manager that has handed over still says that it does not
// lead: others that have not heard of the new leader send it what it is not to lose.
const farewell = 300 * time.Millisecond

// HandOver lets another manager lead, if this one does, and answers what it has
// been asked: after it no call is lost if the manager is stopped.
func (s *Server) HandOver(ctx context.Context) error {
	var err error
	if s.Replica.Raft.IsLeader() && len(managersBut(s.Replica.Snapshot(), s.Node)) > 0 {
		err = s.Replica.Raft.TransferLeadership(ctx)
		defer func() {
			select {
			case <-time.After(farewell):
			case <-ctx.Done():
			}
		}()
	}
	select {
	case <-s.calls.finish():
		return err
	case <-ctx.Done():
		return errors.Join(err, ctx.Err())
	}
}

package control

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// Session sends an agent its node's view of the cluster, as api.Updates: first all
// of it, then every change in the order of the log. Each update carries the index
// that the agent acknowledges once it has applied it. A node has one session: its
// next one ends it.
func (s *Server) Session(ctx context.Context, req *api.SessionRequest, send func(*rpc.Encoded) error) error {
	if err := ownCall(ctx, req.Node); err != nil {
		return err
	}
	ctx, end := s.sessions.begin(ctx, req.Node)
	defer end()
	var oldest api.Index
	for {
		if s.Replica.Node(req.Node) == nil {
			return notMember(req.Node)
		}
		at, err := s.views.sendFull(ctx, req.Node, oldest, send)
		if err != nil {
			return err
		}
		if err := s.follow(ctx, req.Node, at, send); !errors.Is(err, store.ErrTooOld) {
			return err
		}
		oldest = at + 1
	}
}

// updateTime is how long an agent may take to receive an update: another may wait
// for its turn to be sent everything.
const updateTime = time.Minute

// sessionRest is how long a session rests between two updates: when much changes,
// what changes meanwhile is one update.
const sessionRest = 10 * time.Millisecond

// follow sends what changes after an index until something fails or the agent
// has fallen too far behind.
func (s *Server) follow(ctx context.Context, node api.NodeID, after api.Index, send func(*rpc.Encoded) error) error {
	watch := s.Replica.Watch(after)
	for {
		deltas, err := watch.Next(ctx)
		if err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		told := make([]*news, len(deltas))
		for i, d := range deltas {
			if told[i], err = s.views.news(d); err != nil {
				return err
			}
			if told[i].removed[node] {
				return notMember(node)
			}
		}
		update, err := encodeUpdate(node, false, told...)
		if err == nil {
			err = send(update)
		}
		if err != nil {
			return err
		}
		select {
		case <-time.After(sessionRest):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// sessions are the agents' streams from this manager.
type sessions struct {
	mu   sync.Mutex
	open map[api.NodeID]*session
}

// session is its own identity.
type session struct{ end context.CancelCauseFunc }

var errNextSession = api.Errorf(api.CodeUnavailable, "the node has opened another session")

// begin opens a node's session and ends the one before. The caller calls end once
// it is over.
func (s *sessions) begin(ctx context.Context, node api.NodeID) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	own := &session{cancel}
	s.mu.Lock()
	defer s.mu.Unlock()
	if before := s.open[node]; before != nil {
		before.end(errNextSession)
	}
	if s.open == nil {
		s.open = make(map[api.NodeID]*session)
	}
	s.open[node] = own
	return ctx, func() {
		cancel(nil)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[node] == own {
			delete(s.open, node)
		}
	}
}

// Package control answers the cluster's API on a manager: users' calls, the
// agents' streams of assignments and their reports. Calls that need the leader
// are forwarded to it.
package control

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/manager"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/rpc"
)

// Config is what a Server needs.
type Config struct {
	Node    api.NodeID
	Replica *manager.Replica
	Tracker *manager.Tracker
	Peers   *rpc.Pool
	NewID   func() string
	Rand    io.Reader // for certificates and secrets
	// Sign has an external authority sign a request: DER. Nil where there is none.
	Sign func(ctx context.Context, authority *api.Authority, request []byte, id pki.Identity) ([]byte, error)
	Now  func() time.Time
	Log  *slog.Logger
}

// Server answers the procedures of a manager.
type Server struct {
	Config
	mux      *rpc.Mux
	calls    calls
	views    *views
	sessions sessions
	reports  *rpc.Limiter[api.NodeID]

	members sync.Mutex // held while one manager is made none: see mayLose
}

func New(cfg Config) *Server {
	s := &Server{Config: cfg, mux: rpc.NewMux(), views: newViews(cfg.Replica.Snapshot, cfg.Now)}
	s.reports = rpc.NewLimiter[api.NodeID](reportBurst, reportEvery, cfg.Now)
	rpc.Handle(s.mux, api.ProcAdmit, s.Admit)
	rpc.Handle(s.mux, api.ProcAddMember, s.AddMember)
	rpc.Handle(s.mux, api.ProcRenew, s.Renew)
	rpc.Handle(s.mux, api.ProcJoinTokens, s.JoinTokens)
	rpc.Handle(s.mux, api.ProcRotateToken, s.RotateToken)
	rpc.Handle(s.mux, api.ProcAuthority, s.Authority)
	rpc.Handle(s.mux, api.ProcRotateAuthority, s.RotateAuthority)
	rpc.Handle(s.mux, api.ProcFinishRotation, s.FinishRotation)
	rpc.Handle(s.mux, api.ProcUsers, s.Users)
	rpc.Handle(s.mux, api.ProcAddUser, s.AddUser)
	rpc.Handle(s.mux, api.ProcRemoveUser, s.RemoveUser)
	rpc.Handle(s.mux, api.ProcNodes, s.Nodes)
	rpc.Handle(s.mux, api.ProcUpdateNode, s.UpdateNode)
	rpc.Handle(s.mux, api.ProcRemoveNode, s.RemoveNode)
	rpc.Handle(s.mux, api.ProcDepart, s.Depart)
	rpc.Handle(s.mux, api.ProcDeploy, s.Deploy)
	rpc.HandleStream(s.mux, api.ProcWatchStack, s.WatchStack)
	rpc.Handle(s.mux, api.ProcStacks, s.Stacks)
	rpc.Handle(s.mux, api.ProcRemoveStack, s.RemoveStack)
	rpc.Handle(s.mux, api.ProcServices, s.Services)
	rpc.Handle(s.mux, api.ProcTasks, s.Tasks)
	rpc.Handle(s.mux, api.ProcScale, s.Scale)
	rpc.Handle(s.mux, api.ProcUpdate, s.Update)
	rpc.Handle(s.mux, api.ProcSteer, s.Steer)
	rpc.Handle(s.mux, api.ProcWhy, s.Why)
	rpc.Handle(s.mux, api.ProcRebalance, s.Rebalance)
	rpc.HandleStream(s.mux, api.ProcServiceLogs, s.ServiceLogs)
	rpc.HandleStreamWithin(s.mux, api.ProcSession, updateTime, s.Session)
	rpc.Handle(s.mux, api.ProcReport, s.Report)
	rpc.Handle(s.mux, api.ProcImageSources, s.ImageSources)
	rpc.Handle(s.mux, api.ProcImageHolders, s.ImageHolders)
	rpc.Handle(s.mux, api.ProcUpdateCluster, s.UpdateCluster)
	rpc.Handle(s.mux, api.ProcClusterSettings, s.ClusterSettings)
	rpc.Handle(s.mux, api.ProcRotateGossipKey, s.RotateGossipKey)
	rpc.Handle(s.mux, api.ProcUnlockKey, s.UnlockKey)
	rpc.Handle(s.mux, api.ProcCreateFile, s.CreateFile)
	rpc.Handle(s.mux, api.ProcFiles, s.Files)
	rpc.Handle(s.mux, api.ProcFile, s.File)
	rpc.Handle(s.mux, api.ProcRemoveFile, s.RemoveFile)
	rpc.Handle(s.mux, api.ProcTaskFiles, s.TaskFiles)
	rpc.HandleContent(s.mux, api.ProcBackup, s.Backup)
	rpc.Handle(s.mux, api.ProcBackupKey, s.BackupKey)
	s.serveAsk()
	return s
}

// answer answers a request here.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	caller := rpc.CallerOf(r.Context())
	if err := s.authorize(caller, r.URL.Path); err != nil {
		rpc.WriteError(w, r, err)
		return
	}
	if caller.Role == api.RoleUser {
		allowed, cancel := s.whileAllowed(r)
		defer cancel()
		r = allowed
	}
	s.mux.ServeHTTP(w, r)
}

// authorize looks a caller up: its certificate says what it was when that was
// issued, the state what it is now.
func (s *Server) authorize(caller rpc.Caller, procedure string) error {
	snap := s.Replica.Snapshot()
	node := snap.Nodes[caller.Node]
	switch {
	case snap.Cluster == nil:
		return noState()
	case caller.Local, api.AccessTo(procedure) == api.AccessAnyone:
		return nil
	case caller.Role == api.RoleUser:
		return authorizeUser(snap.Cluster, caller.Node, procedure)
	case node == nil:
		return notMember(caller.Node)
	case api.AccessTo(procedure).ManagersOnly() && node.Role != api.RoleManager:
		return api.Errorf(api.CodeDenied, "node %s (%s) is not a manager any more", node.Hostname, node.ID)
	}
	return nil
}

// MayPassOn tells why a node may not speak for others, if so: it is no manager (any
// more), whatever its certificate says. Only the leader knows that for sure: on
// another manager the node may be a manager that it has not heard of, and who
// passes calls on in good faith asks the leader. In either case it may ask again.
func (s *Server) MayPassOn(node api.NodeID) error {
	snap := s.Replica.Snapshot()
	switch n := snap.Nodes[node]; {
	case snap.Cluster == nil, n != nil && n.Role == api.RoleManager:
		return nil
	case s.leads():
		return &api.Error{Code: api.CodeDenied, Undone: true,
			Message: fmt.Sprintf("only managers pass on what others ask, and node %s is not one (any more)", node)}
	}
	return api.Undone("only managers pass on what others ask, and as far as this one knows node %s is not one: ask the leader", node)
}

// deposed reports whether this node is no manager any more, and who calls another
// than itself: nobody would believe what it passed on.
func (s *Server) deposed(caller rpc.Caller) bool {
	self := s.Replica.Node(s.Node)
	return !caller.Local && caller.Node != s.Node && self != nil && self.Role != api.RoleManager
}

func noState() error {
	return api.Errorf(api.CodeUnavailable, "this manager does not have the cluster's state yet: try again")
}

func notMember(id api.NodeID) error {
	return api.Errorf(api.CodeDenied, "node %s is not a member of this cluster (any more)", id)
}

// ownCall refuses a node that speaks for another.
func ownCall(ctx context.Context, node api.NodeID) error {
	if caller := rpc.CallerOf(ctx); !caller.Local && caller.Node != node {
		return api.Errorf(api.CodeDenied, "node %s may speak only for itself, not for %s", caller.Node, node)
	}
	return nil
}

package control

import (
	"cmp"
	"context"
	"net/http"
	"slices"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/rpc"
)

// Users lists those who may call from other machines.
func (s *Server) Users(context.Context, *api.Empty) (*api.UserList, error) {
	return &api.UserList{Users: append([]api.User{}, s.Replica.Snapshot().Cluster.Users...)}, nil
}

// AddUser makes a user and their certificate, whose key stays with who asks.
func (s *Server) AddUser(ctx context.Context, req *api.AddUserRequest) (*api.UserAccess, error) {
	if err := api.ValidateName("user", req.Name); err != nil {
		return nil, err
	}
	if _, err := pki.RequestKey(req.Request); err != nil {
		return nil, err
	}
	snap := s.Replica.Snapshot()
	user := api.User{ID: api.NodeID(s.NewID()), Name: req.Name, Role: req.Role, CreatedAt: s.Now(), Issuer: snap.Cluster.Issuer().ID()}
	if _, err := withUser(snap.Cluster.Users, &user, req.Renew); err != nil {
		return nil, err
	}
	certificate, err := s.certify(ctx, snap, req.Request, userIdentity(snap, &user))
	if err != nil {
		return nil, err
	}
	if _, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		users, err := withUser(snap.Cluster.Users, &user, req.Renew)
		if err != nil {
			return nil, err
		}
		next := *snap.Cluster
		next.Users = users
		return []api.Change{{Cluster: &next}}, nil
	}); err != nil {
		return nil, err
	}
	s.Log.Info("user added", "name", user.Name, "role", user.Role, "renewed", req.Renew)
	return &api.UserAccess{Cluster: snap.Cluster.ID, User: user, Certificate: *certificate, Managers: managerAddrs(s.Replica.Snapshot())}, nil
}

func userIdentity(snap *api.Snapshot, user *api.User) pki.Identity {
	return pki.Identity{Cluster: snap.Cluster.ID, Role: api.RoleUser, Node: user.ID}
}

// withUser returns the users with one more, or one in the place of its former self.
func withUser(users []api.User, user *api.User, renew bool) ([]api.User, error) {
	at, there := slices.BinarySearchFunc(users, user.Name, func(u api.User, name string) int { return cmp.Compare(u.Name, name) })
	switch {
	case renew && !there:
		return nil, noUser(user.Name)
	case renew && user.Role == "":
		user.Role = users[at].Role
	case !renew && there:
		return nil, api.Errorf(api.CodeConflict, "there is a user %s already: `orch user renew` gives them a new certificate", user.Name)
	case !renew && len(users) >= api.MaxUsers:
		return nil, api.Errorf(api.CodeInvalid, "there are %d users, more are not possible", api.MaxUsers)
	}
	if user.Role != api.UserAdmin && user.Role != api.UserViewer {
		return nil, api.Errorf(api.CodeInvalid, "unknown role %q of a user: use admin or viewer", user.Role)
	}
	users = slices.Clone(users)
	if there {
		users[at] = *user
		return users, nil
	}
	return slices.Insert(users, at, *user), nil
}

// renewUser issues a user's next certificate, and notes which authority signed it.
func (s *Server) renewUser(ctx context.Context, id api.NodeID, request []byte) (*api.Certificate, error) {
	snap := s.Replica.Snapshot()
	user, issuer := snap.Cluster.User(id), snap.Cluster.Issuer().ID()
	if user == nil {
		return nil, removedUser()
	}
	certificate, err := s.certify(ctx, snap, request, userIdentity(snap, user))
	if err != nil {
		return nil, err
	}
	_, err = s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		user := snap.Cluster.User(id)
		if user == nil {
			return nil, removedUser()
		}
		if user.Issuer == issuer {
			return nil, nil
		}
		next := *snap.Cluster
		next.Users = slices.Clone(next.Users)
		next.User(id).Issuer = issuer
		return []api.Change{{Cluster: &next}}, nil
	})
	return certificate, err
}

func removedUser() error {
	return api.Errorf(api.CodeDenied, "this user was removed, or was given another certificate since: ask for one (`orch user add`, `orch user renew`)")
}

func noUser(name string) error {
	return api.Errorf(api.CodeNotFound, "there is no user %q: see `orch user ls`", name)
}

// RemoveUser takes all rights from a user, and ends what they are doing.
func (s *Server) RemoveUser(ctx context.Context, req *api.RemoveUserRequest) (*api.Empty, error) {
	_, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		i := slices.IndexFunc(snap.Cluster.Users, func(u api.User) bool { return u.Name == req.Name })
		if i < 0 {
			return nil, noUser(req.Name)
		}
		next := *snap.Cluster
		next.Users = slices.Delete(slices.Clone(snap.Cluster.Users), i, i+1)
		return []api.Change{{Cluster: &next}}, nil
	})
	if err == nil {
		s.Log.Info("user removed", "name", req.Name)
	}
	return &api.Empty{}, err
}

// authorizeUser looks up what a user may.
func authorizeUser(cluster *api.Cluster, id api.NodeID, procedure string) error {
	user := cluster.User(id)
	switch access := api.AccessTo(procedure); {
	case user == nil:
		return removedUser()
	case access == api.AccessViewer, access == api.AccessKnown, access == api.AccessAdmin && user.Role == api.UserAdmin:
		return nil
	case access == api.AccessAdmin:
		return api.Errorf(api.CodeDenied, "user %s is a %s and may look only: an admin may do this", user.Name, user.Role)
	}
	return api.Errorf(api.CodeDenied, "users may not call %s", procedure)
}

// AuthorizeUser tells why a user may not call a procedure, if so. It is for what
// a manager answers beside the cluster's API.
func (s *Server) AuthorizeUser(id api.NodeID, procedure string) error {
	snap := s.Replica.Snapshot()
	if snap.Cluster == nil {
		return noState()
	}
	return authorizeUser(snap.Cluster, id, procedure)
}

// whileAllowed ends a user's request when they may not make it any more.
func (s *Server) whileAllowed(r *http.Request) (*http.Request, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	id := rpc.CallerOf(ctx).Node
	go func() {
		defer cancel()
		for {
			changed := s.Replica.Changed()
			if s.AuthorizeUser(id, r.URL.Path) != nil {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
		}
	}()
	return r.WithContext(ctx), cancel
}

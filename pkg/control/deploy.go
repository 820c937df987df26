package control

import (
	"context"
	"reflect"
	"slices"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/ipam"
)

// Deploy makes a stack be what req says, in one entry: all of it or nothing.
func (s *Server) Deploy(ctx context.Context, req *api.DeployRequest) (*api.DeployResponse, error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	warnings, err := s.pinImages(ctx, req.Services, req.Resolve)
	if err != nil {
		return nil, err
	}
	more, err := s.checkBinds(ctx, req.Services)
	if err != nil {
		return nil, err
	}
	res := &api.DeployResponse{Warnings: append(warnings, more...)}
	index, err := s.Replica.Update(ctx, func(snap *api.Snapshot) (changes []api.Change, err error) {
		changes, res.Services, err = planDeploy(snap, req, s.NewID, s.now())
		return changes, err
	})
	if err != nil {
		return nil, err
	}
	res.Index = index
	return res, nil
}

// planDeploy compares a stack with what is there.
func planDeploy(snap *api.Snapshot, req *api.DeployRequest, newID func() string, now time.Time) ([]api.Change, []api.ServiceChange, error) {
	changes, err := planNetworks(snap, req, newID)
	if err != nil {
		return nil, nil, err
	}
	if err := checkEncryption(snap.With(changes), req.Services); err != nil {
		return nil, nil, err
	}
	files, versions, err := planFiles(snap, req, newID, now)
	if err != nil {
		return nil, nil, err
	}
	changes = append(changes, files...)
	before := snap
	var done []api.ServiceChange
	if req.Prune { // first, so that what they have is free
		gone := unnamed(snap, req)
		changes, snap = append(changes, gone...), snap.With(gone)
		for _, c := range gone {
			done = append(done, api.ServiceChange{Name: c.Service.Spec.Name, Action: "removed"})
		}
	}
	for _, spec := range req.Services {
		next, action, err := planService(snap, req.Stack, withVersions(spec, versions), newID, now)
		if err != nil {
			return nil, nil, err
		}
		done = append(done, api.ServiceChange{Name: spec.Name, Action: action})
		if action != "unchanged" {
			changes = append(changes, api.Change{Service: next})
			snap = snap.With([]api.Change{{Service: next}})
		}
	}
	used, err := held(before, changes)
	return append(changes, used...), done, err
}

// unnamed removes the services of the stack that the request does not name.
func unnamed(snap *api.Snapshot, req *api.DeployRequest) []api.Change {
	var gone []api.Change
	for _, svc := range api.Sorted(snap.Services) {
		named := slices.ContainsFunc(req.Services, func(s api.ServiceSpec) bool { return s.Name == svc.Spec.Name })
		if svc.Stack == req.Stack && !named {
			gone = append(gone, api.Change{Service: svc, Delete: true})
		}
	}
	return gone
}

// planService makes or updates one service of a stack.
func planService(snap *api.Snapshot, stack string, spec api.ServiceSpec, newID func() string, now time.Time) (*api.Service, string, error) {
	next := &api.Service{ID: api.ServiceID(newID()), Stack: stack, Spec: spec}
	action := "created"
	if old := snap.ServiceByName(spec.Name); old != nil {
		if old.Stack != stack {
			return nil, "", api.Errorf(api.CodeConflict, "service %s exists and belongs to stack %q", spec.Name, old.Stack)
		}
		spec.Task.Forced = old.Spec.Task.Forced // no part of what a user declares
		if spec.Task.RegistryAuth == nil {
			spec.Task.RegistryAuth = old.Spec.Task.RegistryAuth
		}
		if reflect.DeepEqual(old.Spec, spec) {
			return old, "unchanged", nil
		}
		next, action = old.WithSpec(spec, now), "updated"
	}
	if err := ipam.PortConflict(snap, next); err != nil {
		return nil, "", api.Errorf(api.CodeConflict, "service %s: %v", spec.Name, err)
	}
	return next, action, nil
}

// planNetworks makes the networks of a stack that are not there yet.
func planNetworks(snap *api.Snapshot, req *api.DeployRequest, newID func() string) ([]api.Change, error) {
	var changes []api.Change
	for _, spec := range req.Networks {
		old := snap.NetworkByName(spec.Name)
		switch {
		case old == nil && spec.External:
			return nil, api.Errorf(api.CodeNotFound, "network %s is external but does not exist", spec.Name)
		case old == nil:
			changes = append(changes, api.Change{Network: &api.Network{
				ID: api.NetworkID(newID()), Name: spec.Name, Stack: req.Stack, Internal: spec.Internal, Encrypted: spec.Encrypted,
			}})
		case spec.External:
		case old.Stack != req.Stack:
			return nil, api.Errorf(api.CodeConflict, "network %s exists and belongs to stack %q", spec.Name, old.Stack)
		case old.Internal != spec.Internal || old.Encrypted != spec.Encrypted || old.Removing:
			next := *old
			next.Internal, next.Encrypted, next.Removing = spec.Internal, spec.Encrypted, false
			changes = append(changes, api.Change{Network: &next})
		}
	}
	return changes, nil
}

// RemoveStack takes away a stack's services; their tasks are drained and
// stopped, then the networks go. Named volumes stay.
func (s *Server) RemoveStack(ctx context.Context, req *api.StackRequest) (*api.RemoveStackResponse, error) {
	res := &api.RemoveStackResponse{}
	_, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		*res = api.RemoveStackResponse{}
		var changes []api.Change
		for _, svc := range api.Sorted(snap.Services) {
			if svc.Stack == req.Stack {
				changes = append(changes, api.Change{Service: svc, Delete: true})
				res.Services = append(res.Services, svc.Spec.Name)
			}
		}
		for _, n := range api.Sorted(snap.Networks) {
			if n.Stack == req.Stack && !n.Removing {
				next := *n
				next.Removing = true
				changes = append(changes, api.Change{Network: &next})
				res.Networks = append(res.Networks, n.Name)
			}
		}
		if len(changes) == 0 {
			return nil, unknownStack(req.Stack)
		}
		return changes, nil
	})
	slices.Sort(res.Services)
	return res, err
}

func unknownStack(name string) error {
	return api.Errorf(api.CodeNotFound, "no stack is called %q (see `orch stack ls`)", name)
}

// Scale sets numbers of replicas, of all services named or of none.
func (s *Server) Scale(ctx context.Context, req *api.ScaleRequest) (*api.ScaleResponse, error) {
	res := &api.ScaleResponse{}
	index, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		*res = api.ScaleResponse{}
		var changes []api.Change
		for ref, n := range req.Replicas {
			svc, err := findService(snap, ref)
			if err != nil {
				return nil, err
			}
			if svc.Spec.Mode.Global() {
				return nil, api.Errorf(api.CodeInvalid, "service %s is %s: only a replicated service can be scaled", svc.Spec.Name, svc.Spec.Mode)
			}
			if n < 0 || n > api.MaxReplicas {
				return nil, api.Errorf(api.CodeInvalid, "service %s: %d replicas: give 0 to %d", svc.Spec.Name, n, api.MaxReplicas)
			}
			res.Services = append(res.Services, svc.Spec.Name)
			if !slices.Contains(res.Stacks, svc.Stack) {
				res.Stacks = append(res.Stacks, svc.Stack)
			}
			if svc.Spec.Replicas != n {
				spec := svc.Spec
				spec.Replicas = n
				changes = append(changes, api.Change{Service: svc.WithSpec(spec, s.now())})
			}
		}
		return changes, nil
	})
	slices.Sort(res.Services)
	res.Index = index
	return res, err
}

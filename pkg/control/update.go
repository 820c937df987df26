package control

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/ipam"
)

// now is the time as the store keeps it.
func (s *Server) now() time.Time { return s.Now().UTC().Round(0) }

// Update changes one service.
func (s *Server) Update(ctx context.Context, req *api.UpdateRequest) (*api.UpdateResponse, error) {
	if req.Image != "" {
		spec := api.ServiceSpec{Task: api.TaskSpec{Image: req.Image, Pin: req.Pin, RegistryAuth: req.Auth}}
		pinned := []api.ServiceSpec{spec}
		if _, err := s.pinImages(ctx, pinned, req.Resolve); err != nil {
			return nil, err
		}
		next := *req
		next.Pin = pinned[0].Task.Pin
		req = &next
	}
	return s.change(ctx, req.Service, func(snap *api.Snapshot, svc *api.Service) (*api.Service, string, error) {
		spec, err := updatedSpec(svc.Spec, req)
		if err == nil {
			spec.Task.Files, err = changedFiles(snap, &svc.Spec, req)
		}
		if err != nil {
			return nil, "", err
		}
		if reflect.DeepEqual(spec, svc.Spec) {
			return svc, "unchanged", nil
		}
		return svc.WithSpec(spec, s.now()), "updated", nil
	})
}

// updatedSpec is a spec with what req asks for. It shares nothing that changed.
func updatedSpec(spec api.ServiceSpec, req *api.UpdateRequest) (api.ServiceSpec, error) {
	if req.Image != "" {
		spec.Task.Image, spec.Task.Pin = req.Image, req.Pin
	}
	if req.Auth != nil {
		spec.Task.RegistryAuth = req.Auth
	}
	if n := req.Replicas; n != nil {
		if spec.Mode.Global() {
			return spec, api.Errorf(api.CodeInvalid, "service %s is %s: it has no number of replicas", spec.Name, spec.Mode)
		}
		if *n < 0 || *n > api.MaxReplicas {
			return spec, api.Errorf(api.CodeInvalid, "service %s: %d replicas: give 0 to %d", spec.Name, *n, api.MaxReplicas)
		}
		spec.Replicas = *n
	}
	spec.Task.Env = changedEnv(spec.Task.Env, req.AddEnv, req.RemoveEnv)
	spec.Labels = changedLabels(spec.Labels, req.AddLabels, req.RemoveLabels)
	spec.Placement.Constraints = changedConstraints(spec.Placement.Constraints, req.AddConstraints, req.RemoveConstraints)
	if req.StopGrace != nil {
		spec.Task.StopGrace = *req.StopGrace
	}
	changeRules(&spec.Update, req.Update)
	changeRules(&spec.Rollback, req.Rollback)
	if req.Force {
		spec.Task.Forced++
	}
	if err := spec.ValidateSize(); err != nil {
		return spec, err
	}
	return spec, spec.ValidateUpdates()
}

func changedEnv(env, add, remove []string) []string {
	if len(add)+len(remove) == 0 {
		return env
	}
	key := func(kv string) string { k, _, _ := strings.Cut(kv, "="); return k }
	gone := slices.Clone(remove)
	for _, kv := range add {
		gone = append(gone, key(kv))
	}
	out := slices.DeleteFunc(slices.Clone(env), func(kv string) bool { return slices.Contains(gone, key(kv)) })
	out = append(out, add...)
	slices.Sort(out)
	return out
}

func changedLabels(labels, add map[string]string, remove []string) map[string]string {
	if len(add)+len(remove) == 0 {
		return labels
	}
	out := maps.Clone(labels)
	if out == nil {
		out = make(map[string]string)
	}
	for _, k := range remove {
		delete(out, k)
	}
	maps.Copy(out, add)
	if len(out) == 0 {
		return nil // as it is stored
	}
	return out
}

func changedConstraints(list, add, remove []api.Constraint) []api.Constraint {
	if len(add)+len(remove) == 0 {
		return list
	}
	out := slices.DeleteFunc(slices.Clone(list), func(c api.Constraint) bool {
		return slices.Contains(remove, c) || slices.Contains(add, c)
	})
	out = append(out, add...)
	if len(out) == 0 {
		return nil
	}
	return out
}

func changeRules(c *api.UpdateConfig, change api.UpdateChange) {
	if change.Parallelism != nil {
		c.Parallelism = *change.Parallelism
	}
	if change.Delay != nil {
		c.Delay = *change.Delay
	}
	if change.Order != "" {
		c.Order = change.Order
	}
	if change.Monitor != nil {
		c.Monitor = *change.Monitor
	}
	if change.MaxFailureRatio != nil {
		c.MaxFailureRatio = *change.MaxFailureRatio
	}
	if change.FailureAction != "" {
		c.FailureAction = change.FailureAction
	}
}

// Steer pauses, resumes or takes back a service's update.
func (s *Server) Steer(ctx context.Context, req *api.SteerRequest) (*api.UpdateResponse, error) {
	return s.change(ctx, req.Service, func(snap *api.Snapshot, svc *api.Service) (*api.Service, string, error) {
		return steer(snap, svc, req.Action, s.now())
	})
}

func steer(snap *api.Snapshot, svc *api.Service, action api.Steer, now time.Time) (*api.Service, string, error) {
	name, u := svc.Spec.Name, svc.Update
	switch action {
	case api.SteerRollback:
		if u.Back() && u.State != api.RollbackComplete {
			return nil, "", api.Errorf(api.CodeConflict, "service %s: it is rolling back already (%s)", name, u.State)
		}
		next := svc.RolledBack("asked to", now)
		if next == nil {
			return nil, "", api.Errorf(api.CodeConflict, "service %s has no earlier spec to go back to", name)
		}
		if err := ipam.PortConflict(snap, next); err != nil {
			return nil, "", api.Errorf(api.CodeConflict, "service %s: %v", name, err)
		}
		return next, "rolling back", nil
	case api.SteerPause:
		switch {
		case u.Paused():
			return svc, "paused already", nil
		case !u.Running():
			return nil, "", api.Errorf(api.CodeConflict, "service %s is not being updated", name)
		case u.Back():
			return svc.WithUpdate(api.RollbackPaused, "asked to", now), "paused", nil
		}
		return svc.WithUpdate(api.UpdatePaused, "asked to", now), "paused", nil
	case api.SteerResume:
		switch {
		case u.Running():
			return svc, "going on already", nil
		case !u.Paused():
			return nil, "", api.Errorf(api.CodeConflict, "service %s has no update that is paused", name)
		case u.Back():
			return svc.WithUpdate(api.RollbackRunning, u.Message, now), "resumed", nil
		}
		return svc.WithUpdate(api.UpdateRunning, "", now), "resumed", nil
	}
	return nil, "", api.Errorf(api.CodeInvalid, "%q is nothing that an update can be told", action)
}

// change commits what plan makes of a service.
func (s *Server) change(ctx context.Context, ref string, plan func(*api.Snapshot, *api.Service) (*api.Service, string, error)) (*api.UpdateResponse, error) {
	res := &api.UpdateResponse{}
	index, err := s.Replica.Update(ctx, func(snap *api.Snapshot) ([]api.Change, error) {
		svc, err := findService(snap, ref)
		if err != nil {
			return nil, err
		}
		next, action, err := plan(snap, svc)
		if err != nil {
			return nil, err
		}
		res.Service, res.Stack, res.Action = svc.Spec.Name, svc.Stack, action
		if next == svc {
			return nil, nil
		}
		changes := []api.Change{{Service: next}}
		files, err := held(snap, changes)
		return append(changes, files...), err
	})
	res.Index = index
	return res, err
}

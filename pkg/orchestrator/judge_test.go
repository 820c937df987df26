package orchestrator_test

import (
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

// updating is a service of three replicas whose update to web:1 began a minute
// ago.
func updating(changes ...func(*api.Service)) func(*api.Service) {
	return func(s *api.Service) {
		s.Spec.Replicas = 3
		s.Spec.Update = api.UpdateConfig{Parallelism: 1, Order: api.StartFirst, Monitor: 5 * time.Second}
		s.Spec.Rollback = s.Spec.Update
		s.Previous = &api.ServiceSpec{Name: "blog_web", Task: api.TaskSpec{Image: "web:0"}, Networks: []string{"blog_default"}, Replicas: 3}
		s.Update = &api.UpdateStatus{State: api.UpdateRunning, StartedAt: ago(60), Since: ago(60)}
		for _, change := range changes {
			change(s)
		}
	}
}

func onFailure(a api.FailureAction) func(*api.Service) {
	return func(s *api.Service) { s.Spec.Update.FailureAction = a }
}

// now in another state.
func becomes(snap *api.Snapshot, state api.UpdateState, message string) api.Change {
	return api.Change{Service: snap.Services["web"].WithUpdate(state, message, now)}
}

func ended(when time.Time) func(*api.Task) { return func(t *api.Task) { t.EndedAt = when } }
func ready(when time.Time) func(*api.Task) { return func(t *api.Task) { t.ReadySince = when } }

func TestJudge(t *testing.T) {
	o1, o2, o3 := task("t11", 1, "a", api.TaskRunning, old), task("t12", 2, "b", api.TaskRunning, old), task("t13", 3, "c", api.TaskRunning, old)
	bad := task("t31", 1, "b", api.TaskFailed, at(ago(2)), ended(ago(2)), message("exit code 1"))
	n1, n2 := task("t31", 1, "a", api.TaskRunning), task("t32", 2, "b", api.TaskRunning)
	n3 := task("t33", 3, "c", api.TaskRunning, ready(ago(4)))
	slow := task("t31", 1, "b", api.TaskStarting, func(t *api.Task) { t.CreatedAt = ago(50) })
	const why = "failed in 1 of 3 slots: blog_web.1 on host-b: exit code 1"
	const updated = "the service was updated"

	paused := state(updating(), o1, o2, o3, bad)
	noWayBack := state(updating(onFailure(api.FailureRollback), func(s *api.Service) { s.Previous = nil }), o1, o2, o3, bad)
	back := state(updating(onFailure(api.FailureRollback)), o1, o2, o3, bad)
	backFails := state(updating(func(s *api.Service) { s.Update.State = api.RollbackRunning }), o1, o2, o3, bad)
	late := state(updating(), n1, o2, o3, edit(bad, ready(ago(8)), func(t *api.Task) { t.ID = "t30"; t.Meta.Created = 30 }))
	tooSlow := state(updating(func(s *api.Service) { s.Spec.ProgressDeadline = 50 * time.Second }), o1, o2, o3, slow)
	inTime := state(updating(func(s *api.Service) { s.Spec.ProgressDeadline = 51 * time.Second }), o1, o2, o3, slow)
	resumed := state(updating(func(s *api.Service) { s.Update.Since = ago(1) }), o1, o2, o3, bad)
	complete := state(updating(), n1, n2, edit(n3, ready(ago(5))))
	runPlans(t, []planTest{
		{"what fails pauses it", paused, []api.Change{becomes(paused, api.UpdatePaused, why)}},
		{"or takes it back", back, []api.Change{{Service: back.Services["web"].RolledBack(why, now)}}},
		{"where there is a way back", noWayBack, []api.Change{becomes(noWayBack, api.UpdatePaused, why+"; there is no earlier spec to go back to")}},
		{"a failing rollback pauses", backFails, []api.Change{becomes(backFails, api.RollbackPaused, why)}},
		{"or it goes on", state(updating(onFailure(api.FailureContinue)), o1, o2, o3, bad),
			[]api.Change{made(1, 1, "", reason("the last task failed: exit code 1")), made(2, 2, "", reason(updated))}},
		{"some may fail", state(updating(func(s *api.Service) { s.Spec.Update.MaxFailureRatio = 0.34 }), o1, o2, o3, bad),
			[]api.Change{made(1, 1, "", reason("the last task failed: exit code 1")), made(2, 2, "", reason(updated))}},
		{"paused, it tries nothing more", state(updating(func(s *api.Service) { s.Update.State = api.UpdatePaused }), o1, o2, o3, bad), nil},
		{"but moves tasks", on(state(updating(func(s *api.Service) { s.Update.State = api.UpdatePaused }), o1, o2, o3), "b",
			func(n *api.Node) { n.Availability = api.AvailabilityDrain }), []api.Change{made(1, 2, "", reason(updated))}},
		{"resumed, it tries again at once", resumed, []api.Change{made(1, 1, "", reason(updated))}},
		{"a task that ends after it was watched is another matter", late, []api.Change{made(1, 2, "", reason(updated))}},
		{"what is not available in time has failed", tooSlow,
			[]api.Change{becomes(tooSlow, api.UpdatePaused, "failed in 1 of 3 slots: blog_web.1 on host-b: not available after 50s")}},
		{"but not before", inTime, nil},
		{"tasks are watched before it is complete", state(updating(), n1, n2, n3), nil},
		{"and no longer", complete, []api.Change{becomes(complete, api.UpdateCompleted, "")}},
		{"tasks that a spec which returns would make are kept",
			state(updating(func(s *api.Service) { s.Update = nil }), edit(n1, func(t *api.Task) { t.SpecVersion = 8 }), n2, n3),
			[]api.Change{put(n1)}},
	})
}

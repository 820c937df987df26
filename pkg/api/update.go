package api

import (
	"reflect"
	"time"
)

// UpdateOrder says which task goes first when one replaces another.
type UpdateOrder string

const (
	StopFirst  UpdateOrder = "stop-first"
	StartFirst UpdateOrder = "start-first"
)

// FailureAction is what becomes of an update of which too much has failed.
type FailureAction string

const (
	FailurePause    FailureAction = "pause" // no further task is replaced until a user says so
	FailureContinue FailureAction = "continue"
	FailureRollback FailureAction = "rollback" // back to the spec that was there before
)

// Swarm's defaults, and how long an update may be without progress.
const (
	DefaultParallelism      = 1
	DefaultMonitor          = 5 * time.Second
	DefaultProgressDeadline = 10 * time.Minute
)

// UpdateConfig says how tasks are replaced when the spec changes.
type UpdateConfig struct {
	Parallelism int           `json:"parallelism"` // slots at a time; 0: all
	Delay       time.Duration `json:"delay"`       // between batches
	Order       UpdateOrder   `json:"order"`
	// Monitor is how long a new task that became available is watched: if it
	// ends by itself within that time, the update has failed in its slot.
	Monitor time.Duration `json:"monitor,omitempty"`
	// MaxFailureRatio is the part of the service's slots, 0 to 1, in which the
	// update may fail before FailureAction is taken.
	MaxFailureRatio float64       `json:"maxFailureRatio,omitempty"`
	FailureAction   FailureAction `json:"failureAction,omitempty"` // empty: pause
}

// UpdateState is how far an update is.
type UpdateState string

const (
	UpdateRunning    UpdateState = "updating"
	UpdatePaused     UpdateState = "paused"
	UpdateCompleted  UpdateState = "completed"
	RollbackRunning  UpdateState = "rolling back"
	RollbackPaused   UpdateState = "rollback paused"
	RollbackComplete UpdateState = "rolled back"
)

// UpdateStatus is how far the last change of what a service's tasks are made
// from is. A change of the number of replicas alone is no update.
type UpdateStatus struct {
	State UpdateState `json:"state"`
	// Message says why it is paused or was rolled back, in a user's words.
	Message   string    `json:"message,omitempty"`
	StartedAt time.Time `json:"startedAt"`
	// Since is when it was started or last resumed: what failed before does
	// not count.
	Since   time.Time `json:"since"`
	EndedAt time.Time `json:"endedAt,omitzero"`
}

// Running reports whether tasks are being replaced.
func (u *UpdateStatus) Running() bool {
	return u != nil && (u.State == UpdateRunning || u.State == RollbackRunning)
}

// Paused reports whether it waits for a user.
func (u *UpdateStatus) Paused() bool {
	return u != nil && (u.State == UpdatePaused || u.State == RollbackPaused)
}

// Back reports whether it leads, or led, back to an earlier spec.
func (u *UpdateStatus) Back() bool {
	return u != nil && (u.State == RollbackRunning || u.State == RollbackPaused || u.State == RollbackComplete)
}

// SameTasks reports whether tasks made from both specs are alike.
func (s *ServiceSpec) SameTasks(o *ServiceSpec) bool {
	task := o.Task
	task.RegistryAuth = s.Task.RegistryAuth // no part of what runs
	return reflect.DeepEqual(s.Task, task) && reflect.DeepEqual(s.Networks, o.Networks)
}

// Rules are those that tasks are replaced by at present.
func (s *Service) Rules() UpdateConfig {
	if s.Update.Back() {
		return s.Spec.Rollback
	}
	return s.Spec.Update
}

// Deadline is how long an update may be without progress.
func (s *ServiceSpec) Deadline() time.Duration {
	if s.ProgressDeadline > 0 {
		return s.ProgressDeadline
	}
	return DefaultProgressDeadline
}

// WithSpec returns the service with another spec. If its tasks have to be made
// anew, an update starts, in place of one that is under way.
func (s *Service) WithSpec(spec ServiceSpec, now time.Time) *Service {
	next := *s
	next.Spec = spec
	if s.Spec.SameTasks(&spec) {
		if s.Previous != nil && s.Previous.Replicas != spec.Replicas && s.Spec.Replicas != spec.Replicas {
			previous := *s.Previous
			previous.Replicas = spec.Replicas // a scale is not rolled back
			next.Previous = &previous
		}
		return &next
	}
	if spec.Mode.Job() { // done anew: there is nothing that serves, and no way back
		next.Previous, next.Update = nil, nil
		return &next
	}
	// Of an update that has not come to its end nobody knows whether it is good.
	unproven := s.Update != nil && (s.Update.State == UpdateRunning || s.Update.State == UpdatePaused)
	if !unproven || s.Previous == nil {
		previous := s.Spec
		next.Previous = &previous
	}
	next.Update = &UpdateStatus{State: UpdateRunning, StartedAt: now, Since: now}
	return &next
}

// RolledBack returns the service on its way back to the spec before its last
// update, or nil if there is none.
func (s *Service) RolledBack(why string, now time.Time) *Service {
	if s.Previous == nil || s.Spec.SameTasks(s.Previous) {
		return nil
	}
	next := *s
	next.Spec, next.Previous = *s.Previous, nil
	next.Update = &UpdateStatus{State: RollbackRunning, Message: why, StartedAt: now, Since: now}
	return &next
}

// WithUpdate returns the service with its update in another state.
func (s *Service) WithUpdate(state UpdateState, message string, now time.Time) *Service {
	next, update := *s, *s.Update
	update.State, update.Message, update.EndedAt = state, message, time.Time{}
	switch {
	case update.Running():
		update.Since = now
	case !update.Paused():
		update.EndedAt = now
	}
	next.Update = &update
	return &next
}

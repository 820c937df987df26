package api

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Task is one attempt at running a slot on one node. It only moves forward and
// is never reused: what replaces it is another task.
type Task struct {
	Meta      Meta      `json:"meta"`
	ID        TaskID    `json:"id"`
	ServiceID ServiceID `json:"serviceID"`
	// ServiceName and Stack are copies, so that a task can be shown, and its
	// container named, without its service.
	ServiceName string `json:"serviceName"`
	Stack       string `json:"stack,omitempty"`
	// Slot is 1..N of a replicated service, 0 of a global one.
	Slot int `json:"slot"`
	// NodeID is where it was placed; for a global service it is set when the
	// task is made. Once set it never changes.
	NodeID NodeID `json:"nodeID,omitempty"`

	Spec        TaskSpec    `json:"spec"`
	SpecVersion Index       `json:"specVersion"` // of the service when the task was made
	Networks    []NetworkID `json:"networks,omitempty"`

	// Desired is what the leader wants of the task.
	Desired DesiredState `json:"desired"`
	// Status is what its agent last reported.
	Status   TaskStatus `json:"status"`
	Endpoint Endpoint   `json:"endpoint"`

	// Reason says in a user's words why the leader last changed Desired, or
	// why a pending task is not placed.
	Reason string `json:"reason,omitempty"`

	CreatedAt time.Time `json:"createdAt"`
	// NotBefore holds a restarted task back until its delay has passed.
	NotBefore time.Time `json:"notBefore,omitzero"`
	// ReadySince, DrainingSince and EndedAt are when the leader set the
	// endpoint ready and draining, and learned that the task had ended.
	ReadySince    time.Time `json:"readySince,omitzero"`
	DrainingSince time.Time `json:"drainingSince,omitzero"`
	EndedAt       time.Time `json:"endedAt,omitzero"`

	// Fetch asks the task's node to have an image before the task is stopped for
	// the one that takes its place: what it takes to get it is no outage then.
	Fetch *Fetch `json:"fetch,omitempty"`
	// Moving says why the task is to make room for one on another node, empty if
	// it is not.
	Moving string `json:"moving,omitempty"`

	// History is what happened to the task, in order; see Note.
	History []Event `json:"history,omitempty"`
}

// Fetch is an image that a node is to have.
type Fetch struct {
	// Round tells one request from the next; the answer names it.
	Round        int64         `json:"round"`
	Image        string        `json:"image"`
	Pin          ImagePin      `json:"pin,omitzero"`
	RegistryAuth *RegistryAuth `json:"registryAuth,omitempty"`
}

// Event is one thing that happened to a task.
type Event struct {
	At   time.Time `json:"at"`
	What string    `json:"what"` // in a user's words
}

// A task's history is short, and so is what it says: the end of a task's output
// is in its status.
const (
	keptEvents  = 16
	eventLength = 240
)

// Note adds to the history, which other copies of the task may share. Of a long
// one the first half is kept, how the task came to be, and what happened last.
func (t *Task) Note(at time.Time, what string) {
	what, _, _ = strings.Cut(what, "\n")
	if len(what) > eventLength {
		what = strings.ToValidUTF8(what[:eventLength], "") + "..."
	}
	kept := t.History
	if len(kept) >= keptEvents {
		kept = slices.Delete(slices.Clone(kept), keptEvents/2, len(kept)-keptEvents/2+1)
	}
	t.History = append(slices.Clip(kept), Event{at, what})
}

// Name is what a user calls the task: SERVICE.SLOT, or SERVICE.NODE for a task
// of a global service.
func (t *Task) Name() string {
	if t.Slot == 0 {
		return fmt.Sprintf("%s.%s", t.ServiceName, t.NodeID)
	}
	return fmt.Sprintf("%s.%d", t.ServiceName, t.Slot)
}

// DesiredState is what the leader wants of a task. It moves forward only.
type DesiredState string

const (
	// DesiredRun: start it and keep it running.
	DesiredRun DesiredState = "run"
	// DesiredDrain: keep it running, but give its endpoint no new flows. The
	// agent does nothing yet.
	DesiredDrain DesiredState = "drain"
	// DesiredStop: stop it; every live node has acknowledged the drain.
	DesiredStop DesiredState = "stop"
	// DesiredRemove: it has ended and nothing needs it; its agent removes its
	// container, and the leader deletes the task once that is reported.
	DesiredRemove DesiredState = "remove"
)

// TaskState is how far a task has come. Its order is the order of the
// constants: a task's state never moves back.
type TaskState string

const (
	TaskPending   TaskState = "pending"   // waits for a node, an address or a dependency
	TaskAssigned  TaskState = "assigned"  // has a node and an address
	TaskPreparing TaskState = "preparing" // its agent makes image, sandbox and network ready
	TaskStarting  TaskState = "starting"  // the process runs, not healthy yet
	TaskRunning   TaskState = "running"   // runs, and healthy if it has a healthcheck
	// The states from here on are terminal.
	TaskComplete TaskState = "complete" // ended by itself with exit code 0
	TaskFailed   TaskState = "failed"   // ended by itself otherwise, or was unhealthy
	TaskRejected TaskState = "rejected" // could not be started
	TaskShutdown TaskState = "shutdown" // stopped because it was asked to
	TaskOrphaned TaskState = "orphaned" // its node was lost
)

// order is how far a state is, -1 for what is none. All planners ask for it for
// every task.
func (s TaskState) order() int {
	switch s {
	case TaskPending:
		return 0
	case TaskAssigned:
		return 1
	case TaskPreparing:
		return 2
	case TaskStarting:
		return 3
	case TaskRunning:
		return 4
	case TaskComplete, TaskFailed, TaskRejected, TaskShutdown, TaskOrphaned:
		return 5
	}
	return -1
}

// Valid reports whether s is one of the states above.
func (s TaskState) Valid() bool { return s.order() >= 0 }

// Terminal reports whether the task has ended.
func (s TaskState) Terminal() bool { return s.order() == 5 }

// Before reports whether s comes before o in a task's life.
func (s TaskState) Before(o TaskState) bool { return s.order() < o.order() }

// TaskStatus is what an agent reports of a task.
type TaskStatus struct {
	State TaskState `json:"state"`
	// Message says why, in a user's words: the error of a failed or rejected
	// task, with the last lines of its output where that helps.
	Message     string    `json:"message,omitempty"`
	ExitCode    int       `json:"exitCode,omitempty"`
	ContainerID string    `json:"containerID,omitempty"`
	At          time.Time `json:"at,omitzero"` // the agent's clock
	// Removed: the agent holds nothing of the task any more.
	Removed bool `json:"removed,omitempty"`
	// NoImage: it was rejected because the node could not get its image.
	NoImage bool `json:"noImage,omitempty"`
	// Fetched is the round of Task.Fetch that came to its end, badly if FetchError
	// says why.
	Fetched    int64  `json:"fetched,omitempty"`
	FetchError string `json:"fetchError,omitempty"`
}

// Advance returns the status after next was reported: a task never moves back,
// and nothing but Removed changes once it has ended.
func (s TaskStatus) Advance(next TaskStatus) TaskStatus {
	if next.State.Before(s.State) {
		return s
	}
	if s.State.Terminal() {
		s.Removed = s.Removed || next.Removed
		return s
	}
	return next
}

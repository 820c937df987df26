package api

import (
	"errors"
	"net/netip"
	"time"
)

// ErrRuntimeUnavailable is wrapped by every error of a container runtime that
// could not be reached: it says nothing about the task, and the operation is to
// be tried again.
var ErrRuntimeUnavailable = errors.New("container runtime unavailable")

// SandboxNet is what a task's files must say about its network before its
// first instruction runs. The interface itself is made by somebody else.
type SandboxNet struct {
	DNS    netip.Addr // name server; unset: none
	Search []string   // search domains
	Addr   netip.Addr // the task's own address, for its hosts file
}

// ContainerPhase is how far a task's application container has come.
type ContainerPhase string

const (
	ContainerNone    ContainerPhase = ""        // there is none
	ContainerCreated ContainerPhase = "created" // never ran; Error says why if starting it was tried
	ContainerRunning ContainerPhase = "running"
	ContainerExited  ContainerPhase = "exited"
)

// ContainerHealth is the result of the healthcheck of a running container.
type ContainerHealth string

const (
	HealthNone      ContainerHealth = "" // no healthcheck
	HealthStarting  ContainerHealth = "starting"
	HealthHealthy   ContainerHealth = "healthy"
	HealthUnhealthy ContainerHealth = "unhealthy"
)

// ContainerState is what the runtime of a node holds of one task.
type ContainerState struct {
	// SandboxRunning: the network namespace NetNS (a path under /proc) exists.
	// If it is false while Phase is running, the task has lost its network and
	// has to be replaced.
	SandboxRunning bool
	NetNS          string

	Phase        ContainerPhase
	Health       ContainerHealth
	HealthOutput string // of the last probe, at most 4 KiB
	ContainerID  string // of the application

	// ExitCode, OOMKilled, Error and FinishedAt hold once Phase is exited.
	// Error is the runtime's, in a user's words; it is not the output.
	ExitCode   int
	OOMKilled  bool
	Error      string
	StartedAt  time.Time
	FinishedAt time.Time
}

// LogOptions selects a part of a task's output.
type LogOptions struct {
	Follow     bool      // go on until the task ends
	Tail       int       // last lines only; 0: all
	Since      time.Time // zero: from the start
	Timestamps bool      // RFC 3339 with nanoseconds before each line
}

package api

import (
	"net/netip"
	"time"
)

// Service is a desired state: what to run, how often, and how to reach it.
type Service struct {
	Meta  Meta        `json:"meta"`
	ID    ServiceID   `json:"id"`
	Stack string      `json:"stack,omitempty"`
	Spec  ServiceSpec `json:"spec"`

	// SpecVersion is the index at which the part of Spec that makes a task
	// (Task, Networks) last changed, stamped by the store. A task made from an
	// older one is out of date.
	SpecVersion Index `json:"specVersion"`

	// Previous is the spec that an update replaced, for the way back; nil if
	// there was none, or after a rollback.
	Previous *ServiceSpec `json:"previous,omitempty"`
	// Update is how far the last update is; nil if there was none.
	Update *UpdateStatus `json:"update,omitempty"`

	// VIP is the service's virtual IP, allocated by the leader.
	VIP netip.Addr `json:"vip,omitzero"`
	// Ports are Spec.Ports with every published port allocated.
	Ports []Port `json:"ports,omitempty"`
}

// ServiceSpec is what the user asked for.
type ServiceSpec struct {
	// Name is unique in the cluster: STACK_SERVICE for a service of a stack.
	Name string `json:"name"`
	// Alias is the name as the compose file has it; it resolves on the
	// service's networks beside Name.
	Alias  string            `json:"alias,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`

	Mode Mode `json:"mode"`
	// Replicas are the slots of a replicated service, the completions that a
	// replicated job is to reach.
	Replicas int `json:"replicas"`
	// MaxConcurrent is how many tasks of a replicated job run at the same time;
	// 0: all of them.
	MaxConcurrent int `json:"maxConcurrent,omitempty"`

	Task     TaskSpec `json:"task"`
	Networks []string `json:"networks,omitempty"` // names of Network objects
	// NetworkAliases are further names that resolve on a network, by its name.
	NetworkAliases map[string][]string `json:"networkAliases,omitempty"`
	// EndpointMode is what the service's names resolve to; empty: EndpointVIP.
	EndpointMode EndpointMode `json:"endpointMode,omitempty"`
	Ports        []Port       `json:"ports,omitempty"`
	Balance      Balance      `json:"balance,omitzero"`
	// Return of replies from its published ports; empty: the cluster's.
	Return Return `json:"return,omitempty"`

	Placement Placement     `json:"placement"`
	Update    UpdateConfig  `json:"update"`
	Rollback  UpdateConfig  `json:"rollback"`
	Restart   RestartPolicy `json:"restart"`
	// ProgressDeadline is how long a new task may take to become available
	// until its update has failed; 0: DefaultProgressDeadline.
	ProgressDeadline time.Duration `json:"progressDeadline,omitempty"`

	// DependsOn are services of the same stack, by full name, that must have
	// reached a condition before a task of this one starts.
	DependsOn []Dependency `json:"dependsOn,omitempty"`
}

// EndpointMode is what the names of a service resolve to.
type EndpointMode string

const (
	EndpointVIP   EndpointMode = "vip"   // its virtual IP
	EndpointDNSRR EndpointMode = "dnsrr" // the addresses of its ready tasks; it has no virtual IP
)

// Mode says how a service's number of slots is found.
type Mode string

const (
	ModeReplicated Mode = "replicated" // Replicas slots, 1..N
	ModeGlobal     Mode = "global"     // one slot on each eligible node
	// A job's tasks end: each slot is done once a task of it has succeeded.
	ModeReplicatedJob Mode = "replicated-job" // Replicas slots, 1..N
	ModeGlobalJob     Mode = "global-job"     // one slot on each eligible node
)

// Global reports whether there is a slot on each eligible node.
func (m Mode) Global() bool { return m == ModeGlobal || m == ModeGlobalJob }

// Job reports whether a slot is done once a task of it has succeeded.
func (m Mode) Job() bool { return m == ModeReplicatedJob || m == ModeGlobalJob }

// Dependency is one entry of depends_on.
type Dependency struct {
	Service   string              `json:"service"`
	Condition DependencyCondition `json:"condition"`
}

// DependencyCondition is when a dependency is met.
type DependencyCondition string

const (
	DependencyStarted   DependencyCondition = "service_started"
	DependencyHealthy   DependencyCondition = "service_healthy"
	DependencyCompleted DependencyCondition = "service_completed_successfully"
)

// Placement limits where a service's tasks may run.
type Placement struct {
	Constraints []Constraint `json:"constraints,omitempty"`
	// Preferences are attributes of nodes, for instance node.labels.rack: tasks
	// are spread over their values, the first one's before the next one's.
	Preferences        []string `json:"preferences,omitempty"`
	MaxReplicasPerNode int      `json:"maxReplicasPerNode,omitempty"`
	// Platforms are those that the image is made for; none: any.
	Platforms []Platform `json:"platforms,omitempty"`
}

// Platform is what an image is made for. An empty field is any.
type Platform struct {
	OS   string `json:"os,omitempty"`
	Arch string `json:"arch,omitempty"` // as Go spells it
}

func (p Platform) String() string {
	switch {
	case p.OS == "":
		return p.Arch
	case p.Arch == "":
		return p.OS
	}
	return p.OS + "/" + p.Arch
}

// Constraint compares an attribute of a node, for instance node.role or
// node.labels.storage, with a value.
type Constraint struct {
	Key   string       `json:"key"`
	Op    ConstraintOp `json:"op"`
	Value string       `json:"value"`
}

// ConstraintOp is how a constraint compares.
type ConstraintOp string

const (
	OpEqual    ConstraintOp = "=="
	OpNotEqual ConstraintOp = "!="
)

func (c Constraint) String() string { return c.Key + string(c.Op) + c.Value }

// RestartCondition is when a task that ended is replaced.
type RestartCondition string

const (
	RestartAny       RestartCondition = "any"
	RestartOnFailure RestartCondition = "on-failure"
	RestartNone      RestartCondition = "none"
)

// RestartPolicy says what happens when a task ends by itself.
type RestartPolicy struct {
	Condition RestartCondition `json:"condition"`
	// Delay is waited before the second and further restarts of a slot in a
	// row; the first is immediate.
	Delay time.Duration `json:"delay"`
	// MaxAttempts within Window; 0: no limit.
	MaxAttempts int           `json:"maxAttempts,omitempty"`
	Window      time.Duration `json:"window,omitempty"`
}

// TaskSpec is what one task runs: all that the container runtime needs.
type TaskSpec struct {
	Image string `json:"image"`
	// Pin is what Image stood for at deploy.
	Pin ImagePin `json:"pin,omitzero"`
	// RegistryAuth are the credentials to pull it with. They go to the managers
	// and to the nodes that run the task, and are shown to nobody.
	RegistryAuth *RegistryAuth `json:"registryAuth,omitempty"`

	Entrypoint []string          `json:"entrypoint,omitempty"` // nil: the image's
	Command    []string          `json:"command,omitempty"`    // nil: the image's
	Env        []string          `json:"env,omitempty"`        // KEY=VALUE, sorted
	User       string            `json:"user,omitempty"`
	WorkingDir string            `json:"workingDir,omitempty"`
	Hostname   string            `json:"hostname,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"` // on the container
	Mounts     []Mount           `json:"mounts,omitempty"`
	Files      []FileRef         `json:"files,omitempty"`  // secrets and configs
	Health     *Healthcheck      `json:"health,omitempty"` // nil: the image's
	Limits     Resources         `json:"limits"`
	// Reservations are what the scheduler sets aside for the task.
	Reservations Resources `json:"reservations"`
	Init         bool      `json:"init,omitempty"`
	ReadOnly     bool      `json:"readOnly,omitempty"`
	CapAdd       []string  `json:"capAdd,omitempty"`
	CapDrop      []string  `json:"capDrop,omitempty"`
	StopSignal   string    `json:"stopSignal,omitempty"`
	// StopGrace is the longest time that open connections are waited for
	// before the stop signal, and the time between that and SIGKILL.
	StopGrace time.Duration `json:"stopGrace"`
	// Log says where the output goes; nil: the engine's default.
	Log *LogConfig `json:"log,omitempty"`
	// Container is what else the engine is told; nil: nothing.
	Container *ContainerOptions `json:"container,omitempty"`
	// Singleton tasks never run beside another of their service, whatever is
	// lost: see Cluster.FenceLease.
	Singleton bool `json:"singleton,omitempty"`
	// Forced counts the updates that were to make tasks anew and change nothing
	// else.
	Forced int `json:"forced,omitempty"`
}

// LogConfig is what an engine does with a task's output.
type LogConfig struct {
	Driver  string            `json:"driver,omitempty"` // empty: the engine's default
	Options map[string]string `json:"options,omitempty"`
}

// MountType is what a mount's source is.
type MountType string

const (
	MountVolume MountType = "volume" // a named volume of the engine
	MountBind   MountType = "bind"   // a path of the node
	MountTmpfs  MountType = "tmpfs"
)

// Mount is one file system mounted into a task.
type Mount struct {
	Type     MountType `json:"type"`
	Source   string    `json:"source,omitempty"` // volume name (STACK_NAME) or path
	Target   string    `json:"target"`
	ReadOnly bool      `json:"readOnly,omitempty"`
	// Driver of a volume; empty: the engine's local one.
	Driver string `json:"driver,omitempty"`
	// DriverOptions and Labels are those of a volume that the engine makes.
	DriverOptions map[string]string `json:"driverOptions,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	// NoCopy: a new volume starts empty, without what the image has there.
	NoCopy bool `json:"noCopy,omitempty"`
	// Subpath is the part of a volume that is mounted; empty: all of it.
	Subpath string `json:"subpath,omitempty"`
	// Propagation of a bind; empty: rprivate.
	Propagation string `json:"propagation,omitempty"`
	// SizeBytes and Mode of a tmpfs; 0: no limit but memory, and 1777.
	SizeBytes int64  `json:"sizeBytes,omitempty"`
	Mode      uint32 `json:"mode,omitempty"`
	// Shared volumes are the same on every node, so that a task that has one
	// may run anywhere.
	Shared bool `json:"shared,omitempty"`
}

// Healthcheck is a probe run inside the task. Zero durations and retries take
// the defaults: 30 s, 30 s, 3, 0 s.
type Healthcheck struct {
	// Test is as in a compose file: {"CMD", arg...}, {"CMD-SHELL", line} or {"NONE"}.
	Test        []string      `json:"test,omitempty"`
	Interval    time.Duration `json:"interval,omitempty"`
	Timeout     time.Duration `json:"timeout,omitempty"`
	Retries     int           `json:"retries,omitempty"`
	StartPeriod time.Duration `json:"startPeriod,omitempty"`
	// StartInterval is the interval during StartPeriod; 0: 5 s.
	StartInterval time.Duration `json:"startInterval,omitempty"`
}

// Disabled reports whether the healthcheck says that there is none.
func (h *Healthcheck) Disabled() bool {
	return h != nil && len(h.Test) > 0 && h.Test[0] == "NONE"
}

// Resources are amounts of a node's capacity; zero means none given.
type Resources struct {
	NanoCPUs    int64 `json:"nanoCPUs,omitempty"` // billionths of a CPU
	MemoryBytes int64 `json:"memoryBytes,omitempty"`
	Pids        int64 `json:"pids,omitempty"`
	// Generic is how many of each kind of thing that engines are said to have.
	Generic map[string]int64 `json:"generic,omitempty"`
}

package api

import "time"

// The requests and responses of the API, by the procedure that takes them.
// They travel as JSON; unknown fields are ignored, so that a newer node can
// talk to an older one.

// Procedures that every daemon answers on its local socket.
const (
	ProcInit  = "/orch.node/Init"  // InitRequest -> InitResponse
	ProcJoin  = "/orch.node/Join"  // JoinRequest -> JoinResponse
	ProcInfo  = "/orch.node/Info"  // Empty -> Info
	ProcLeave = "/orch.node/Leave" // LeaveRequest -> stream of LeaveProgress
)

// Procedures that every node answers for managers.
const (
	ProcImageStatus = "/orch.agent/ImageStatus" // ImageStatusRequest -> ImageStatus
	ProcRaft        = "/orch.agent/Raft"        // Empty -> RaftInfo, of a manager
	ProcTaskLogs    = "/orch.agent/TaskLogs"    // TaskLogsRequest -> stream of LogChunk
	// Those of the paths that the node does not have.
	ProcMissingPaths = "/orch.agent/MissingPaths" // Paths -> Paths
	// An image, from the node that has it to one that needs it.
	ProcImageManifest = "/orch.agent/ImageManifest" // ImageRequest -> ImageManifest
	ProcImageLayer    = "/orch.agent/ImageLayer"    // ImageLayerRequest -> bytes
	// An image, from where a user has it to a node.
	ProcImageOffer  = "/orch.agent/ImageOffer"  // ImageOffer -> ImageWants
	ProcImageUpload = "/orch.agent/ImageUpload" // LayerUpload and bytes -> Empty
	ProcImageCommit = "/orch.agent/ImageCommit" // ImageCommit -> ImageRequest
)

// Procedures that managers answer. A manager that is not the leader forwards
// those that need the leader.
const (
	ProcImageHolders = "/orch.cluster/ImageHolders" // ImageRequest -> ImageHolders
	ProcImageSources = "/orch.cluster/ImageSources" // ImageSourcesRequest -> ImageSources
	ProcAdmit        = "/orch.cluster/Admit"        // AdmitRequest -> AdmitResponse
	ProcAddMember    = "/orch.cluster/AddMember"    // AddMemberRequest -> Empty
	ProcRenew        = "/orch.cluster/Renew"        // RenewRequest -> Certificate
	ProcJoinTokens   = "/orch.cluster/JoinTokens"   // Empty -> JoinTokens
	ProcRotateToken  = "/orch.cluster/RotateToken"  // RotateTokenRequest -> JoinTokens
	ProcAuthority    = "/orch.cluster/Authority"    // Empty -> AuthorityStatus
	// Replace the authority; and end that at once, whoever is not ready.
	ProcRotateAuthority = "/orch.cluster/RotateAuthority" // RotateAuthorityRequest -> AuthorityStatus
	ProcFinishRotation  = "/orch.cluster/FinishRotation"  // Empty -> AuthorityStatus
	ProcNodes           = "/orch.cluster/Nodes"           // NodesRequest -> NodeList
	ProcUpdateNode      = "/orch.cluster/UpdateNode"      // UpdateNodeRequest -> Empty
	ProcRemoveNode      = "/orch.cluster/RemoveNode"      // RemoveNodeRequest -> Empty
	ProcDepart          = "/orch.cluster/Depart"          // DepartRequest -> Empty
	ProcDeploy          = "/orch.cluster/Deploy"          // DeployRequest -> DeployResponse
	ProcWatchStack      = "/orch.cluster/WatchStack"      // StackRequest -> stream of StackStatus
	ProcStacks          = "/orch.cluster/Stacks"          // Empty -> StackList
	ProcRemoveStack     = "/orch.cluster/RemoveStack"     // StackRequest -> RemoveStackResponse
	ProcServices        = "/orch.cluster/Services"        // ServicesRequest -> ServiceList
	ProcTasks           = "/orch.cluster/Tasks"           // TasksRequest -> TaskList
	ProcScale           = "/orch.cluster/Scale"           // ScaleRequest -> ScaleResponse
	ProcUpdate          = "/orch.cluster/Update"          // UpdateRequest -> UpdateResponse
	ProcSteer           = "/orch.cluster/Steer"           // SteerRequest -> UpdateResponse
	ProcRebalance       = "/orch.cluster/Rebalance"       // RebalanceRequest -> Rebalancing
	ProcWhy             = "/orch.cluster/Why"             // WhyRequest -> Why
	ProcServiceLogs     = "/orch.cluster/ServiceLogs"     // ServiceLogsRequest -> stream of LogChunk
	ProcSession         = "/orch.cluster/Session"         // SessionRequest -> stream of Update
	ProcReport          = "/orch.cluster/Report"          // Report -> ReportResponse
)

// Read is how new the state has to be that a call is answered from.
type Read string

const (
	// ReadLeased: the leader's state. Who was cut off from the other managers stops
	// to be the leader before they choose another, if its clock and theirs agree on
	// how long that takes.
	ReadLeased Read = ""
	// ReadConsistent: as ReadLeased, and the leader asks the others first whether it
	// still is one.
	ReadConsistent Read = "consistent"
	// ReadStale: the state of the manager that is asked, also without a leader.
	ReadStale Read = "stale"
)

// Empty is a request or response that says nothing.
type Empty struct{}

// InitRequest makes a new cluster whose first manager is this node.
type InitRequest struct {
	AdvertiseAddr string `json:"advertiseAddr,omitempty"` // empty: the default route's
	Pool          string `json:"pool,omitempty"`          // empty: DefaultPool
	Autolock      bool   `json:"autolock,omitempty"`      // managers need an unlock key after a restart
	Return        Return `json:"return,omitempty"`        // of replies from published ports
	// Authority is the external one of the new cluster; nil: one is made.
	Authority *Authority `json:"authority,omitempty"`
	Shown
}

// DefaultPool is where task addresses and virtual IPs come from.
const DefaultPool = "10.128.0.0/10"

// InitResponse tells what was made.
type InitResponse struct {
	NodeID    NodeID     `json:"nodeID"`
	Tokens    JoinTokens `json:"tokens"`
	UnlockKey string     `json:"unlockKey,omitempty"`
}

// JoinRequest asks this node to join the cluster of Token.
type JoinRequest struct {
	Token         string `json:"token"` // as JoinTokens has it
	AdvertiseAddr string `json:"advertiseAddr,omitempty"`
}

// JoinResponse tells what the node has become.
type JoinResponse struct {
	NodeID NodeID `json:"nodeID"`
	Role   Role   `json:"role"`
}

// JoinTokens are what nodes join with, TOKEN@HOST:PORT.
type JoinTokens struct {
	Worker  string `json:"worker"`
	Manager string `json:"manager"`
}

// RotateTokenRequest asks for a new join token in the place of the one of Role,
// which is good no longer.
type RotateTokenRequest struct {
	Role Role `json:"role"`
}

// Info is what `orch info` shows of a node and its cluster.
type Info struct {
	Node      Node   `json:"node"`
	ClusterID string `json:"clusterID,omitempty"` // empty: not in a cluster
	// LeftBehind says why this manager takes no part, if it was left behind.
	LeftBehind string `json:"leftBehind,omitempty"`
	// Locked: it is a manager that waits for its unlock key.
	Locked   bool          `json:"locked,omitempty"`
	Leader   string        `json:"leader,omitempty"` // its hostname
	Managers int           `json:"managers,omitempty"`
	Nodes    int           `json:"nodes,omitempty"`
	Stacks   int           `json:"stacks,omitempty"`
	Services int           `json:"services,omitempty"`
	Tasks    int           `json:"tasks,omitempty"`
	Raft     *RaftInfo     `json:"raft,omitempty"` // managers only
	Pool     string        `json:"pool,omitempty"`
	Lease    time.Duration `json:"lease,omitempty"`
	// CertificateEnds is when this node's certificate expires. It is renewed
	// long before.
	CertificateEnds time.Time `json:"certificateEnds,omitzero"`
	// Election is the election timeout that a manager goes by, Disk what its disk
	// took for a small synchronous write when that was last measured.
	Election time.Duration `json:"election,omitempty"`
	Disk     time.Duration `json:"disk,omitempty"`
	// Attachments of this node's data plane.
	Attachments []Attachment `json:"attachments,omitempty"`
}

// RaftInfo is a manager's view of its Raft group.
type RaftInfo struct {
	State   string `json:"state"` // leader, follower, candidate
	Term    uint64 `json:"term"`
	Applied Index  `json:"applied"`
	Voters  int    `json:"voters"` // members that have a vote
}

// NodesRequest asks for nodes, by ID, unambiguous prefix of it, or hostname, or for
// all.
type NodesRequest struct {
	Nodes []string `json:"nodes,omitempty"`
}

// NodeList is nodes with what the leader knows beside the store.
type NodeList struct {
	Nodes []NodeEntry `json:"nodes"`
}

// NodeEntry is one row of `orch node ls`.
type NodeEntry struct {
	Node
	Leader bool `json:"leader,omitempty"`
	// Voter: a manager that has a vote. One that has none is catching up, or was
	// demoted a moment ago.
	Voter bool `json:"voter,omitempty"`
	// Applied is the index that the node has acknowledged; SeenAgo how long
	// ago it was last heard of.
	Applied Index         `json:"applied"`
	SeenAgo time.Duration `json:"seenAgo"`
}

// DeployRequest makes a stack be exactly what it says; see Prune.
type DeployRequest struct {
	Stack    string        `json:"stack"`
	Services []ServiceSpec `json:"services"`
	Networks []NetworkSpec `json:"networks"`
	Files    []FileSpec    `json:"files,omitempty"` // secrets and configs
	// Prune removes services of the stack that Services does not name.
	Prune bool `json:"prune,omitempty"`
	// Resolve says which images' names are looked up anew; see Resolve.
	Resolve Resolve `json:"resolve,omitempty"`
}

// NetworkSpec is a network that a stack declares.
type NetworkSpec struct {
	Name     string `json:"name"`
	Internal bool   `json:"internal,omitempty"`
	// Encrypted: see Network.
	Encrypted bool `json:"encrypted,omitempty"`
	// External networks must exist already and are not the stack's.
	External bool `json:"external,omitempty"`
}

// Resolve is when the name of an image is looked up, to pin what it stands for.
type Resolve string

const (
	// ResolveChanged: when the service is new or names another image. The default.
	ResolveChanged Resolve = "changed"
	// ResolveAlways: at each deploy, by the registry where there is one.
	ResolveAlways Resolve = "always"
	// ResolveNever: each node takes what it has, or pulls, by that name.
	ResolveNever Resolve = "never"
)

// DeployResponse tells what was changed, before any of it runs.
type DeployResponse struct {
	Index    Index           `json:"index"`
	Services []ServiceChange `json:"services"`
	Warnings []string        `json:"warnings,omitempty"`
}

// ServiceChange is what a deploy did to one service.
type ServiceChange struct {
	Name   string `json:"name"`
	Action string `json:"action"` // created, updated, unchanged, removed
}

// StackRequest names a stack.
type StackRequest struct {
	Stack string `json:"stack"`
}

// StackStatus is how far a stack is.
type StackStatus struct {
	Index    Index           `json:"index"`
	Services []ServiceStatus `json:"services"`
}

// Converged reports whether every service is as its spec says.
func (s *StackStatus) Converged() bool {
	for i := range s.Services {
		if !s.Services[i].Converged {
			return false
		}
	}
	return true
}

// ServiceStatus is how far a service is.
type ServiceStatus struct {
	Name    string `json:"name"`
	Mode    Mode   `json:"mode"`
	Image   string `json:"image"`
	Desired int    `json:"desired"` // slots
	// Running slots have a running task; Updated ones a running task made from
	// the current spec whose endpoint every live node has acknowledged.
	Running int `json:"running"`
	Updated int `json:"updated"`
	// Completed slots had a task that did its work and is not to run again.
	Completed int `json:"completed,omitempty"`
	// MaxConcurrent of a job's tasks run at the same time.
	MaxConcurrent int    `json:"maxConcurrent,omitempty"`
	Converged     bool   `json:"converged"`
	Ports         []Port `json:"ports,omitempty"`
	// Reason says what it waits for or why it fails, in a user's words.
	Reason string `json:"reason,omitempty"`
	// Failures counts tasks of the current spec that failed or were rejected
	// since any of them last ran; Unplaceable: no node suits a task.
	Failures    int  `json:"failures,omitempty"`
	Unplaceable bool `json:"unplaceable,omitempty"`
	// GaveUp: a slot's task failed, and the restart policy gives it no other.
	GaveUp bool `json:"gaveUp,omitempty"`
	// Update is how far the last update is; nil if there was none.
	Update *UpdateStatus `json:"update,omitempty"`
}

// StackList is every stack.
type StackList struct {
	Stacks []StackEntry `json:"stacks"`
}

// StackEntry is one row of `orch stack ls`.
type StackEntry struct {
	Name     string `json:"name"`
	Services int    `json:"services"`
	Tasks    int    `json:"tasks"`
}

// RemoveStackResponse tells what is being removed.
type RemoveStackResponse struct {
	Services []string `json:"services"`
	Networks []string `json:"networks"`
}

// ServicesRequest lists the services of a stack, or all.
type ServicesRequest struct {
	Stack string `json:"stack,omitempty"`
}

// ServiceList is services with their status.
type ServiceList struct {
	Services []ServiceEntry `json:"services"`
}

// ServiceEntry is one row of `orch service ls`.
type ServiceEntry struct {
	Service
	Status ServiceStatus `json:"status"`
}

// TasksRequest lists the tasks of a stack, of a service, on a node, or all.
type TasksRequest struct {
	Stack   string `json:"stack,omitempty"`
	Service string `json:"service,omitempty"` // ID, prefix of it, or name
	Node    string `json:"node,omitempty"`    // the same
}

// TaskList is tasks, newest first within a slot.
type TaskList struct {
	Tasks []TaskEntry `json:"tasks"`
}

// TaskEntry is one row of `orch service ps`.
type TaskEntry struct {
	Task
	NodeName string `json:"nodeName,omitempty"`
}

// ScaleRequest sets numbers of replicas by service.
type ScaleRequest struct {
	Replicas map[string]int `json:"replicas"`
}

// ScaleResponse names the services scaled, by full name.
type ScaleResponse struct {
	Index    Index    `json:"index"`
	Services []string `json:"services"`
	Stacks   []string `json:"stacks"`
}

// UpdateRequest changes a service. What is nil or empty stays as it is.
type UpdateRequest struct {
	Service string `json:"service"` // ID, prefix of it, or name
	Image   string `json:"image,omitempty"`
	// Pin is what the image stands for, if the caller knows; Auth are credentials
	// for its registry.
	Pin      ImagePin      `json:"pin,omitzero"`
	Auth     *RegistryAuth `json:"auth,omitempty"`
	Resolve  Resolve       `json:"resolve,omitempty"`
	Replicas *int          `json:"replicas,omitempty"`
	// AddEnv are KEY=VALUE, RemoveEnv are KEY.
	AddEnv    []string `json:"addEnv,omitempty"`
	RemoveEnv []string `json:"removeEnv,omitempty"`
	// AddFiles are secrets and configs, of which the newest version is meant; they
	// take the place of what has the same target. RemoveFiles are names.
	AddFiles    []FileRef `json:"addFiles,omitempty"`
	RemoveFiles []FileRef `json:"removeFiles,omitempty"`
	// Labels are the service's.
	AddLabels    map[string]string `json:"addLabels,omitempty"`
	RemoveLabels []string          `json:"removeLabels,omitempty"`
	// Constraints are taken away as they are written.
	AddConstraints    []Constraint `json:"addConstraints,omitempty"`
	RemoveConstraints []Constraint `json:"removeConstraints,omitempty"`

	StopGrace *time.Duration `json:"stopGrace,omitempty"`
	Update    UpdateChange   `json:"update"`
	Rollback  UpdateChange   `json:"rollback"`
	// Force makes all tasks anew even if nothing else changes.
	Force bool `json:"force,omitempty"`
}

// UpdateChange changes an UpdateConfig.
type UpdateChange struct {
	Parallelism     *int           `json:"parallelism,omitempty"`
	Delay           *time.Duration `json:"delay,omitempty"`
	Order           UpdateOrder    `json:"order,omitempty"`
	Monitor         *time.Duration `json:"monitor,omitempty"`
	MaxFailureRatio *float64       `json:"maxFailureRatio,omitempty"`
	FailureAction   FailureAction  `json:"failureAction,omitempty"`
}

// UpdateResponse names the service that is being changed.
type UpdateResponse struct {
	Index   Index  `json:"index"`
	Service string `json:"service"` // full name
	Stack   string `json:"stack"`
	Action  string `json:"action"` // updated, unchanged, rolling back, paused, resumed
}

// SteerRequest stops a service's update, lets it go on or takes it back.
type SteerRequest struct {
	Service string `json:"service"`
	Action  Steer  `json:"action"`
}

// Steer is what a user does with an update.
type Steer string

const (
	SteerRollback Steer = "rollback"
	SteerPause    Steer = "pause"
	SteerResume   Steer = "resume"
)

// ServiceLogsRequest asks for the output of a service's tasks.
type ServiceLogsRequest struct {
	Service string     `json:"service"`
	Options LogOptions `json:"options"`
}

// TaskLogsRequest asks a node for the output of one of its tasks.
type TaskLogsRequest struct {
	Task    TaskID     `json:"task"`
	Options LogOptions `json:"options"`
}

// LogChunk is output of one task.
type LogChunk struct {
	Task   string `json:"task,omitempty"` // its name
	Node   string `json:"node,omitempty"` // its node's hostname
	Stderr bool   `json:"stderr,omitempty"`
	Data   []byte `json:"data"`
}

// Paths are absolute paths on a node.
type Paths struct {
	Paths []string `json:"paths,omitempty"`
}

package api

import "time"

// Procedures about a cluster's backups.
const (
	ProcBackup    = "/orch.cluster/Backup"    // Empty -> bytes
	ProcBackupKey = "/orch.cluster/BackupKey" // BackupKeyRequest -> BackupKey
	ProcRestore   = "/orch.node/Restore"      // RestoreRequest and bytes -> Empty
)

// BackupKeyRequest asks for the key that backups are sealed under, which is made if
// there is none, with Rotate for a new one.
type BackupKeyRequest struct {
	Rotate bool `json:"rotate,omitempty"`
}

// BackupKey is what opens the backups that are made from now on.
type BackupKey struct {
	Key string `json:"key"`
	// Made: it is new.
	Made bool `json:"made,omitempty"`
}

// RestoreRequest makes this node the only manager of the cluster that a backup is of.
type RestoreRequest struct {
	Key           string `json:"key"`
	AdvertiseAddr string `json:"advertiseAddr,omitempty"` // empty: the default route's
	// Force: also if managers of the cluster answer.
	Force bool `json:"force,omitempty"`
	Shown
}

// Procedures about a managers' group that began anew, because most of it was lost.
const (
	ProcSurvey  = "/orch.node/Survey"  // Empty -> Survey, of a manager
	ProcRecover = "/orch.node/Recover" // RecoverRequest -> Survey, of a manager
	ProcGroup   = "/orch.agent/Group"  // Empty -> Group, of a manager
)

// Group is what a manager says of the Raft group that it is in.
type Group struct {
	// Epoch tells the groups of the cluster from each other: the first is 0, and there
	// is another, with a greater one, whenever one of the managers, or a backup, is all
	// that was left. It is when that was, in seconds since 1970, or more.
	Epoch uint64 `json:"epoch"`
	// Leader is whom it follows, "" if nobody.
	Leader NodeID `json:"leader,omitempty"`
	// Term and Last are those of the newest entry in its log.
	Term uint64 `json:"term"`
	Last Index  `json:"last"`
}

// NewerThan reports whether a log has something that another has not.
func (g Group) NewerThan(o Group) bool {
	return g.Term > o.Term || g.Term == o.Term && g.Last > o.Last
}

// Survey is what a manager that is to go on alone has, and what it gives up.
type Survey struct {
	Epoch uint64 `json:"epoch"`
	// Last is the newest entry of its log, which is kept; entries after Committed
	// may or may not have been acknowledged. Written is when Last was, if the log
	// has it.
	Last      Index     `json:"last"`
	Committed Index     `json:"committed"`
	Written   time.Time `json:"written,omitzero"`
	// Managers are the others of the group.
	Managers []SurveyedManager `json:"managers"`
	// Objection is why the group should not begin anew, "" if nothing speaks
	// against it.
	Objection string `json:"objection,omitempty"`
}

// SurveyedManager is one of the other managers.
type SurveyedManager struct {
	Node    NodeID `json:"node"`
	Name    string `json:"name"`
	Addr    string `json:"addr"`
	Answers bool   `json:"answers"`
	Group   Group  `json:"group"` // if it answers
}

// RecoverRequest makes a manager the only one.
type RecoverRequest struct {
	// Force: whatever speaks against it.
	Force bool `json:"force,omitempty"`
}

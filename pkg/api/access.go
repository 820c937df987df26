package api

// Access says who may call a procedure. Whoever may use a daemon's local socket
// may call all that this daemon answers.
type Access int

const (
	// AccessManager: managers alone. It is the default.
	AccessManager Access = iota
	// AccessAdmin: managers, and users who are admins.
	AccessAdmin
	// AccessViewer: managers and all users. Nothing that it is given to changes
	// anything, or shows a secret.
	AccessViewer
	// AccessMember: every node of the cluster, and only for itself.
	AccessMember
	// AccessKnown: every node and every user, and only for itself.
	AccessKnown
	// AccessAnyone: callers without a certificate too.
	AccessAnyone
	// AccessLocal: the local socket alone.
	AccessLocal
)

// access has a line for every procedure.
var access = map[string]Access{
	ProcInit:    AccessLocal,
	ProcJoin:    AccessLocal,
	ProcUnlock:  AccessLocal,
	ProcLeave:   AccessLocal,
	ProcRestore: AccessLocal,
	ProcSurvey:  AccessLocal,
	ProcRecover: AccessLocal,
	ProcDepart:  AccessMember,
	ProcInfo:    AccessViewer,

	ProcAdmit:     AccessAnyone, // its token is what counts
	ProcRenew:     AccessKnown,
	ProcSession:   AccessMember,
	ProcReport:    AccessMember,
	ProcTaskFiles: AccessMember, // of a task that it runs

	// What managers ask of nodes, and of each other.
	ProcAddMember:    AccessManager,
	ProcRaft:         AccessManager,
	ProcGroup:        AccessManager,
	ProcImageStatus:  AccessManager,
	ProcTaskLogs:     AccessManager,
	ProcMissingPaths: AccessManager,
	ProcDiagnose:     AccessManager,
	ProcClock:        AccessManager,
	ProcDisk:         AccessManager,
	ProcNetFrontends: AccessManager,
	ProcNetDrops:     AccessManager,
	ProcNetFlows:     AccessManager,
	ProcNetTrace:     AccessManager,
	// What somebody has built who deploys it.
	ProcImageOffer:  AccessAdmin,
	ProcImageUpload: AccessAdmin,
	ProcImageCommit: AccessAdmin,
	// What nodes ask of each other, with a manager's grant.
	ProcImageSources:  AccessMember,
	ProcImageManifest: AccessMember,
	ProcImageLayer:    AccessMember,

	ProcAuthority:       AccessViewer,
	ProcClusterSettings: AccessViewer,
	ProcNodes:           AccessViewer,
	ProcStacks:          AccessViewer,
	ProcWatchStack:      AccessViewer,
	ProcServices:        AccessViewer,
	ProcServiceLogs:     AccessViewer,
	ProcTasks:           AccessViewer,
	ProcWhy:             AccessViewer,
	ProcImageHolders:    AccessViewer,
	ProcFiles:           AccessViewer,
	ProcFile:            AccessViewer,
	ProcAskDiagnose:     AccessViewer,
	ProcAskFrontends:    AccessViewer,
	ProcAskDrops:        AccessViewer,
	ProcAskFlows:        AccessViewer,
	ProcAskTrace:        AccessViewer,

	ProcJoinTokens:      AccessAdmin,
	ProcRotateToken:     AccessAdmin,
	ProcRotateAuthority: AccessAdmin,
	ProcRotateGossipKey: AccessAdmin,
	ProcFinishRotation:  AccessAdmin,
	ProcUsers:           AccessAdmin,
	ProcAddUser:         AccessAdmin,
	ProcRemoveUser:      AccessAdmin,
	ProcUpdateNode:      AccessAdmin,
	ProcRemoveNode:      AccessAdmin,
	ProcDeploy:          AccessAdmin,
	ProcRemoveStack:     AccessAdmin,
	ProcScale:           AccessAdmin,
	ProcRebalance:       AccessAdmin,
	ProcUpdate:          AccessAdmin,
	ProcSteer:           AccessAdmin,
	ProcCreateFile:      AccessAdmin,
	ProcUpdateCluster:   AccessAdmin,
	ProcUnlockKey:       AccessAdmin,
	ProcRemoveFile:      AccessAdmin,
	ProcBackup:          AccessAdmin,
	ProcBackupKey:       AccessAdmin,
}

// AccessTo returns who may call a procedure.
func AccessTo(procedure string) Access { return access[procedure] }

// ManagersOnly reports whether managers are the only nodes with that access.
func (a Access) ManagersOnly() bool {
	return a == AccessManager || a == AccessAdmin || a == AccessViewer
}

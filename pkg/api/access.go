package api

// Access says who may call a procedure. Whoever may use a daemon's local socket
// may call all that this daemon answers.
type Access int

const (
	// AccessManager: managers alone. It is the default.
	AccessManager Access = iota
	// AccessMember: every node of the cluster, and only for itself.
	AccessMember
	// AccessAnyone: callers without a certificate too.
	AccessAnyone
	// AccessLocal: the local socket alone.
	AccessLocal
)

var access = map[string]Access{
	ProcInit:    AccessLocal,
	ProcJoin:    AccessLocal,
	ProcAdmit:   AccessAnyone, // its token is what counts
	ProcRenew:   AccessMember,
	ProcSession: AccessMember,
	ProcReport:  AccessMember,

	ProcImageSources:  AccessMember,
	ProcImageManifest: AccessMember, // with a manager's grant
	ProcImageLayer:    AccessMember,
}

// AccessTo returns who may call a procedure.
func AccessTo(procedure string) Access { return access[procedure] }

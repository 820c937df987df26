package api

// Procedures about the cluster's settings and the key to what managers keep.
const (
	ProcUnlock        = "/orch.node/Unlock"           // UnlockRequest -> Empty
	ProcUpdateCluster = "/orch.cluster/UpdateCluster" // UpdateClusterRequest -> UpdateClusterResponse
	ProcUnlockKey     = "/orch.cluster/UnlockKey"     // UnlockKeyRequest -> UnlockKey
)

// UpdateClusterRequest changes what holds for the whole cluster. What is nil stays
// as it is.
type UpdateClusterRequest struct {
	// Autolock: managers need the unlock key after a restart.
	Autolock *bool `json:"autolock,omitempty"`
}

// UpdateClusterResponse has the unlock key if autolock was switched on.
type UpdateClusterResponse struct {
	UnlockKey string `json:"unlockKey,omitempty"`
}

// UnlockKeyRequest asks for the unlock key, with Rotate for a new one.
type UnlockKeyRequest struct {
	Rotate bool `json:"rotate,omitempty"`
}

// UnlockKey is what managers need after a restart.
type UnlockKey struct {
	Key string `json:"key"`
}

// UnlockRequest opens what a manager keeps, after its restart.
type UnlockRequest struct {
	Key string `json:"key"`
}

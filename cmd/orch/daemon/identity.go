package daemon

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/seal"
)

// identity is what a node must know of itself to take part in its cluster
// again after a restart. It is kept in the state directory.
type identity struct {
	Node      api.NodeID `json:"node"`
	ClusterID string     `json:"clusterID,omitempty"` // empty: in no cluster yet
	Role      api.Role   `json:"role,omitempty"`
	Addr      netip.Addr `json:"addr,omitzero"`
	Pool      string     `json:"pool,omitempty"`
	GossipKey []byte     `json:"gossipKey,omitempty"`
	// OtherGossipKeys decrypt, while the key is replaced.
	OtherGossipKeys [][]byte `json:"otherGossipKeys,omitempty"`
	Managers        []string `json:"managers,omitempty"` // API addresses
	// ElectionTimeout is the last that is known, for a manager's next start.
	ElectionTimeout time.Duration `json:"electionTimeout,omitempty"`
	// Epoch is that of the managers' group. LeftBehind is the address of a manager
	// of a later one, which this manager is not in.
	Epoch      uint64 `json:"epoch,omitempty"`
	LeftBehind string `json:"leftBehind,omitempty"`
	// Joining: a manager that may not be in the Raft group yet.
	Joining bool `json:"joining,omitempty"`

	// Key is the node's own, made with its ID and whenever its certificate is
	// renewed: PKCS #8. The rest is of its cluster: X.509, DER.
	Key         []byte   `json:"key,omitempty"`
	Certificate []byte   `json:"certificate,omitempty"`
	Chain       [][]byte `json:"chain,omitempty"`
	Roots       [][]byte `json:"roots,omitempty"`

	// Sealed is, in the file alone, what a manager that is to be unlocked keeps
	// under its ring instead: Key, GossipKey and OtherGossipKeys.
	Sealed []byte     `json:"sealed,omitempty"`
	ring   *seal.Ring // nil: nothing is sealed

	credentials *pki.Credentials // of these four
}

// certify gives the node a certificate for a key, and with it its role.
func (id *identity) certify(key []byte, issued api.Certificate) (err error) {
	id.Key, id.Certificate, id.Chain, id.Roots = key, issued.Node, issued.Chain, issued.Roots
	if id.credentials, err = pki.NewCredentials(id.Key, issued); err != nil {
		return err
	}
	id.Role = id.credentials.Identity.Role
	return nil
}

// gossipRing are the keys of the gossip, of which the first encrypts.
func (id *identity) gossipRing() [][]byte {
	return append([][]byte{id.GossipKey}, id.OtherGossipKeys...)
}

// member reports whether the node is in a cluster.
func (id *identity) member() bool { return id.ClusterID != "" }

func identityFile(stateDir string) string { return filepath.Join(stateDir, "node.json") }

// loadIdentity reads the node's identity; a node that has none gets an ID.
func loadIdentity(stateDir string) (*identity, error) {
	path := identityFile(stateDir)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		key, err := pki.NewKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		id := &identity{Node: api.NodeID(api.NewID(rand.Reader)), Key: key}
		return id, id.save(stateDir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the node's identity: %w", err)
	}
	id := &identity{}
	err = json.Unmarshal(data, id)
	if err == nil && id.Sealed != nil && id.member() {
		return id, nil // for open
	}
	if err == nil && (id.Node == "" || len(id.Key) == 0) {
		err = errors.New("it has no ID or no key")
	}
	if err == nil && id.member() {
		err = id.certify(id.Key, api.Certificate{Node: id.Certificate, Chain: id.Chain, Roots: id.Roots})
	}
	if err != nil {
		return nil, fmt.Errorf("the node's identity in %s is damaged (%v): restore the file, or remove %s to make this a new node", path, err, stateDir)
	}
	return id, nil
}

// sealedIdentity is what is in identity.Sealed.
type sealedIdentity struct {
	Key, GossipKey  []byte
	OtherGossipKeys [][]byte
}

var identityContext = []byte("orch node identity")

// open makes an identity whole that is sealed under the ring.
func (id *identity) open(ring *seal.Ring) error {
	if id.Sealed == nil {
		return nil
	}
	plain, err := ring.NewBox().Open(id.Sealed, identityContext)
	var kept sealedIdentity
	if err == nil {
		err = json.Unmarshal(plain, &kept)
	}
	if err == nil {
		err = id.certify(kept.Key, api.Certificate{Node: id.Certificate, Chain: id.Chain, Roots: id.Roots})
	}
	if err != nil {
		return fmt.Errorf("the node's identity: %w", err)
	}
	id.GossipKey, id.OtherGossipKeys, id.Sealed, id.ring = kept.GossipKey, kept.OtherGossipKeys, nil, ring
	return nil
}

// save writes the identity so that a crash leaves the old one or the new one.
func (id *identity) save(stateDir string) error {
	kept := *id
	if id.ring != nil && id.Role == api.RoleManager {
		plain, err := json.Marshal(sealedIdentity{id.Key, id.GossipKey, id.OtherGossipKeys})
		if err != nil {
			return err
		}
		kept.Key, kept.GossipKey, kept.OtherGossipKeys = nil, nil, nil
		kept.Sealed = id.ring.NewBox().Seal(plain, identityContext)
	}
	data, err := json.MarshalIndent(kept, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(identityFile(stateDir), data)
}

// writeFile replaces a file as one step, readable by root alone.
func writeFile(path string, data []byte) error {
	if err := renameio.WriteFile(path, data, 0o600, renameio.WithTempDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

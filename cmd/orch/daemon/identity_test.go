package daemon

import (
	"crypto/rand"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/pki"
	"github.com/orch-dev/orch/pkg/rpc"
)

// founded is the identity of a cluster's first node, kept in dir.
func founded(t testing.TB, dir string) (*identity, *api.Cluster) {
	t.Helper()
	id, err := loadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	cluster := &api.Cluster{ID: api.NewID(rand.Reader), CertificateLife: pki.DefaultLife}
	id.ClusterID, id.Role = cluster.ID, api.RoleManager
	if err := (&daemon{}).found(t.Context(), id, cluster, &api.InitRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := id.save(dir); err != nil {
		t.Fatal(err)
	}
	return id, cluster
}

func TestIdentitySurvives(t *testing.T) {
	dir := t.TempDir()
	fresh, err := loadIdentity(dir)
	if err != nil || fresh.member() || len(fresh.Key) == 0 {
		t.Fatalf("a new node: %+v, %v", fresh, err)
	}
	id, cluster := founded(t, dir)
	if id.Node != fresh.Node || string(id.Key) != string(fresh.Key) {
		t.Error("the node's ID and key are not those of its first start")
	}
	again, err := loadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := pki.Identity{Cluster: cluster.ID, Role: api.RoleManager, Node: id.Node}
	if got := again.credentials.Identity; got != want {
		t.Errorf("after a restart it is %s, want %s", got, want)
	}
	info, err := os.Stat(identityFile(dir))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file with the key has the mode %v, %v", info.Mode(), err)
	}
}

func TestDamagedIdentity(t *testing.T) {
	for name, damage := range map[string]func(*identity){
		"no ID":             func(id *identity) { id.Node = "" },
		"no key":            func(id *identity) { id.Key = nil },
		"no certificate":    func(id *identity) { id.Certificate = nil },
		"another's key":     func(id *identity) { id.Key, _ = pki.NewKey(rand.Reader) },
		"no authority":      func(id *identity) { id.Roots = nil },
		"a damaged private": func(id *identity) { id.Key[20] ^= 1 },
	} {
		dir := t.TempDir()
		id, _ := founded(t, dir)
		damage(id)
		if err := id.save(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := loadIdentity(dir); err == nil || !strings.Contains(err.Error(), identityFile(dir)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A renewed certificate is kept, and shown from then on; one that does not fit
// changes nothing.
func TestCertify(t *testing.T) {
	dir := t.TempDir()
	id, cluster := founded(t, dir)
	d := &daemon{options: options{stateDir: dir}, id: *id}
	d.peers = rpc.NewPool(&rpc.Security{Credentials: d.credentials, Now: time.Now})
	authority, err := pki.LoadAuthority(cluster.Authority)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := pki.NewKey(rand.Reader)
	request, _ := pki.Request(key)
	later := pki.Identity{Cluster: cluster.ID, Role: api.RoleWorker, Node: id.Node}
	cert, err := authority.Issue(rand.Reader, request, later, pki.DefaultLife, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	issued := api.Certificate{Node: cert, Roots: [][]byte{cluster.Authority.Certificate}}
	if _, err := d.certify(id.Key, issued); err == nil {
		t.Error("a certificate for another key is taken")
	}
	if got := d.credentials().Identity.Role; got != api.RoleManager {
		t.Errorf("the node is a %s now", got)
	}
	if _, err := d.certify(key, issued); err != nil {
		t.Fatal(err)
	}
	again, err := loadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	if shown, kept := d.credentials().Identity, again.credentials.Identity; shown != later || kept != later {
		t.Errorf("shown %s, kept %s, want %s", shown, kept, later)
	}
}

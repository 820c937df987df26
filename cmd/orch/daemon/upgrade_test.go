package daemon

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/manager"
	"github.com/orch-dev/orch/pkg/pki"
)

// released is the state directory of a manager of commit 1753c63, whose own code has
// written it: a cluster of two nodes, a stack with a service and a network, of
// which the first half is in a snapshot and two tasks are in the log. It had no seal
// and another kind of log.
const released = "testdata/state-1753c63.tar.gz"

// The state of the last release is read, and all of it is still there, also after
// it was written again in the form of today.
func TestUpgrade(t *testing.T) {
	dir := t.TempDir()
	unpack(t, released, dir)
	for _, start := range []string{"the first", "the next"} {
		t.Run(start, func(t *testing.T) {
			id, err := loadIdentity(dir)
			if err != nil {
				t.Fatal(err)
			}
			replica := openReleased(t, id, dir)
			checkReleased(t, id, replica.Snapshot())
			if _, err := replica.Update(t.Context(), func(snap *api.Snapshot) ([]api.Change, error) {
				next := *snap.Nodes[id.Node]
				next.Rebalance = !next.Rebalance
				return []api.Change{{Node: &next}}, nil
			}); err != nil {
				t.Error(err)
			}
		})
	}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), "example.com/shop/web") {
			t.Errorf("%s still has the state in the clear", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// openReleased starts the Raft of a manager that is the only one.
func openReleased(t *testing.T, id *identity, dir string) *manager.Replica {
	t.Helper()
	d := &daemon{options: options{stateDir: dir, apiPort: api.DefaultAPIPort}}
	keys, err := openKeyring(d.keyFile(), nil)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(id.Addr, d.apiPort)
	layer := consensus.NewStreamLayer(net.TCPAddrFromAddrPort(addr), func(context.Context, string) (net.Conn, error) {
		return nil, errors.New("nobody else is there")
	})
	state := store.New()
	raft, err := consensus.New(consensus.Config{
		ID: id.Node, Addr: addr.String(), Dir: d.raftDir(), Transport: layer, FSM: state, Keys: keys.keys(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := raft.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, _, err := raft.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	if err := raft.Barrier(ctx); err != nil {
		t.Fatal(err)
	}
	return &manager.Replica{Store: state, Raft: raft}
}

func checkReleased(t *testing.T, id *identity, snap *api.Snapshot) {
	t.Helper()
	c := snap.Cluster
	if c == nil || c.ID != id.ClusterID || c.Pool != api.DefaultPool || c.WorkerToken == "" || c.ManagerToken == "" || len(c.GossipRing()[0]) != 32 {
		t.Fatalf("the cluster is %+v", c)
	}
	if err := c.ValidateSettings(); err != nil {
		t.Error(err)
	}
	authority, err := pki.LoadAuthority(*c.Issuer())
	if err != nil {
		t.Fatal(err)
	}
	request, err := pki.Request(id.Key)
	if err != nil {
		t.Fatal(err)
	}
	self := pki.Identity{Cluster: c.ID, Role: api.RoleManager, Node: id.Node}
	if _, err := authority.Issue(rand.Reader, request, self, c.CertificateLife, time.Now()); err != nil {
		t.Errorf("its authority signs no more: %v", err)
	}
	if id.credentials.Identity != self || !slices.Equal(id.Managers, []string{"192.0.2.1:2377"}) {
		t.Errorf("the node is %+v, its managers %v", id.credentials.Identity, id.Managers)
	}

	var got []string
	for _, n := range api.Sorted(snap.Nodes) {
		got = append(got, strings.Join([]string{n.Hostname, string(n.Role), string(n.Availability), n.APIAddr(), n.Labels["zone"]}, " "))
	}
	for _, n := range api.Sorted(snap.Networks) {
		got = append(got, n.Name)
	}
	for _, s := range api.Sorted(snap.Services) {
		got = append(got, strings.Join([]string{s.Spec.Name, s.Spec.Task.Image, s.Spec.Labels["tier"]}, " "))
		if s.Spec.Replicas != 2 || len(s.Spec.Ports) != 1 || s.Spec.Ports[0].Published != 8090 {
			t.Errorf("the service is %+v", s.Spec)
		}
	}
	for _, task := range api.Sorted(snap.Tasks) {
		got = append(got, strings.Join([]string{"task", task.ServiceName, task.Endpoint.Addr.String(), string(task.Status.State), string(task.Endpoint.State)}, " "))
	}
	slices.Sort(got)
	want := []string{
		"m1 manager active 192.0.2.1:2377 a", "shop_back", "shop_web example.com/shop/web:1 front",
		"task shop_web 10.128.0.1 running ready", "task shop_web 10.128.0.2 running ready", "w1 worker drain 192.0.2.2:2377 ",
	}
	if !slices.Equal(got, want) {
		t.Errorf("there is %q\nwant %q", got, want)
	}
}

// unpack unpacks an archive of files.
func unpack(t *testing.T, archive, dir string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plain, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	for files := tar.NewReader(plain); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(path, 0o700)
		} else {
			var data []byte
			if data, err = io.ReadAll(files); err == nil {
				err = os.WriteFile(path, data, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

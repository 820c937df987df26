package consensus_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
)

// Of linux/fs.h: writes to a file system that is frozen wait until it is not.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// ext4 mounts a file system of its own that can be frozen.
func ext4(t *testing.T) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a disk that can be frozen takes root")
	}
	image := filepath.Join(t.TempDir(), "disk")
	dir = t.TempDir()
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 96<<20); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount the disk: %v", err)
		}
	})
	return dir
}

// freeze has all writes to the file system of dir wait until thaw.
func freeze(t *testing.T, dir string) (thaw func()) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetInt(int(f.Fd()), fiFreeze, 0); err != nil {
		t.Fatalf("freeze %s: %v", dir, err)
	}
	frozen := true
	thaw = func() {
		if frozen {
			frozen = false
			if err := errors.Join(unix.IoctlSetInt(int(f.Fd()), fiThaw, 0), f.Close()); err != nil {
				t.Errorf("thaw %s: %v", dir, err)
			}
		}
	}
	t.Cleanup(thaw)
	return thaw
}

// A leader whose disk hangs goes on sending heartbeats: it has to be cut off for
// the others to go on without it.
func TestLeaderWhoseDiskHangs(t *testing.T) {
	hangs := start(t, "hangs", ext4(t), "")
	if err := hangs.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	peers := []*peer{hangs}
	for _, id := range []api.NodeID{"m1", "m2"} {
		p := start(t, id, t.TempDir(), "")
		add(t, peers, p)
		peers = append(peers, p)
	}
	propose(t, peers, "before")
	await(t, "the node with the disk leads", func() error {
		leader := waitLeader(t, peers...)
		if leader == hangs {
			return nil
		}
		return cmp.Or(leader.TransferLeadership(within(t)), errors.New("another does"))
	})

	thaw := freeze(t, hangs.dir)
	began := time.Now()
	if _, err := tryPropose(within(t), hangs, "hung"); err == nil || errors.Is(err, store.ErrConflict) {
		t.Errorf("a write to a disk that hangs: %v", err)
	}
	rest := others(peers, hangs)
	propose(t, rest, "meanwhile")
	t.Logf("the next write after %v, with an election timeout of %v", time.Since(began).Round(time.Millisecond), api.DefaultElectionTimeout)
	if hangs.IsLeader() || !hangs.Stalled() {
		t.Errorf("the node whose disk hangs holds itself for the leader: %+v", hangs.Stats())
	}
	if _, err := tryPropose(within(t), hangs, "refused"); !errors.Is(err, consensus.ErrNotLeader) {
		t.Errorf("a write after the node gave up: %v", err)
	}

	thaw()
	leader, last := propose(t, rest, "after")
	waitState(t, hangs, last, state(t, leader))
	if hangs.store.NetworkByName("refused") != nil {
		t.Error("what was refused was done")
	}
}

// stuck is a log on a disk that hangs: that it does is not written before until is
// closed.
type stuck struct {
	slog.Handler
	until chan struct{}
}

func (s *stuck) Handle(ctx context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "the disk does not take") {
		<-s.until
	}
	return s.Handler.Handle(ctx, r)
}

// A leader whose disk hangs is cut off also if that cannot be logged, and takes part
// again when the disk does.
func TestLeaderWhoseLogHangsToo(t *testing.T) {
	logged := make(chan struct{})
	peers := cluster(t, 3, func(c *consensus.Config) { c.Log = slog.New(&stuck{c.Log.Handler(), logged}) })
	t.Cleanup(func() { close(logged) })
	var leader *peer
	var write func()
	await(t, "the leader is cut off", func() error {
		leader = waitLeader(t, peers...)
		written := make(chan struct{})
		write = sync.OnceFunc(func() { close(written) })
		t.Cleanup(write)
		go leader.HangDisk(written)
		for end := time.Now().Add(10 * api.DefaultElectionTimeout); !leader.Stalled(); time.Sleep(time.Millisecond) {
			if !leader.IsLeader() || time.Now().After(end) {
				write() // it may have lost its lead before
				return fmt.Errorf("it leads: %v", leader.IsLeader())
			}
		}
		return nil
	})
	propose(t, others(peers, leader), "meanwhile")
	if leader.IsLeader() || !leader.Stalled() {
		t.Errorf("it holds itself for the leader: %+v", leader.Stats())
	}
	write()
	await(t, "it takes part again", func() error {
		if leader.Stalled() {
			return errors.New("it does not")
		}
		return nil
	})
	next, last := propose(t, peers, "after")
	waitState(t, leader, last, state(t, next))
}

func TestRetime(t *testing.T) {
	peers := cluster(t, 3, func(c *consensus.Config) { c.SnapshotEvery, c.KeepEntries = 4, 2 })
	for i := range 12 {
		propose(t, peers, fmt.Sprint("net", i))
	}
	for _, p := range peers {
		before := p.store.Index()
		if err := p.Retime(400 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if after := p.store.Index(); after < before {
			t.Errorf("the state of %s went back from %d to %d", p.id, before, after)
		}
	}
	leader, last := propose(t, peers, "after")
	want := state(t, leader)
	for _, p := range peers {
		waitState(t, p, last, want)
	}

	began := time.Now()
	leader.CutOff() // its process is there: nothing but silence tells
	waitLeader(t, others(peers, leader)...)
	if took := time.Since(began); took < 400*time.Millisecond*2/3 {
		t.Errorf("the next leader after %v, sooner than an election timeout of 400 ms lets it", took)
	}
}

// await waits until check is content.
func await(t *testing.T, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not so after %v: %s: %v", limit, what, err)
		}
	}
}

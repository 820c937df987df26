package consensus_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/seal"
)

var rings sync.Map // *seal.Ring by directory

// ringOf is the key ring of the node in dir, the same after a restart.
func ringOf(dir string) *seal.Ring {
	ring, _ := rings.LoadOrStore(dir, seal.NewRing(rand.Reader))
	return ring.(*seal.Ring)
}

func keys(ring *seal.Ring) settings { return func(c *consensus.Config) { c.Keys = ring } }

// planted is what no file may have in it.
const planted = "planted-7f2c91"

// found are the files below dir with what was planted in them.
func found(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, []byte(planted)) {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// plant makes a node with the value in its snapshot and in its log, stops it and
// returns it with its state.
func plant(t *testing.T, set ...settings) (*peer, api.Index, []byte) {
	t.Helper()
	p := cluster(t, 1, set...)[0]
	for i := range 5 {
		propose(t, []*peer{p}, fmt.Sprint(planted, "-", i))
	}
	if err := p.Compact(); err != nil {
		t.Fatal(err)
	}
	_, last := propose(t, []*peer{p}, planted+"-last")
	want := state(t, p)
	p.stop(t)
	return p, last, want
}

// restarted starts a stopped node, looks at its state and stops it.
func restarted(t *testing.T, p *peer, last api.Index, want []byte, ring *seal.Ring) {
	t.Helper()
	back := start(t, p.id, p.dir, p.addr, keys(ring))
	waitState(t, back, last, want)
	back.stop(t)
}

func TestSealedOnDisk(t *testing.T) {
	p, last, want := plant(t)
	if files := found(t, p.dir); len(files) > 0 {
		t.Errorf("in the clear in %v", files)
	}
	restarted(t, p, last, want, ringOf(p.dir))

	_, err := consensus.New(consensus.Config{
		ID: p.id, Addr: p.addr, Dir: p.dir, FSM: store.New(), Keys: seal.NewRing(rand.Reader),
		Log: slog.New(slog.DiscardHandler), Transport: consensus.NewStreamLayer(address(t, p.addr), nil),
	})
	if err == nil || !strings.Contains(err.Error(), "key") {
		t.Errorf("opened with another key: %v", err)
	}
}

func address(t *testing.T, addr string) net.Addr {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A manager of before there was a seal: all of it is sealed at its next start,
// and its term and vote are kept.
func TestStateOfBeforeIsSealed(t *testing.T) {
	p, last, want := plant(t, keys(nil))
	if files := found(t, p.dir); len(files) < 2 {
		t.Fatalf("not both log and snapshot have the value: %v", files)
	}
	before := start(t, p.id, p.dir, p.addr, keys(nil))
	term := waitLeader(t, before).Stats().Term
	before.stop(t)

	ring := ringOf(p.dir)
	back := start(t, p.id, p.dir, p.addr, keys(ring))
	waitState(t, back, last, want)
	if got := waitLeader(t, back).Stats().Term; got <= term {
		t.Errorf("it leads in term %d, before it was %d", got, term)
	}
	back.stop(t)
	if files := found(t, p.dir); len(files) > 0 {
		t.Errorf("in the clear in %v", files)
	}
	restarted(t, p, last, want, ring)
}

func TestKeyReplaced(t *testing.T) {
	p, last, want := plant(t)
	next := ringOf(p.dir).WithNewKey()
	restarted(t, p, last, want, next)
	restarted(t, p, last, want, next.WithoutOldKeys())
}

// Killed while the log was written again, before and after the old one was moved
// away.
func TestSealingInterrupted(t *testing.T) {
	p, last, want := plant(t, keys(nil))
	log := filepath.Join(p.dir, "log")
	if err := os.Mkdir(log+".next", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(log+".next", "log.db"), []byte("half of it"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(log, log+".past"); err != nil {
		t.Fatal(err)
	}
	restarted(t, p, last, want, ringOf(p.dir))
	if files := found(t, p.dir); len(files) > 0 {
		t.Errorf("in the clear in %v", files)
	}
}

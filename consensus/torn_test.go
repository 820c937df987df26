package consensus_test

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/pkg/api"
)

// writerDir is set for the process that writes until it is killed.
const writerDir = "ORCH_TEST_WRITER"

// TestWriter is no test: it is a manager that TestKilledWhileWriting kills. It
// prints the number of each entry once that is acknowledged.
func TestWriter(t *testing.T) {
	dir := os.Getenv(writerDir)
	if dir == "" {
		t.Skip("it is run by TestKilledWhileWriting")
	}
	p := start(t, "m0", dir, "", keys(nil))
	if err := p.Bootstrap(); err != nil && !strings.Contains(err.Error(), "bootstrap only works on new clusters") {
		t.Fatal(err)
	}
	undisturbed(t, []*peer{p}, func(leader *peer) error { return leader.Barrier(within(t)) })
	for i := len(p.store.Snapshot().Networks); ; i++ {
		propose(t, []*peer{p}, fmt.Sprint("net", i))
		fmt.Println("acknowledged", i)
	}
}

// writeUntilKilled runs a writer on dir, kills it after some entries, and returns
// the last one that was acknowledged.
func writeUntilKilled(t *testing.T, dir string, entries int) (last int) {
	t.Helper()
	writer := exec.Command(os.Args[0], "-test.run=^TestWriter$", "-test.v")
	writer.Env = append(os.Environ(), writerDir+"="+dir)
	out, err := writer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	last = -1
	lines := bufio.NewScanner(out)
	var said strings.Builder
	for lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		number, ok := strings.CutPrefix(lines.Text(), "acknowledged ")
		if !ok {
			continue
		}
		if last, err = strconv.Atoi(number); err != nil {
			t.Fatal(err)
		}
		if entries--; entries == 0 {
			_ = writer.Process.Signal(syscall.SIGKILL) // in the middle of what follows
		}
	}
	_ = writer.Wait()
	if last < 0 {
		t.Fatalf("the writer wrote nothing:\n%s", said.String())
	}
	return last
}

// tear writes noise where an interrupted write may have left it: behind the end
// of the log's file, and over the older of the two pages that it begins with.
func tear(t *testing.T, dir string, length int) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "log", "log.db"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	noise := make([]byte, length)
	_, _ = rand.Read(noise)
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(noise, info.Size()); err != nil {
		t.Fatal(err)
	}
	const page, transactionAt = 4096, 64
	var number [2]uint64
	for i := range number {
		var b [8]byte
		if _, err := f.ReadAt(b[:], int64(i*page+transactionAt)); err != nil {
			t.Fatal(err)
		}
		number[i] = binary.NativeEndian.Uint64(b[:])
	}
	older := 0
	if number[1] < number[0] {
		older = 1
	}
	if _, err := f.WriteAt(noise[:min(length, 200)], int64(older*page+16)); err != nil {
		t.Fatal(err)
	}
}

// A manager that is killed while it writes, again and again, starts with all that
// it had acknowledged, also when the last write was torn.
func TestKilledWhileWriting(t *testing.T) {
	dir := t.TempDir()
	for round := range 6 {
		last := writeUntilKilled(t, dir, 5+10*round)
		if round%2 == 1 {
			tear(t, dir, 300<<round)
		}
		p := start(t, "m0", dir, "", keys(nil))
		undisturbed(t, []*peer{p}, func(leader *peer) error { return leader.Barrier(within(t)) })
		for i := range last + 1 {
			if name := api.NetworkID(fmt.Sprint("net", i)); p.store.Snapshot().Networks[name] == nil {
				t.Fatalf("round %d: %s was acknowledged and is lost", round, name)
			}
		}
		p.stop(t)
	}
}

// A log that is broken in the middle is no log to start with.
func TestBrokenLog(t *testing.T) {
	dir := t.TempDir()
	p := start(t, "m0", dir, "")
	if err := p.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		propose(t, []*peer{p}, fmt.Sprint("net", i))
	}
	p.stop(t)
	name := filepath.Join(dir, "log", "log.db")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for at := 2*4096 + 300; at < len(data); at += 512 { // behind the first two pages
		data[at] ^= 0xff
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	restarted, err := tryStart(t, "m0", dir, "")
	if err == nil {
		t.Fatalf("it started at %d with a broken log", restarted.store.Index())
	}
	if !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), dir) {
		t.Errorf("refused with an error that does not help: %v", err)
	}
}

// The log of an earlier version is taken over with all that Raft keeps beside it,
// also when that is interrupted.
func TestLegacyLog(t *testing.T) {
	dir := t.TempDir()
	p := start(t, "m0", dir, "", keys(nil))
	if err := p.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		propose(t, []*peer{p}, fmt.Sprint("net", i))
	}
	leader, last := propose(t, []*peer{p}, "last")
	want, term := state(t, leader), p.Stats().Term
	p.stop(t)
	toLegacy(t, dir)
	if err := os.MkdirAll(filepath.Join(dir, "log.next"), 0o700); err != nil { // what an interrupted attempt left
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "log.next", "log.db"), []byte("half of it"), 0o600); err != nil {
		t.Fatal(err)
	}
	back := start(t, "m0", dir, "")
	waitState(t, back, last, want)
	if got := waitLeader(t, back).Stats().Term; got <= term {
		t.Errorf("it leads in term %d, before it was %d", got, term)
	}
	if _, err := os.Stat(filepath.Join(dir, "wal")); err == nil {
		t.Error("the old log is still there")
	}
}

// toLegacy makes the log in dir one of the version before.
func toLegacy(t *testing.T, dir string) {
	t.Helper()
	old := filepath.Join(dir, "wal")
	if err := os.Mkdir(old, 0o700); err != nil {
		t.Fatal(err)
	}
	meta := &metadb.BoltMetaDB{}
	to, err := wal.Open(old, wal.WithMetaStore(meta))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(consensus.CopyPlain(dir, to), to.Close(), meta.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
}

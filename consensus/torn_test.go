package consensus_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/orch-dev/orch/pkg/api"
)

// crash copies a manager's directory while it writes, as a machine that loses
// its power leaves it: each file as it was at some moment.
func crash(t *testing.T, dir string) string {
	t.Helper()
	image := t.TempDir()
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the log gave up a segment meanwhile
		}
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(image, inside), 0o700)
		}
		data, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(image, inside), data, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// newestSegment is the file that the log ends in.
func newestSegment(t *testing.T, image string) string {
	t.Helper()
	segments, err := filepath.Glob(filepath.Join(image, "*", "*.wal"))
	if more, _ := filepath.Glob(filepath.Join(image, "*.wal")); err == nil {
		segments = append(segments, more...)
	}
	if len(segments) == 0 {
		t.Fatalf("no segment of a log in %s (%v)", image, err)
	}
	return segments[len(segments)-1]
}

// tear writes noise behind the last byte of the log's newest segment: the part
// of a write that reached the disk, of one that nobody was told of.
func tear(t *testing.T, image string, length int) {
	t.Helper()
	newest := newestSegment(t, image)
	data, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	end := len(bytes.TrimRight(data, "\x00"))
	end += 16 - end%16 // a record ends with zeros, and none is that long
	noise := make([]byte, length)
	_, _ = rand.Read(noise)
	if end+length > len(data) {
		t.Fatal("the segment is full")
	}
	copy(data[end:], noise)
	if err := os.WriteFile(newest, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A manager that lost its power while it wrote starts with all that it had
// acknowledged, or says that its log is broken; it never starts with less.
func TestTornLog(t *testing.T) {
	dir := t.TempDir()
	p := start(t, "m0", dir, "")
	if err := p.Bootstrap(); err != nil {
		t.Fatal(err)
	}
	peers := []*peer{p}
	propose(t, peers, "first")
	refused := 0
	for round := range 12 {
		writing := make(chan struct{})
		go func() {
			defer close(writing)
			for i := range 40 {
				if _, err := tryPropose(t.Context(), p, fmt.Sprintf("net-%d-%d", round, i)); err != nil {
					return
				}
			}
		}()
		_, acknowledged := propose(t, peers, fmt.Sprintf("acknowledged-%d", round))
		image := crash(t, dir)
		<-writing
		if round%2 == 1 {
			tear(t, image, 1<<(round%8+3))
		}
		restarted, err := tryStart(t, "m0", image, "", keys(ringOf(dir)))
		if err != nil {
			t.Logf("round %d: refused: %v", round, err)
			refused++
			continue
		}
		if err := restarted.store.Wait(within(t), acknowledged); err != nil {
			t.Fatalf("round %d: started without what it had acknowledged: %v", round, err)
		}
		if restarted.store.Snapshot().Networks[api.NetworkID(fmt.Sprintf("acknowledged-%d", round))] == nil {
			t.Errorf("round %d: an acknowledged entry is lost", round)
		}
		restarted.stop(t)
	}
	t.Logf("%d of 12 refused to start", refused)
	if refused > 6 {
		t.Error("most refuse to start: that is no recovery")
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
	image := crash(t, dir)
	name := newestSegment(t, image)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(bytes.TrimRight(data, "\x00"))/2] ^= 0xff
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	restarted, err := tryStart(t, "m0", image, "", keys(ringOf(dir)))
	if err == nil {
		t.Fatalf("it started at %d with a broken log", restarted.store.Index())
	}
	if got := err.Error(); !strings.Contains(got, "the log in "+image+" is damaged") {
		t.Errorf("refused with an error that does not help: %s", got)
	}
}

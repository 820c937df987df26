package consensus

import (
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// fullDisk is a log that counts who reads it, and takes nothing once it is full.
type fullDisk struct {
	*raft.InmemStore
	full bool
	read int
}

var errFull = errors.New("no space left")

func (d *fullDisk) GetLog(index uint64, log *raft.Log) error {
	d.read++
	return d.InmemStore.GetLog(index, log)
}

func (d *fullDisk) StoreLogs(logs []*raft.Log) error {
	if d.full {
		return errFull
	}
	return d.InmemStore.StoreLogs(logs)
}

// What is in memory is what the disk has: the newest entries, and none that was
// deleted, replaced or not written.
func TestRecentLog(t *testing.T) {
	disk := &fullDisk{InmemStore: raft.NewInmemStore()}
	log := &recentLog{LogStore: disk}
	store := func(index uint64, data string) error {
		return log.StoreLogs([]*raft.Log{{Index: index, Data: []byte(data)}})
	}
	// want looks at one entry, "" for none, and at whether the disk was asked.
	want := func(index uint64, data string, asked bool) {
		t.Helper()
		var got raft.Log
		before := disk.read
		err := log.GetLog(index, &got)
		switch {
		case data == "" && !errors.Is(err, raft.ErrLogNotFound):
			t.Errorf("entry %d is %q (%v), want none", index, got.Data, err)
		case data != "" && (err != nil || string(got.Data) != data || got.Index != index):
			t.Errorf("entry %d is %q (%v), want %q", index, got.Data, err, data)
		}
		if now := disk.read != before; now != asked {
			t.Errorf("entry %d: the disk was asked: %v, want %v", index, now, asked)
		}
	}
	const last = recentEntries + 10
	for i := uint64(1); i <= last; i++ {
		if err := store(i, "first"); err != nil {
			t.Fatal(err)
		}
	}
	want(last, "first", false)
	want(last-recentEntries+1, "first", false)
	want(last-recentEntries, "first", true)
	want(last+1, "", true)

	large := strings.Repeat("x", recentSize+1)
	if err := store(last+1, large); err != nil {
		t.Fatal(err)
	}
	want(last+1, large, true)

	if err := log.DeleteRange(last-1, last+1); err != nil {
		t.Fatal(err)
	}
	want(last, "", true)
	if err := store(last-1, "second"); err != nil {
		t.Fatal(err)
	}
	want(last-1, "second", false)

	disk.full = true
	if err := store(last, "lost"); !errors.Is(err, errFull) {
		t.Errorf("a write to a full disk: %v", err)
	}
	want(last, "", true)
}

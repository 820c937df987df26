package consensus

import (
	"bytes"
	"crypto/rand"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"

	"github.com/orch-dev/orch/pkg/seal"
)

// FuzzLogEntry looks for bytes in the log's file that make a manager panic, or that
// it takes for an entry which it would write as another.
func FuzzLogEntry(f *testing.F) {
	f.Add(encodeEntry(&raft.Log{Index: 7, Term: 3, Type: raft.LogCommand, Data: []byte(`{"v":1}`)}))
	f.Add(encodeEntry(&raft.Log{Index: 7, Term: 1 << 40, Type: raft.LogConfiguration, Extensions: []byte("more")}))
	f.Add(encodeEntry(&raft.Log{}))
	f.Add(bytes.Repeat([]byte{0xff}, entryHead))
	f.Add(bytes.Repeat([]byte{0xff}, entryHead-1))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, value []byte) {
		entry := raft.Log{Index: 1, Data: []byte("of the one before")}
		kept := bytes.Clone(value)
		if err := decodeEntry(7, value, &entry); err != nil {
			return
		}
		clear(value) // the file may move
		if again := encodeEntry(&entry); entry.Index != 7 || !bytes.Equal(again, kept) {
			t.Fatalf("%x is entry %d, %x", kept, entry.Index, again)
		}
		var again raft.Log
		if err := decodeEntry(7, kept, &again); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(entry, again); diff != "" {
			t.Fatalf("read twice, the entry is another:\n%s", diff)
		}
	})
}

// FuzzSnapshot looks for files of snapshots that make a manager panic, and for
// changes of one that go unnoticed, or that say it is smaller than nothing. What was
// never sealed is read as it is.
func FuzzSnapshot(f *testing.F) {
	ring := seal.NewRing(rand.Reader)
	sealed := func(plain []byte) []byte {
		var file bytes.Buffer
		w := ring.Writer(&file)
		if _, err := w.Write(plain); err != nil {
			f.Fatal(err)
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		return file.Bytes()
	}
	f.Add([]byte(`{"format":"orch-store","version":1}`), uint32(0), byte(0), uint32(0))
	f.Add([]byte("state"), uint32(3), byte(0), uint32(1))
	f.Add(bytes.Repeat([]byte("state"), 1000), uint32(100), byte(1), uint32(0))
	f.Add([]byte{}, uint32(0), byte(0), uint32(20))
	f.Add([]byte("\x00orch1 and what is no more than that"), uint32(0), byte(2), uint32(0))
	store := &sealedSnapshots{ring: ring}
	f.Fuzz(func(t *testing.T, plain []byte, at uint32, flip byte, cut uint32) {
		whole := sealed(plain)
		file := bytes.Clone(whole)
		file[int(at)%len(file)] ^= flip
		file = file[:len(file)-int(cut)%(len(file)+1)]
		meta := &raft.SnapshotMeta{Size: int64(len(file))}
		got, err := readSnapshot(store, meta, file)
		switch {
		case meta.Size < 0:
			t.Fatalf("%x is of %d bytes", file, meta.Size)
		case !seal.Sealed(file):
			if err != nil || !bytes.Equal(got, file) || meta.Size != int64(len(file)) {
				t.Fatalf("%x is read as %x, of %d bytes: %v", file, got, meta.Size, err)
			}
		case !bytes.Equal(file, whole):
			if err == nil {
				t.Fatalf("%x is read as %x, and was %x", file, got, whole)
			}
		case err != nil || !bytes.Equal(got, plain) || meta.Size != int64(len(plain)):
			t.Fatalf("%x was sealed, %x came back, of %d bytes: %v", plain, got, meta.Size, err)
		}
		_, _ = readSnapshot(store, &raft.SnapshotMeta{Size: int64(len(plain))}, plain)
	})
}

func readSnapshot(store *sealedSnapshots, meta *raft.SnapshotMeta, file []byte) ([]byte, error) {
	r, err := store.open(meta, bytes.NewReader(file))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

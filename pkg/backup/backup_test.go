package backup_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/backup"
	"github.com/orch-dev/orch/pkg/seal"
)

var header = backup.Header{Cluster: "c1", Index: 42, Made: time.Unix(1_700_000_000, 0).UTC(), Orch: "1.2"}

func write(t testing.TB, key seal.UnlockKey, state string) []byte {
	t.Helper()
	var out bytes.Buffer
	err := backup.Write(&out, header, key, rand.Reader, func(w io.Writer) error {
		_, err := io.WriteString(w, state)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func read(file []byte, key seal.UnlockKey) (h backup.Header, state string, err error) {
	h, err = backup.Read(bytes.NewReader(file), key, rand.Reader, func(r io.Reader) error {
		data, err := io.ReadAll(r)
		state = string(data)
		return err
	})
	return h, state, err
}

func TestBackup(t *testing.T) {
	key := seal.NewUnlockKey(rand.Reader)
	for _, size := range []int{0, 100, 64 << 10, 300_000} {
		state := strings.Repeat("s3cret", size/6+1)[:size]
		file := write(t, key, state)
		if bytes.Contains(file, []byte("s3cret")) {
			t.Error("a secret can be read in the file")
		}
		h, got, err := read(file, key)
		if err != nil || got != state {
			t.Fatalf("%d bytes: %d came back: %v", size, len(got), err)
		}
		checked, err := backup.Check(bytes.NewReader(file))
		if err != nil || checked != h || h.Cluster != "c1" || h.Index != 42 || !h.Made.Equal(header.Made) {
			t.Errorf("it says of itself %+v and %+v (%v)", checked, h, err)
		}
	}
}

// What is damaged anywhere, or ends anywhere too early, is refused, with the key and
// without.
func TestDamaged(t *testing.T) {
	key := seal.NewUnlockKey(rand.Reader)
	file := write(t, key, strings.Repeat("state", 30_000))
	for at := 0; at < len(file); at += 1 + at/7 {
		broken := bytes.Clone(file)
		broken[at] ^= 1
		for what, data := range map[string][]byte{"changed": broken, "cut off": file[:at]} {
			if _, err := backup.Check(bytes.NewReader(data)); err == nil {
				t.Errorf("%s at byte %d, and nobody noticed", what, at)
			}
			if _, _, err := read(data, key); err == nil {
				t.Errorf("%s at byte %d, and nobody noticed with the key", what, at)
			}
		}
	}
	longer := append(bytes.Clone(file), 'x')
	if _, err := backup.Check(bytes.NewReader(longer)); err == nil {
		t.Error("there is more behind it, and nobody noticed")
	}
}

func TestRefused(t *testing.T) {
	key := seal.NewUnlockKey(rand.Reader)
	file := write(t, key, "state")
	later := bytes.Replace(file, []byte(`"version":1`), []byte(`"version":7`), 1)
	for what, c := range map[string]struct {
		file []byte
		key  seal.UnlockKey
		want string
	}{
		"another key":    {file, seal.NewUnlockKey(rand.Reader), "not the key"},
		"no backup":      {[]byte("PK\x03\x04 something else"), key, "not a backup"},
		"nothing":        {nil, key, "not a backup"},
		"a later format": {later, key, "format version 7, this orch knows version 1"},
	} {
		if _, _, err := read(c.file, c.key); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	failed := errors.New("the state cannot be used")
	if _, err := backup.Read(bytes.NewReader(file), key, rand.Reader, func(io.Reader) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("a state that was refused: %v", err)
	}
}

// Nobody can put what is known of one backup before the state of another.
func TestHeaderIsSealedToo(t *testing.T) {
	key := seal.NewUnlockKey(rand.Reader)
	file := write(t, key, "state")
	file = bytes.Replace(file[:len(file)-sha256.Size], []byte(`"index":42`), []byte(`"index":43`), 1)
	sum := sha256.Sum256(file)
	file = append(file, sum[:]...)
	if _, err := backup.Check(bytes.NewReader(file)); err != nil {
		t.Fatalf("the forgery is not one: %v", err)
	}
	if _, _, err := read(file, key); err == nil || !strings.Contains(err.Error(), "another one") {
		t.Errorf("read: %v", err)
	}
}

// FuzzRead looks for files that make who reads them panic, and for those that are
// taken for a backup though nobody with the key has made them.
func FuzzRead(f *testing.F) {
	key := make(seal.UnlockKey, 32)
	file := write(f, key, "state")
	f.Add(file)
	f.Add(file[:len(file)-1])
	f.Add([]byte(`{"format":"orch-backup","version":1}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		checked, checkErr := backup.Check(bytes.NewReader(data))
		h, state, err := read(data, key)
		switch {
		case err == nil && (state != "state" || h.Index != header.Index || !h.Made.Equal(header.Made)):
			t.Errorf("%q was made by nobody, and is taken for %+v with %q", data, h, state)
		case err == nil && (checkErr != nil || checked != h):
			t.Errorf("without the key %q is %+v: %v", data, checked, checkErr)
		}
	})
}

package seal_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"strings"
	"testing"

	"github.com/orch-dev/orch/pkg/seal"
)

var secret = []byte("correct horse battery staple")

func TestRecord(t *testing.T) {
	ring := seal.NewRing(rand.Reader)
	box := ring.NewBox()
	sealed := box.Seal(secret, []byte("7"))
	if !seal.Sealed(sealed) || bytes.Contains(sealed, secret) {
		t.Fatalf("not sealed: %q", sealed)
	}
	if bytes.Equal(sealed, box.Seal(secret, []byte("7"))) {
		t.Error("two records of the same are alike")
	}
	for name, b := range map[string]*seal.Box{"same": box, "later": ring.NewBox(), "rotated": ring.WithNewKey().NewBox()} {
		if got, err := b.Open(sealed, []byte("7")); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%s box: %q, %v", name, got, err)
		}
	}
	if _, err := box.Open(sealed, []byte("8")); err == nil {
		t.Error("a record was taken for another")
	}
	if _, err := seal.NewRing(rand.Reader).NewBox().Open(sealed, []byte("7")); !errors.Is(err, seal.ErrKey) {
		t.Errorf("another ring: %v", err)
	}
	if _, err := ring.WithNewKey().WithoutOldKeys().NewBox().Open(sealed, []byte("7")); !errors.Is(err, seal.ErrKey) {
		t.Errorf("a ring that has lost the key: %v", err)
	}
	for i := range sealed {
		broken := bytes.Clone(sealed)
		broken[i] ^= 1
		if _, err := box.Open(broken, []byte("7")); err == nil {
			t.Fatalf("byte %d was changed, and nobody noticed", i)
		}
		if _, err := box.Open(sealed[:i], []byte("7")); err == nil {
			t.Fatalf("cut off at byte %d, and nobody noticed", i)
		}
	}
}

func TestCurrent(t *testing.T) {
	ring := seal.NewRing(rand.Reader)
	sealed := ring.NewBox().Seal(secret, nil)
	for what, c := range map[string]struct {
		ring *seal.Ring
		data []byte
		want bool
	}{
		"own":     {ring, sealed, true},
		"rotated": {ring.WithNewKey(), sealed, false},
		"plain":   {ring, secret, false},
		"nothing": {ring, nil, false},
	} {
		if got := c.ring.Current(c.data); got != c.want {
			t.Errorf("%s: %v", what, got)
		}
	}
}

func TestStream(t *testing.T) {
	ring := seal.NewRing(rand.Reader)
	const chunk = 64 << 10
	for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk, 3*chunk + 17} {
		plain := bytes.Repeat([]byte("state"), size/5+1)[:size]
		sealed := sealStream(t, ring, plain)
		if got := seal.PlainSize(int64(len(sealed))); got != int64(size) {
			t.Errorf("%d bytes: size %d", size, got)
		}
		got, err := io.ReadAll(ring.Reader(bytes.NewReader(sealed)))
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes: %d came back: %v", size, len(got), err)
		}
		for _, cut := range []int{0, 1, 30, len(sealed) / 2, len(sealed) - 1} {
			if _, err := io.ReadAll(ring.Reader(bytes.NewReader(sealed[:cut]))); err == nil && cut < len(sealed) {
				t.Errorf("%d bytes cut off at %d, and nobody noticed", size, cut)
			}
		}
	}
}

// A stream that ends at the end of a chunk is not taken for whole either.
func TestStreamCutAtChunk(t *testing.T) {
	const head, chunk = 26, 64<<10 + 16
	ring := seal.NewRing(rand.Reader)
	sealed := sealStream(t, ring, make([]byte, 200<<10))
	for cut := head; cut < len(sealed); cut += chunk {
		if _, err := io.ReadAll(ring.Reader(bytes.NewReader(sealed[:cut]))); err == nil {
			t.Errorf("cut off at byte %d, and nobody noticed", cut)
		}
	}
}

func sealStream(t *testing.T, ring *seal.Ring, plain []byte) []byte {
	t.Helper()
	var sealed bytes.Buffer
	w := ring.Writer(&sealed)
	for p := plain; len(p) > 0; { // in pieces of odd sizes
		n := min(len(p), 7777)
		if _, err := w.Write(p[:n]); err != nil {
			t.Fatal(err)
		}
		p = p[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return sealed.Bytes()
}

func TestLock(t *testing.T) {
	ring := seal.NewRing(rand.Reader).WithNewKey()
	sealed := ring.NewBox().Seal(secret, nil)
	unlock := seal.NewUnlockKey(rand.Reader)

	open, err := ring.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	locked, err := ring.Encode(unlock)
	if err != nil {
		t.Fatal(err)
	}
	typed, err := seal.ParseUnlockKey("  " + strings.ToUpper(unlock.Text()) + "\n")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data []byte
		key  seal.UnlockKey
		want error
	}{
		"open":         {open, nil, nil},
		"right key":    {locked, typed, nil},
		"no key":       {locked, nil, seal.ErrLocked},
		"another key":  {locked, seal.NewUnlockKey(rand.Reader), seal.ErrWrongKey},
		"needs no key": {open, seal.NewUnlockKey(rand.Reader), nil},
	} {
		got, err := seal.DecodeRing(c.data, c.key, rand.Reader)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		if plain, err := got.NewBox().Open(sealed, nil); err != nil || !bytes.Equal(plain, secret) {
			t.Errorf("%s: %q, %v", name, plain, err)
		}
	}
	for _, text := range []string{"", "orchkey1-", "orchkey1-abc", "SWMKEY-1-abc", unlock.Text() + "a"} {
		if _, err := seal.ParseUnlockKey(text); err == nil {
			t.Errorf("%q was taken for an unlock key", text)
		}
	}
}

func FuzzDecodeRing(f *testing.F) {
	ring, _ := seal.NewRing(rand.Reader).Encode(nil)
	f.Add(ring)
	f.Add([]byte(`{"version":1,"locked":"AG9yY2gx"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		ring, err := seal.DecodeRing(data, make(seal.UnlockKey, 32), rand.Reader)
		if err == nil && ring.NewBox() == nil {
			t.Error("no box")
		}
	})
}

// FuzzOpen looks for bytes that make who opens them panic, or that are taken for
// something sealed though nobody with the key has sealed it.
func FuzzOpen(f *testing.F) {
	ring := seal.NewRing(mathrand.NewChaCha8([32]byte{})) // the same in each of the fuzzer's processes
	box := ring.NewBox()
	record := box.Seal(secret, nil)
	var stream bytes.Buffer
	w := ring.Writer(&stream)
	if _, err := w.Write(secret); err != nil {
		f.Fatal(err)
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(record)
	f.Add(stream.Bytes())
	f.Add([]byte("\x00orch1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := box.Open(data, []byte("no record has this context")); err == nil {
			t.Errorf("%x is taken for a record with %q", data, got)
		}
		if got, err := io.ReadAll(ring.Reader(bytes.NewReader(data))); err == nil && !bytes.Equal(got, secret) {
			t.Errorf("%x is taken for a stream of %q", data, got)
		}
	})
}

// FuzzUnlockKey reads what users type.
func FuzzUnlockKey(f *testing.F) {
	f.Add(seal.NewUnlockKey(rand.Reader).Text())
	f.Add(" " + strings.ToUpper(make(seal.UnlockKey, 32).Text()) + "\r\n")
	f.Add("orchkey1-" + strings.Repeat("7", 52))
	f.Add("orchkey1-" + strings.Repeat("\n", 52))
	f.Fuzz(func(t *testing.T, text string) {
		key, err := seal.ParseUnlockKey(text)
		if err != nil {
			if len(text) > 10 && strings.Contains(err.Error(), text) {
				t.Errorf("the error shows what may be a key: %v", err)
			}
			return
		}
		if again, err := seal.ParseUnlockKey(key.Text()); err != nil || !again.Equal(key) {
			t.Errorf("%q becomes %q: %v", text, key.Text(), err)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	box := seal.NewRing(rand.Reader).NewBox()
	for _, size := range []int{300, 4 << 10, 1 << 20} {
		plain := make([]byte, size)
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for b.Loop() {
				box.Seal(plain, nil)
			}
		})
	}
}

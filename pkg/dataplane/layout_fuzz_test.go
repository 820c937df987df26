package dataplane

import (
	"bytes"
	"testing"

	"github.com/cilium/ebpf/btf"
)

// FuzzLayout looks for layouts of another version's maps that make a node panic, or
// that it converts to what they did not say: a number of both layouts keeps its value,
// one of the new alone is zero, and there and back it is the same where nothing was
// lost.
func FuzzLayout(f *testing.F) {
	f.Add([]byte{0, 1, 2}, []byte{2, 1, 0}, []byte{1, 2, 3, 4, 5, 6, 7, 8}, true)
	f.Add([]byte{8, 17, 3}, []byte{16, 3, 9, 40}, []byte{1, 0, 0, 0, 0, 0, 0, 0}, false)
	f.Add([]byte{60, 61, 62, 63}, []byte{60, 5}, []byte{0xff}, false)
	f.Add([]byte{120}, []byte{255, 254}, []byte{}, true)
	f.Fuzz(func(t *testing.T, old, next, content []byte, isKey bool) {
		from, to := anyRecord(old, 0), anyRecord(next, 0)
		there, err := newConversion(to, from, isKey)
		if err != nil {
			return
		}
		value := make([]byte, from.Size)
		copy(value, content)
		got, ok := there.apply(value)
		if !ok {
			return
		}
		was, is := readNumbers(t, from, value), readNumbers(t, to, got)
		for path, n := range is {
			if n != was[path] {
				t.Fatalf("%s was %d and is %d", path, was[path], n)
			}
		}
		back, err := newConversion(from, to, false)
		if err != nil {
			t.Fatalf("there is no way back: %v", err)
		}
		if again, ok := back.apply(got); ok && len(there.lost) == 0 && !bytes.Equal(again, value) {
			t.Fatalf("%x becomes %x, and that %x", value, got, again)
		}
	})
}

// anyRecord makes a structure of bytes: each is a member, of which no two have one
// name.
func anyRecord(data []byte, deep int) *btf.Struct {
	var members []btf.Member
	seen := map[string]bool{}
	for i, b := range data[:min(len(data), 12)] {
		m := btf.Member{Name: []string{"a", "b", "c", "pad", "d", "e"}[b%6]}
		switch kind := b / 6 % 6; {
		case kind < 3:
			m.Type = []btf.Type{u8, u16, u32}[kind]
		case kind == 3:
			m.Type = &btf.Int{Name: "u64", Size: 8}
		case kind == 4:
			m.Type = &btf.Array{Type: u16, Index: u32, Nelems: uint32(b) % 4}
		case deep < 2:
			m.Type = anyRecord(data[i+1:], deep+1)
		default:
			m.Type = &btf.Pointer{Target: u8}
		}
		if seen[m.Name] {
			continue
		}
		seen[m.Name] = true
		members = append(members, m)
	}
	return record(members...)
}

// readNumbers are the numbers in a value, by their paths.
func readNumbers(t *testing.T, layout btf.Type, value []byte) map[string]uint64 {
	t.Helper()
	list, err := numbersIn(layout)
	if err != nil {
		t.Fatal(err)
	}
	numbers := make(map[string]uint64)
	for _, n := range list {
		for i, b := range value[n.offset : n.offset+n.size] {
			numbers[n.path] |= uint64(b) << (8 * i)
		}
	}
	return numbers
}

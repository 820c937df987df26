package dataplane

import (
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/google/go-cmp/cmp"
)

var (
	u8  = &btf.Int{Name: "u8", Size: 1}
	u16 = &btf.Int{Name: "u16", Size: 2}
	u32 = &btf.Int{Name: "u32", Size: 4}
)

// record is a structure of members that follow each other without a gap.
func record(members ...btf.Member) *btf.Struct {
	s := &btf.Struct{Name: "record"}
	for _, m := range members {
		size, err := btf.Sizeof(m.Type)
		if err != nil {
			panic(err)
		}
		m.Offset = btf.Bits(8 * s.Size)
		s.Members = append(s.Members, m)
		s.Size += uint32(size)
	}
	return s
}

func TestConversion(t *testing.T) {
	pair := record(btf.Member{Name: "a", Type: u8}, btf.Member{Name: "b", Type: u16})
	words := func(n uint32) btf.Type { return &btf.Array{Type: u16, Index: u32, Nelems: n} }
	tests := []struct {
		name     string
		from, to btf.Type
		isKey    bool
		in, out  []byte // out nil: it is not converted
	}{
		{"the same", pair, pair, true, []byte{1, 2, 3}, []byte{1, 2, 3}},
		{"a number alone", u16, u16, true, []byte{1, 2}, []byte{1, 2}},
		{"another order", pair, record(btf.Member{Name: "b", Type: u16}, btf.Member{Name: "a", Type: u8}), true, []byte{1, 2, 3}, []byte{2, 3, 1}},
		{"one more", pair, record(btf.Member{Name: "c", Type: u8}, btf.Member{Name: "a", Type: u8}, btf.Member{Name: "b", Type: u16}), false, []byte{1, 2, 3}, []byte{0, 1, 2, 3}},
		{"one less", pair, record(btf.Member{Name: "b", Type: u16}), false, []byte{1, 2, 3}, []byte{2, 3}},
		{"a key of one less", pair, record(btf.Member{Name: "b", Type: u16}), true, []byte{1, 2, 3}, nil},
		{"a key of one less, which was zero", pair, record(btf.Member{Name: "b", Type: u16}), true, []byte{0, 2, 3}, []byte{2, 3}},
		{"wider", u8, u32, true, []byte{7}, []byte{7, 0, 0, 0}},
		{"narrower", u32, u8, true, []byte{7, 0, 0, 0}, []byte{7}},
		{"narrower than it is", u32, u8, true, []byte{7, 1, 0, 0}, nil},
		{"inside", record(btf.Member{Name: "x", Type: u8}, btf.Member{Name: "p", Type: pair}), record(btf.Member{Name: "p", Type: pair}), false, []byte{9, 1, 2, 3}, []byte{1, 2, 3}},
		{"a longer array", record(btf.Member{Name: "w", Type: words(1)}), record(btf.Member{Name: "w", Type: words(2)}), false, []byte{1, 2}, []byte{1, 2, 0, 0}},
		{"a key's padding", pair, record(btf.Member{Name: "a", Type: u8}, btf.Member{Name: "b", Type: u16}, btf.Member{Name: "pad", Type: u8}), true, []byte{1, 2, 3}, []byte{1, 2, 3, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := newConversion(tt.to, tt.from, tt.isKey)
			if err != nil {
				t.Fatal(err)
			}
			got, ok := c.apply(tt.in)
			if diff := cmp.Diff(tt.out, got); diff != "" || ok != (tt.out != nil) {
				t.Errorf("%v (-want +got):\n%s", ok, diff)
			}
		})
	}
	if _, err := newConversion(record(btf.Member{Name: "a", Type: u8}, btf.Member{Name: "c", Type: u8}), pair, true); err == nil {
		t.Error("a key was made up")
	}
	if _, err := newConversion(&btf.Pointer{Target: u8}, u32, false); err == nil {
		t.Error("a pointer was converted")
	}
}

package dataplane

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// number is a number in a key or a value, by the names that lead to it.
type number struct {
	path   string // ".s.client", ".w[2]"; "" of a type that is one number
	offset uint32 // bytes
	size   uint32
}

// numbersIn takes a type apart. Types with bit fields or pointers have none of ours.
func numbersIn(t btf.Type) ([]number, error) { return appendNumbers(nil, t, "", 0) }

func appendNumbers(list []number, t btf.Type, path string, offset uint32) ([]number, error) {
	var err error
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Struct:
		for _, m := range t.Members {
			if m.BitfieldSize > 0 {
				return nil, fmt.Errorf("%s.%s is a bit field", path, m.Name)
			}
			if list, err = appendNumbers(list, m.Type, path+"."+m.Name, offset+m.Offset.Bytes()); err != nil {
				return nil, err
			}
		}
		return list, nil
	case *btf.Array:
		size, err := btf.Sizeof(t.Type)
		if err != nil {
			return nil, err
		}
		for i := range t.Nelems {
			if list, err = appendNumbers(list, t.Type, fmt.Sprintf("%s[%d]", path, i), offset+i*uint32(size)); err != nil {
				return nil, err
			}
		}
		return list, nil
	case *btf.Int:
		return append(list, number{path, offset, t.Size}), nil
	case *btf.Enum:
		return append(list, number{path, offset, t.Size}), nil
	default:
		return nil, fmt.Errorf("%s is a %T", path, t)
	}
}

// conversion rewrites a key or a value from one layout to another, number by
// number, as their names say.
type conversion struct {
	size  int // of the result, in bytes
	moves []move
	// lost are numbers that the other layout has no place for. In a key they must
	// be zero, as two keys could become one.
	lost  []number
	isKey bool
	// added and dropped are the names that only one of the layouts has.
	added, dropped []string
}

type move struct{ to, from number }

// newConversion compares two layouts. A key with a number more cannot be made
// from one without, unless that is padding.
func newConversion(to, from btf.Type, isKey bool) (*conversion, error) {
	size, err := btf.Sizeof(to)
	if err != nil {
		return nil, err
	}
	toNumbers, err := numbersIn(to)
	if err != nil {
		return nil, err
	}
	fromNumbers, err := numbersIn(from)
	if err != nil {
		return nil, err
	}
	c := &conversion{size: size, isKey: isKey}
	named := func(list []number, path string) int {
		return slices.IndexFunc(list, func(l number) bool { return l.path == path })
	}
	for _, l := range toNumbers {
		if i := named(fromNumbers, l.path); i >= 0 {
			c.moves = append(c.moves, move{l, fromNumbers[i]})
			continue
		}
		if isKey && !isPadding(l) {
			return nil, fmt.Errorf("its key did not have %s", l.path)
		}
		c.added = append(c.added, l.path)
	}
	for _, l := range fromNumbers {
		if named(toNumbers, l.path) < 0 {
			c.lost = append(c.lost, l)
			c.dropped = append(c.dropped, l.path)
		}
	}
	return c, nil
}

func isPadding(l number) bool { return strings.Contains(l.path, ".pad") }

// apply converts; false if something would be lost that must not be. What is new
// is zero.
func (c *conversion) apply(from []byte) ([]byte, bool) {
	to := make([]byte, c.size)
	for _, m := range c.moves {
		bytes := from[m.from.offset : m.from.offset+m.from.size]
		// Numbers are little endian on all machines that the programs are built for.
		n := copy(to[m.to.offset:m.to.offset+m.to.size], bytes)
		if !allZero(bytes[n:]) {
			return nil, false
		}
	}
	for _, l := range c.lost {
		if c.isKey && !allZero(from[l.offset:l.offset+l.size]) {
			return nil, false
		}
	}
	return to, true
}

func allZero(b []byte) bool { return !slices.ContainsFunc(b, func(x byte) bool { return x != 0 }) }

// typeIn is the type of a name in the type information that the kernel keeps of a
// map; an error where it keeps none.
func typeIn(m *ebpf.Map, like btf.Type) (btf.Type, error) {
	if like == nil {
		return nil, fmt.Errorf("its layout is not known")
	}
	info, err := m.Info()
	if err != nil {
		return nil, err
	}
	id, ok := info.BTFID()
	if !ok {
		return nil, fmt.Errorf("the kernel keeps no type information of it")
	}
	handle, err := btf.NewHandleFromID(id)
	if err != nil {
		return nil, fmt.Errorf("read its type information: %w", err)
	}
	defer handle.Close()
	spec, err := handle.Spec(nil)
	if err != nil {
		return nil, fmt.Errorf("read its type information: %w", err)
	}
	t, err := spec.AnyTypeByName(like.TypeName())
	if err != nil {
		return nil, fmt.Errorf("it had no %s: %w", like.TypeName(), err)
	}
	return t, nil
}

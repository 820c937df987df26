package dataplane

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/bpf"
)

// A map's pin is named after its layout, so that a version with another layout, or
// another size, makes a map beside the one that the attached programs still use.
// Its entries are then carried over: once before the programs are switched, and
// what has changed in between once more after that; then the old one goes. An old
// one that is there at the start is from a move that was cut short, in either
// direction, and is carried likewise.

// observed are the maps that the programs alone write, and how what is in both
// becomes one. All others hold the plan, and nothing in them changes meanwhile.
var observed = map[string]func(*migration) error{
	"flows": (*migration).follow, "flows6": (*migration).follow,
	"sessions": (*migration).follow, "sessions6": (*migration).follow,
	"brief_flows": (*migration).follow, "brief_flows6": (*migration).follow,
	"brief_sessions": (*migration).follow, "brief_sessions6": (*migration).follow,
	"fragments": (*migration).follow, "fragments6": (*migration).follow,
	"frontend_stats": (*migration).addUp, "backend_stats": (*migration).addUp, "verdicts": (*migration).addUp,
	"handshakes": (*migration).addUp, "examples": (*migration).addUp,
	"departed":    (*migration).follow,
	"packet_room": nil, "hops": nil, // room to work in, and what the routing table says
}

// Carried says what became of the entries of a map whose layout or size changed.
type Carried struct {
	Map     string
	Entries int // that are in the new map
	// Left could not be converted, or had no room.
	Left int
	// Why nothing at all was carried; "" if it was.
	Why string
	// Added and Dropped are the numbers of a value that only the new or only the old
	// layout has. New ones are zero.
	Added, Dropped []string
}

// migration is the move from one map to another.
type migration struct {
	Carried
	from, to   *ebpf.Map
	key, value *conversion
	// seenAt is where in the new value it stands when the entry was last used, -1
	// where it does not.
	seenAt int
	// first has the keys and values, as they were put, of the pass before the switch.
	first map[string][]byte
}

// predecessors opens the maps that are pinned under the name of one of the spec's
// with another layout. One that cannot be converted says why.
func predecessors(pinDir string, spec *ebpf.CollectionSpec, maps map[string]*ebpf.Map) (list []*migration, err error) {
	pins, err := names(filepath.Join(pinDir, mapsDir))
	if err != nil {
		return nil, err
	}
	for _, pin := range pins {
		name := pin[:max(0, strings.LastIndexByte(pin, '_'))]
		m := spec.Maps[name]
		carry, isObserved := observed[name]
		if m == nil || pin == filepath.Base(pinPath(pinDir, m)) || isObserved && carry == nil {
			continue
		}
		from, err := ebpf.LoadPinnedMap(filepath.Join(pinDir, mapsDir, pin), nil)
		if err != nil {
			closeMigrations(list)
			return nil, fmt.Errorf("open the map %s of another version: %w", pin, err)
		}
		move := &migration{Carried: Carried{Map: name}, from: from, to: maps[name], seenAt: -1}
		if err := move.understand(m); err != nil {
			move.Why = err.Error()
		}
		list = append(list, move)
	}
	return list, nil
}

func closeMigrations(list []*migration) {
	for _, m := range list {
		m.from.Close()
	}
}

// understand compares the two layouts.
func (m *migration) understand(spec *ebpf.MapSpec) error {
	if spec.Type == ebpf.ArrayOfMaps {
		return nil // the kernel compares the maps in it
	}
	key, err := typeIn(m.from, spec.Key)
	if err != nil {
		return err
	}
	if m.key, err = newConversion(spec.Key, key, true); err != nil {
		return err
	}
	value, err := typeIn(m.from, spec.Value)
	if err != nil {
		return err
	}
	if m.value, err = newConversion(spec.Value, value, false); err != nil {
		return err
	}
	m.Added, m.Dropped = m.value.added, m.value.dropped
	for _, move := range m.value.moves {
		if strings.HasSuffix(move.to.path, ".seen") {
			m.seenAt = int(move.to.offset)
		}
	}
	return nil
}

// carry makes the pass before the switch. It reports whether all of the plan is in
// the new maps, so that the programs can be switched before the next plan comes.
func (d *Dataplane) carry(made []string) (bool, error) {
	whole := make(map[string]bool)
	for _, m := range d.migrations {
		_, isObserved := observed[m.Map]
		if m.Why != "" || isObserved && m.from.Type() == ebpf.PerCPUArray {
			continue
		}
		var err error
		switch {
		case isObserved:
			err = m.follow()
		case m.to.Type() == ebpf.ArrayOfMaps:
			err = d.carryTables(m)
		default:
			err = m.fill()
		}
		if err != nil {
			return false, fmt.Errorf("carry over map %s: %w", m.Map, err)
		}
		// What only the new layout has of the plan is in the next plan.
		whole[m.Map] = m.Left == 0 && len(m.Added) == 0
	}
	for _, name := range made {
		if _, isObserved := observed[name]; !isObserved && !whole[name] {
			return false, nil
		}
	}
	return true, nil
}

// carryRest makes the pass after the switch: what the old programs have written
// since the first one. While it lasts replies whose session may not have been
// carried yet are held up.
func (d *Dataplane) carryRest() error {
	for _, m := range d.migrations {
		if again := observed[m.Map]; again != nil && m.Why == "" {
			if err := again(m); err != nil {
				return fmt.Errorf("carry over the rest of map %s: %w", m.Map, err)
			}
		}
		m.first = nil
	}
	closeMigrations(d.migrations)
	d.carried = nil
	for _, m := range d.migrations {
		d.carried = append(d.carried, m.Carried)
	}
	d.migrations = nil
	return nil
}

// hold has the programs hold up what may be a reply of a session that has not been
// carried yet. It ends by itself, should this process end.
func (d *Dataplane) hold(on bool) error {
	if len(d.migrations) == 0 && on {
		return nil
	}
	var node bpf.OrchNodeConfig
	if err := d.maps["node_config"].Lookup(uint32(0), &node); err != nil {
		return fmt.Errorf("read node_config: %w", err)
	}
	if !on && node.MovedAt == 0 {
		return nil
	}
	node.MovedAt = 0
	if on {
		now, err := nowTicks()
		if err != nil {
			return err
		}
		node.MovedAt = max(1, now)
	}
	if err := d.maps["node_config"].Put(uint32(0), node); err != nil {
		return fmt.Errorf("update node_config: %w", err)
	}
	return nil
}

// Carried tells what became of the maps of another version or size that were there
// at Open.
func (d *Dataplane) Carried() []Carried {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := slices.Clone(d.carried)
	for _, m := range d.migrations { // the programs wait for the first plan
		list = append(list, m.Carried)
	}
	return list
}

// fill puts the entries of the plan into the new map, where they are not there.
func (m *migration) fill() error {
	isArray := m.to.Type() == ebpf.Array
	return m.each(func(key, value []byte) error {
		if isArray {
			if allZero(value) {
				return nil
			}
			if binary.NativeEndian.Uint32(key) >= m.to.MaxEntries() {
				m.Left++
				return nil
			}
			if now, err := m.to.LookupBytes(key); err != nil || !allZero(now) {
				return err
			}
			m.Entries++
			return m.to.Put(key, value)
		}
		err := m.to.Update(key, value, ebpf.UpdateNoExist)
		return m.counted(err)
	})
}

// counted counts an entry that was put, or left for want of room.
func (m *migration) counted(err error) error {
	switch {
	case errors.Is(err, ebpf.ErrKeyExist):
		return nil
	case errors.Is(err, unix.E2BIG):
		m.Left++
		return nil
	case err == nil:
		m.Entries++
	}
	return err
}

// follow puts what the programs have written into the new map. Of an entry that is
// in both, the one that was used last counts. What has gone from the old map since
// the first pass goes from the new one too, unless it was used there.
func (m *migration) follow() error {
	isFirst := m.first == nil
	if isFirst {
		m.first = make(map[string][]byte)
	}
	m.Left = 0 // those of the first pass are tried again
	still := make(map[string]bool)
	err := m.each(func(key, value []byte) error {
		still[string(key)] = true
		if bytes.Equal(m.first[string(key)], value) {
			return nil // it has not changed since
		}
		if now, err := m.to.LookupBytes(key); err == nil && now != nil && !m.newer(value, now) {
			return nil
		}
		_, known := m.first[string(key)]
		err := m.to.Put(key, value)
		if known && err == nil {
			return nil // it is counted
		}
		if err == nil && isFirst {
			m.first[string(key)] = bytes.Clone(value)
		}
		return m.counted(err)
	})
	if err != nil {
		return err
	}
	for key, put := range m.first {
		if still[key] {
			continue
		}
		if now, err := m.to.LookupBytes([]byte(key)); err != nil || !bytes.Equal(now, put) {
			continue
		}
		if err := deleteKeys(m.to, [][]byte{[]byte(key)}); err != nil {
			return err
		}
		m.Entries--
	}
	return nil
}

// newer compares two values of one key by when they were used last.
func (m *migration) newer(a, b []byte) bool {
	if m.seenAt < 0 {
		return false
	}
	seen := func(value []byte) uint32 { return binary.NativeEndian.Uint32(value[m.seenAt:]) }
	return int32(seen(a)-seen(b)) > 0
}

// addUp adds the old counters to the new ones, CPU by CPU; of the last drops it
// takes those of which there is no later one.
func (m *migration) addUp() error {
	for i := range min(m.from.MaxEntries(), m.to.MaxEntries()) {
		var old, now [][]byte // by CPU
		if err := m.from.Lookup(i, &old); err != nil {
			return err
		}
		if !slices.ContainsFunc(old, func(value []byte) bool { return !allZero(value) }) {
			continue
		}
		if err := m.to.Lookup(i, &now); err != nil {
			return err
		}
		for cpu := range old {
			value, _ := m.value.apply(old[cpu]) // of a value anything may be lost
			if value != nil {
				add(now[cpu], value, m.Map == "examples")
			}
		}
		if err := m.to.Put(i, now); err != nil {
			return err
		}
		m.Entries++
	}
	return nil
}

// add adds counters of 64 bits; whole ones take the place of what is zero.
func add(to, more []byte, whole bool) {
	if whole {
		if allZero(to) {
			copy(to, more)
		}
		return
	}
	for i := 0; i+8 <= len(more); i += 8 {
		sum := binary.NativeEndian.Uint64(to[i:]) + binary.NativeEndian.Uint64(more[i:])
		binary.NativeEndian.PutUint64(to[i:], sum)
	}
}

// carryTables puts the Maglev tables of the frontends that are there now into the
// new map. Where the kernel holds them for something else, the next plan makes them.
func (d *Dataplane) carryTables(m *migration) error {
	s, err := d.read()
	if err != nil {
		return err
	}
	for _, f := range s.frontends {
		var inner ebpf.MapID
		err := m.from.Lookup(f.Id, &inner)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		table, err := ebpf.NewMapFromID(inner)
		if err != nil {
			return err
		}
		err = m.to.Put(f.Id, uint32(table.FD()))
		table.Close()
		if err != nil {
			m.Left++
		} else {
			m.Entries++
		}
	}
	return nil
}

// each goes over the old map, and gives each entry in the new layout. Those that
// cannot be converted are counted.
func (m *migration) each(do func(key, value []byte) error) error {
	const batch = 4096
	keys, values := rows(m.from.KeySize(), batch), rows(m.from.ValueSize(), batch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.from.BatchLookup(&cursor, keys.Interface(), values.Interface(), nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		for i := range n {
			key, keyOK := m.key.apply(keys.Index(i).Bytes())
			value, valueOK := m.value.apply(values.Index(i).Bytes())
			if !keyOK || !valueOK {
				m.Left++
				continue
			}
			if err := do(key, value); err != nil {
				return err
			}
		}
		if err != nil {
			return nil
		}
	}
}

// rows is a slice of arrays of so many bytes: batches want one of whole entries.
func rows(size uint32, n int) reflect.Value {
	array := reflect.ArrayOf(int(size), reflect.TypeFor[byte]())
	return reflect.MakeSlice(reflect.SliceOf(array), n, n)
}

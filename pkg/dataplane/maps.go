package dataplane

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/orch-dev/orch/bpf"
)

// diff gives the entries to put and the keys to delete to get from have to want.
func diff[K, V comparable](have, want map[K]V) (put map[K]V, del []K) {
	put = make(map[K]V)
	for k, v := range want {
		if old, ok := have[k]; !ok || old != v {
			put[k] = v
		}
	}
	_, del = diffKeys(have, want)
	return put, del
}

// diffKeys gives the keys that only want has and those that only have has.
func diffKeys[K comparable, V any](have, want map[K]V) (add, del []K) {
	for k := range want {
		if _, ok := have[k]; !ok {
			add = append(add, k)
		}
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			del = append(del, k)
		}
	}
	return add, del
}

// put writes the new and changed entries in one batch.
func put[K, V comparable](m *ebpf.Map, have, want map[K]V) error {
	entries, _ := diff(have, want)
	if len(entries) == 0 {
		return nil
	}
	keys, values := make([]K, 0, len(entries)), make([]V, 0, len(entries))
	for k, v := range entries {
		keys, values = append(keys, k), append(values, v)
	}
	if _, err := m.BatchUpdate(keys, values, nil); err != nil {
		return fmt.Errorf("update %s: %w", m, err)
	}
	return nil
}

// del deletes the entries that are not wanted.
func del[K, V comparable](m *ebpf.Map, have, want map[K]V) error {
	_, keys := diff(have, want)
	return deleteKeys(m, keys)
}

func deleteKeys[K any](m *ebpf.Map, keys []K) error {
	for _, k := range keys {
		if err := m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("delete from %s: %w", m, err)
		}
	}
	return nil
}

// entries reads a whole map, in batches.
func entries[K comparable, V any](m *ebpf.Map) (map[K]V, error) {
	const batch = 4096
	all := make(map[K]V)
	keys, values := make([]K, batch), make([]V, batch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			all[keys[i]] = values[i]
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", m, err)
		}
	}
}

// clearStats zeroes a per-CPU counter whose id becomes free.
func clearStats[V any](m *ebpf.Map, id uint32) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	if err := m.Put(id, make([]V, cpus)); err != nil {
		return fmt.Errorf("clear %s: %w", m, err)
	}
	return nil
}

// read gives the state that is in the maps.
func (d *Dataplane) read() (*state, error) {
	s := &state{tables: make(map[uint32][]uint32)}
	var errs [7]error
	errs[0] = d.maps["node_config"].Lookup(uint32(0), &s.node)
	s.members, errs[1] = entries[uint32, bpf.OrchMemberFlags](d.maps["members"])
	s.endpoints, errs[2] = entries[uint32, bpf.OrchEndpoint](d.maps["endpoints"])
	s.pairs, errs[3] = entries[bpf.OrchNetPair, uint32](d.maps["net_pairs"])
	v4, err := entries[bpf.OrchFrontendKey, bpf.OrchFrontend](d.maps["frontends"])
	errs[4] = err
	s.frontends, errs[6] = entries[bpf.OrchFrontend6Key, bpf.OrchFrontend](d.maps["frontends6"])
	s.backends, errs[5] = entries[uint32, bpf.OrchBackend](d.maps["backends"])
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	for k, f := range v4 {
		s.frontends[bpf.OrchFrontend6Key{K: k}] = f
	}
	for id, b := range s.backends {
		if b == (bpf.OrchBackend{}) {
			delete(s.backends, id)
		}
	}
	// A table whose frontend went just before the daemon was killed is not
	// seen: the next frontend gets its id, and replaces it.
	for _, f := range s.frontends {
		s.tables[f.Id] = nil
	}
	return s, nil
}

// Entries counts the entries in use in each state map, by map name; counters
// excluded. After the empty plan every count is zero.
func (d *Dataplane) Entries() (map[string]int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.read()
	if err != nil {
		return nil, err
	}
	count := map[string]int{
		"members": len(s.members), "endpoints": len(s.endpoints), "net_pairs": len(s.pairs),
		"frontends": len(s.frontends), "backends": len(s.backends), "tasks": len(d.tasks),
	}
	count["tables"], err = d.countTables()
	for _, name := range []string{
		"flows", "flows6", "sessions", "sessions6", "fragments", "fragments6",
		"brief_flows", "brief_flows6", "brief_sessions", "brief_sessions6",
	} {
		n, countErr := countKeys(d.maps[name])
		count[name], err = n, errors.Join(err, countErr)
	}
	return count, err
}

// countKeys counts a map's entries.
func countKeys(m *ebpf.Map) (n int, err error) {
	var previous any
	next := make([]byte, m.KeySize())
	for {
		err := m.NextKey(previous, next)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return n, nil
		}
		if err != nil {
			return n, fmt.Errorf("count %s: %w", m, err)
		}
		n++
		previous = bytes.Clone(next)
	}
}

package dataplane

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"
)

// After each change of a map of maps the kernel waits until no program can
// still be in an old inner map, some milliseconds: once for a batch in newer
// kernels, for each change in older ones. So batches wait side by side, none of
// them with more tables than it takes to have so many batches.
const (
	tableBatches = 32
	maxBatch     = 32 // as each table is a file descriptor until it is in its place
)

// replaceTables writes what differs into the tables that change. One that is new
// here, or has become too long for its inner map, gets another in the place of
// the old one.
func (d *Dataplane) replaceTables(have, want map[uint32][]uint32) error {
	var changed []uint32
	for id, content := range want {
		d.topTable = max(d.topTable, id)
		if slices.Equal(have[id], content) {
			continue
		}
		written, err := d.rewriteTable(id, have[id], content)
		if err != nil {
			return fmt.Errorf("write table of frontend %d: %w", id, err)
		}
		if !written {
			changed = append(changed, id)
		}
	}
	var group errgroup.Group
	group.SetLimit(tableBatches)
	size := min(len(changed)/tableBatches+1, maxBatch)
	for batch := range slices.Chunk(changed, size) {
		group.Go(func() error { return d.replaceBatch(batch, want) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("replace tables: %w", err)
	}
	return nil
}

// rewriteTable changes a table where it is, for which the kernel waits for nobody:
// false if its content is not known or there is no room. A packet in between may
// find some of the places as they were, each of which still leads to a backend, as
// none is removed before the tables are done; the size comes last.
func (d *Dataplane) rewriteTable(id uint32, have, want []uint32) (bool, error) {
	if have == nil {
		return false, nil
	}
	var inner *ebpf.Map
	if err := d.maps["tables"].Lookup(id, &inner); err != nil {
		return false, err
	}
	defer inner.Close()
	old, parts := pack(have), pack(want)
	if len(parts) > int(inner.MaxEntries()) {
		return false, nil
	}
	var numbers []uint32
	var content []part
	for i, p := range parts {
		if i > 0 && (i >= len(old) || old[i] != p) {
			numbers, content = append(numbers, uint32(i)), append(content, p)
		}
	}
	if len(numbers) > 0 {
		if _, err := inner.BatchUpdate(numbers, content, nil); err != nil {
			return false, err
		}
	}
	return true, inner.Put(uint32(0), parts[0])
}

func (d *Dataplane) replaceBatch(ids []uint32, want map[uint32][]uint32) error {
	fds := make([]uint32, len(ids))
	for i, id := range ids {
		inner, err := d.newTable(want[id])
		if err != nil {
			return err
		}
		defer inner.Close()
		fds[i] = uint32(inner.FD())
	}
	_, err := d.maps["tables"].BatchUpdate(ids, fds, nil)
	if !errors.Is(err, ebpf.ErrNotSupported) {
		return err
	}
	for i, id := range ids { // before Linux 5.19
		if err := d.maps["tables"].Put(id, fds[i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dataplane) newTable(content []uint32) (*ebpf.Map, error) {
	parts := pack(content)
	spec := d.spec.Maps["tables"].InnerMap.Copy()
	spec.MaxEntries = uint32(len(parts))
	inner, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, err
	}
	numbers := make([]uint32, len(parts))
	for i := range numbers {
		numbers[i] = uint32(i)
	}
	if _, err := inner.BatchUpdate(numbers, parts, nil); err != nil {
		inner.Close()
		return nil, err
	}
	return inner, nil
}

// part is struct places of types.h.
type part [16]uint32

// pack gives the parts of a table: its size in the first, then its places.
func pack(content []uint32) []part {
	parts := make([]part, 1, 2+len(content)/len(part{}))
	parts[0][0] = content[0]
	for places := range slices.Chunk(content[1:], len(part{})) {
		var p part
		copy(p[:], places)
		parts = append(parts, p)
	}
	return parts
}

// unpack is the opposite of pack.
func unpack(parts []part) []uint32 {
	size := parts[0][0]
	content := []uint32{size}
	for _, p := range parts[1:] {
		content = append(content, p[:]...)
	}
	return content[:1+size]
}

// deleteTables has no batch to use, so many deletions wait side by side.
func (d *Dataplane) deleteTables(ids []uint32) error {
	var group errgroup.Group
	group.SetLimit(tableBatches)
	for _, id := range ids {
		group.Go(func() error {
			if err := d.maps["tables"].Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("delete table of frontend %d: %w", id, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// countTables counts the Maglev tables. It looks at the ids that have been in
// use since Open, as before Linux 6.8 each look takes as long as a change.
func (d *Dataplane) countTables() (int, error) {
	count := 0
	for id := range d.topTable + 1 {
		var inner uint32
		err := d.maps["tables"].Lookup(id, &inner)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("read tables: %w", err)
		}
		count++
	}
	return count, nil
}

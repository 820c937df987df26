package store_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/orch-dev/orch/consensus/store"
	"github.com/orch-dev/orch/pkg/api"
)

const manyTasks = 100_000

func filled(b *testing.B) (*store.Store, api.Index) {
	s := store.New()
	var index api.Index
	for i := 0; i < manyTasks; i += 1000 {
		var changes []api.Change
		for j := range 1000 {
			n := i + j
			changes = append(changes, task(0, fmt.Sprintf("%025d", n), fmt.Sprintf("10.%d.%d.%d", 128+n>>16, n>>8&255, n&255), api.EndpointReady))
		}
		index++
		apply(b, s, index, changes...)
	}
	return s, index
}

func BenchmarkApplyWithManyTasks(b *testing.B) {
	s, index := filled(b)
	for b.Loop() {
		index++
		apply(b, s, index, task(0, fmt.Sprint("new", index), "", api.EndpointPending))
	}
}

func BenchmarkSnapshotWithManyTasks(b *testing.B) {
	s, index := filled(b)
	s.Snapshot()
	for b.Loop() {
		index++
		apply(b, s, index, task(0, fmt.Sprint("new", index), "", api.EndpointPending))
		s.Snapshot()
	}
}

func BenchmarkSaveAndRestoreManyTasks(b *testing.B) {
	s, _ := filled(b)
	for b.Loop() {
		saved := save(b, s)
		if err := store.New().Restore(bytes.NewReader(saved)); err != nil {
			b.Fatal(err)
		}
	}
}

package consensus

import (
	"sync"

	"github.com/hashicorp/raft"
)

const (
	// recentEntries is how many of the newest entries are kept in memory: what
	// many clients write while followers are sent what they wrote before.
	recentEntries = 256
	// recentSize is how large an entry may be that is kept, in bytes, so that what
	// is kept is bounded.
	recentSize = 16 << 10
)

// recentLog is a log whose newest entries are in memory, too. Each entry is read
// again soon after it was written: by a leader for each follower, by a follower
// once it is committed. From the disk's pages that takes a transaction of the file,
// and opening its seal.
type recentLog struct {
	raft.LogStore
	mu      sync.RWMutex
	entries [recentEntries]*raft.Log // by index, in turn; nobody changes them
}

func (r *recentLog) GetLog(index uint64, log *raft.Log) error {
	r.mu.RLock()
	kept := r.entries[index%recentEntries]
	r.mu.RUnlock()
	if kept != nil && kept.Index == index {
		*log = *kept
		return nil
	}
	return r.LogStore.GetLog(index, log)
}

func (r *recentLog) StoreLog(log *raft.Log) error { return r.StoreLogs([]*raft.Log{log}) }

// StoreLogs keeps what is on the disk, and nothing else.
func (r *recentLog) StoreLogs(logs []*raft.Log) error {
	if err := r.LogStore.StoreLogs(logs); err != nil {
		r.forget()
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, log := range logs {
		place := &r.entries[log.Index%recentEntries]
		if *place = nil; len(log.Data)+len(log.Extensions) <= recentSize {
			*place = log
		}
	}
	return nil
}

func (r *recentLog) DeleteRange(first, last uint64) error {
	r.forget()
	return r.LogStore.DeleteRange(first, last)
}

func (r *recentLog) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.entries[:])
}

package membership

import (
	"log/slog"
	"maps"
	"sync"

	"github.com/hashicorp/memberlist"

	"github.com/orch-dev/orch/pkg/api"
)

// Broadcast tells every other node that a task's endpoint died, as its own node
// saw it, so that they take it out of service before Raft says so. It does not
// wait, and a node may miss it.
func (m *Members) Broadcast(task api.TaskID) {
	select {
	case <-m.started:
	default:
		return
	}
	if !m.hints.first(task) {
		return
	}
	msg := encodeHint(task)
	// Straight to everyone, which takes a millisecond; gossip reaches those
	// whose packet was lost.
	m.mu.Lock()
	peers := maps.Clone(m.peers)
	m.mu.Unlock()
	delete(peers, m.cfg.ID)
	for id, peer := range peers {
		if err := m.list.Load().SendToAddress(memberlist.Address{Addr: peer.addr, Name: string(id)}, msg); err != nil {
			m.cfg.Log.Debug("gossip: send hint", "node", id, "err", err)
		}
	}
	m.hints.queue.QueueBroadcast(broadcast(msg))
}

// Hints delivers the tasks whose endpoints died, as their nodes saw it, each
// once. A task is never reused, so a hint never becomes wrong. A reader that is
// more than a thousand behind misses some. All calls return the same channel.
func (m *Members) Hints() <-chan api.TaskID { return m.hints.out }

// hints is the part of a memberlist.Delegate that spreads and receives hints.
type hints struct {
	log   *slog.Logger
	out   chan api.TaskID
	queue memberlist.TransmitLimitedQueue

	mu   sync.Mutex
	seen map[api.TaskID]bool
	old  []api.TaskID // of seen, a ring
	next int          // place in old
}

const (
	hintsWaiting = 1024 // for the reader
	hintsSeen    = 4096 // remembered, so that each is passed on once
	hintKind     = 'd'  // first byte of the message: an endpoint died
)

func (h *hints) init(log *slog.Logger, nodes func() int) {
	h.log = log
	h.out = make(chan api.TaskID, hintsWaiting)
	h.queue.NumNodes = nodes
	h.queue.RetransmitMult = retransmitMult
	h.seen = map[api.TaskID]bool{}
	h.old = make([]api.TaskID, hintsSeen)
}

// first reports whether task was not seen before.
func (h *hints) first(task api.TaskID) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seen[task] {
		return false
	}
	delete(h.seen, h.old[h.next])
	h.old[h.next] = task
	h.next = (h.next + 1) % len(h.old)
	h.seen[task] = true
	return true
}

func encodeHint(task api.TaskID) []byte { return append([]byte{hintKind}, task...) }

// decodeHint returns the task of a message; of a kind from a newer orch, none.
func decodeHint(msg []byte) (api.TaskID, bool) {
	if len(msg) != 1+api.IDLength || msg[0] != hintKind {
		return "", false
	}
	return api.TaskID(msg[1:]), true
}

// NotifyMsg implements memberlist.Delegate.
func (h *hints) NotifyMsg(msg []byte) {
	task, ok := decodeHint(msg)
	if !ok || !h.first(task) {
		return
	}
	h.queue.QueueBroadcast(broadcast(encodeHint(task)))
	select {
	case h.out <- task:
	default:
		h.log.Debug("gossip: hint dropped, nobody reads them", "task", task)
	}
}

// GetBroadcasts implements memberlist.Delegate.
func (h *hints) GetBroadcasts(overhead, limit int) [][]byte {
	return h.queue.GetBroadcasts(overhead, limit)
}

// LocalState implements memberlist.Delegate.
func (*hints) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (*hints) MergeRemoteState([]byte, bool) {}

// broadcast is a message in the gossip queue.
type broadcast []byte

// Invalidates implements memberlist.Broadcast.
func (broadcast) Invalidates(memberlist.Broadcast) bool { return false }

// Message implements memberlist.Broadcast.
func (b broadcast) Message() []byte { return b }

// Finished implements memberlist.Broadcast.
func (broadcast) Finished() {}

// UniqueBroadcast implements memberlist.UniqueBroadcast: none supersedes another.
func (broadcast) UniqueBroadcast() {}

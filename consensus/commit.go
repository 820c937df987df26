package consensus

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/orch-dev/orch/pkg/api"
)

// A follower learns that an entry is committed from what the leader sends it next.
// In Raft as it comes that is the next entry, or the next turn of a slow timer; and
// what an entry says of those before it counts when it is on the follower's disk.
// Here a leader says it by itself, and a follower acts upon it at once.

// announcements are what followers are to hear soon: that entries are committed.
type announcements struct {
	mu      sync.Mutex
	newest  uint64    // of the entries
	at      time.Time // when it was announced
	pending bool      // a timer runs

	// telling has the followers to whom something is being said: the next word
	// waits for the answer.
	telling map[raft.ServerID]bool
}

// announce has followers hear soon that an entry is committed: from the next entry,
// or, unless one comes, from a message that says nothing else. While much is
// written, one timer serves for all.
func (n *Node) announce(index api.Index) { n.news.add(uint64(index), n.announced) }

// add notes an entry, and has later called after announceAfter unless it will be.
func (a *announcements) add(index uint64, later func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.newest, a.at = max(a.newest, index), time.Now()
	if !a.pending {
		a.pending = true
		time.AfterFunc(announceAfter, later)
	}
}

// announced is called when the first entry, of those that were announced together,
// has been waiting for a next one for announceAfter.
func (n *Node) announced() {
	r := n.raft.Load()
	if n.news.unheard(r.LastIndex(), n.announced) == 0 {
		return
	}
	for _, server := range r.GetConfiguration().Configuration().Servers {
		if server.ID != raft.ServerID(n.id) && n.news.begin(server.ID) {
			go n.tell(server)
		}
	}
}

// unheard returns the newest entry that was announced, if nothing came after it; 0 if
// something did. last is the newest of all. If it was announced too lately to tell,
// it has later called in time.
func (a *announcements) unheard(last uint64, later func()) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if rest := announceAfter - time.Since(a.at); rest > 0 {
		time.AfterFunc(rest, later)
		return 0
	}
	a.pending = false
	if last > a.newest {
		return 0
	}
	return a.newest
}

// begin reports whether the caller is to tell a follower: nobody does yet.
func (a *announcements) begin(follower raft.ServerID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.telling[follower] {
		return false // who does will find what is new
	}
	if a.telling == nil {
		a.telling = map[raft.ServerID]bool{}
	}
	a.telling[follower] = true
	return true
}

// next returns what a follower is to be told after it was told of an entry; 0 if
// nothing, and then the caller is done: no other was announced, or one came after it,
// which is the newest of all, last.
func (a *announcements) next(follower raft.ServerID, told, last uint64) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.newest <= told || a.newest < last {
		delete(a.telling, follower)
		return 0
	}
	return a.newest
}

// tell says to a follower that the newest entry announced is committed, and again if
// another one was announced meanwhile. If the follower lacks the entry it takes this
// for nothing, as any word after an entry that it does not have.
func (n *Node) tell(follower raft.Server) {
	last := func() uint64 { return n.raft.Load().LastIndex() }
	for told := n.news.next(follower.ID, 0, last()); told != 0; told = n.news.next(follower.ID, told, last()) {
		r, trans := n.raft.Load(), n.trans.Load()
		if notice := n.notice(r, trans, told); notice != nil {
			// Raft's own messages tell of what this one did not.
			_ = trans.AppendEntries(follower.ID, follower.Address, notice, &raft.AppendEntriesResponse{})
		}
	}
}

// notice is the message of the leader, which this node is, that an entry is
// committed; nil if the node does not lead any more, the log has the entry no more, or
// it is not committed after all: followers would apply what another leader may replace.
func (n *Node) notice(r *raft.Raft, trans *transport, index uint64) *raft.AppendEntriesRequest {
	var entry raft.Log
	if err := n.disk.GetLog(index, &entry); err != nil {
		return nil
	}
	// Raft ceases to lead before it takes up a later term, and begins after.
	term := r.CurrentTerm()
	if r.State() != raft.Leader || r.CommitIndex() < index || r.CurrentTerm() != term {
		return nil
	}
	self := trans.EncodePeer(raft.ServerID(n.id), trans.LocalAddr())
	return &raft.AppendEntriesRequest{
		RPCHeader:         raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.id), Addr: self},
		Term:              term,
		Leader:            self, // for versions that do not look at the header
		PrevLogEntry:      index,
		PrevLogTerm:       entry.Term,
		LeaderCommitIndex: index,
	}
}

// transport is Raft's way to the others. What arrives with entries, and says of those
// before them that they are committed, arrives in two messages: the word first, which
// does not wait for the disk.
type transport struct {
	*raft.NetworkTransport
	arrived chan raft.RPC
	closed  chan struct{}
	once    sync.Once
}

func newTransport(network *raft.NetworkTransport) *transport {
	t := &transport{NetworkTransport: network, arrived: make(chan raft.RPC), closed: make(chan struct{})}
	go t.run(network.Consumer())
	return t
}

// Consumer implements raft.Transport.
func (t *transport) Consumer() <-chan raft.RPC { return t.arrived }

// Close implements raft.WithClose.
func (t *transport) Close() error {
	t.once.Do(func() { close(t.closed) })
	return t.NetworkTransport.Close()
}

func (t *transport) run(network <-chan raft.RPC) {
	known := uint64(0) // to be committed, as Raft was told here
	for {
		select {
		case <-t.closed:
			return
		case rpc := <-network:
			if word := commitOf(rpc.Command); word != nil && word.LeaderCommitIndex > known {
				known = word.LeaderCommitIndex
				t.deliver(raft.RPC{Command: word, RespChan: make(chan raft.RPCResponse, 1)}) // nobody asks for the answer
			}
			t.deliver(rpc)
		}
	}
}

func (t *transport) deliver(rpc raft.RPC) {
	select {
	case t.arrived <- rpc:
	case <-t.closed:
	}
}

// commitOf is what a message with entries says of the ones before them; nil if it has
// no entries, or says nothing.
func commitOf(command any) *raft.AppendEntriesRequest {
	request, ok := command.(*raft.AppendEntriesRequest)
	if !ok || len(request.Entries) == 0 || request.PrevLogEntry == 0 || request.LeaderCommitIndex == 0 {
		return nil
	}
	word := *request
	word.Entries = nil
	word.LeaderCommitIndex = min(request.LeaderCommitIndex, request.PrevLogEntry)
	return &word
}

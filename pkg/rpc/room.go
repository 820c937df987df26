package rpc

import (
	"io"
	"net/http"
	"sync"

	"github.com/orch-dev/orch/pkg/api"
)

// How many bytes of requests this process holds at a time for callers that are no
// managers: of all of them, and of one. A request that no guest could send larger
// does not count, since of those the number is bounded; nearly all are.
const (
	maxHeld          = 64 << 20
	maxHeldPerCaller = maxMessage
)

// room is what this process has for large requests.
var room = newBudget(maxHeld, maxHeldPerCaller)

// budget counts the bytes that are held for each node or user.
type budget struct {
	most, mostEach int64
	mu             sync.Mutex
	all            int64
	each           map[api.NodeID]int64
}

func newBudget(most, mostEach int64) *budget {
	return &budget{most: most, mostEach: mostEach, each: make(map[api.NodeID]int64)}
}

// take counts n bytes more of id's, unless there is no room for them.
func (b *budget) take(id api.NodeID, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.each[id]+n > b.mostEach:
		return api.Undone("%s has large requests in progress, at most %d MB of them are possible: wait a moment", id, b.mostEach>>20)
	case b.all+n > b.most:
		return api.Undone("large requests are in progress, at most %d MB of them are possible: wait a moment", b.most>>20)
	}
	b.all += n
	b.each[id] += n
	return nil
}

// give returns n of the bytes that id has taken.
func (b *budget) give(id api.NodeID, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.all -= n
	if b.each[id] -= n; b.each[id] == 0 {
		delete(b.each, id)
	}
}

// arriving is a body that takes room once it turns out to be large: at once for all
// that it may become, so that no two wait for each other half read.
type arriving struct {
	io.ReadCloser
	from        api.NodeID
	most        int64
	read, taken int64
}

// countBody has a request's body take room until leave is called.
func countBody(r *http.Request) (leave func()) {
	caller := CallerOf(r.Context())
	if caller.Local || caller.Role == api.RoleManager || 0 <= r.ContentLength && r.ContentLength <= maxGuestMessage {
		return func() {}
	}
	body := &arriving{ReadCloser: r.Body, from: caller.Node, most: maxMessage}
	if caller.Role == api.RoleWorker {
		body.most = maxWorkerMessage
	}
	if r.ContentLength > 0 {
		body.most = min(body.most, r.ContentLength)
	}
	r.Body = body
	return body.leave
}

func (b *arriving) Read(p []byte) (int, error) {
	if small := maxGuestMessage - b.read; small > 0 {
		p = p[:min(int64(len(p)), small)]
	} else if b.taken == 0 {
		if err := room.take(b.from, b.most); err != nil {
			return 0, toWire(err)
		}
		b.taken = b.most
	}
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if err == io.EOF && b.taken > b.read {
		room.give(b.from, b.taken-b.read)
		b.taken = b.read
	}
	return n, err
}

// leave returns the room.
func (b *arriving) leave() {
	room.give(b.from, b.taken)
	b.taken = 0
}

package rpc

import (
	"net/netip"
	"sync"
	"time"
)

// What one address may ask for without a certificate: to join, as many times in
// a row, and as often from then on. A token cannot be guessed; this keeps those
// who try from making the managers busy.
const (
	guestBurst = 20
	guestEvery = 200 * time.Millisecond
	// maxSources bounds the memory; beyond it everybody begins anew.
	maxSources = 4096
)

// limiter bounds how often each address may ask.
type limiter struct {
	now     func() time.Time
	mu      sync.Mutex
	sources map[netip.Addr]time.Time // when all that was asked for is used up
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, sources: make(map[netip.Addr]time.Time)}
}

// allow reports whether an address may ask once more.
func (l *limiter) allow(source netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	used := l.sources[source]
	if used.Before(now) {
		used = now
	}
	if used = used.Add(guestEvery); used.Sub(now) > guestBurst*guestEvery {
		return false
	}
	if len(l.sources) >= maxSources {
		clear(l.sources)
	}
	l.sources[source] = used
	return true
}

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
)

func newGuestLimiter(now func() time.Time) *Limiter[netip.Addr] {
	return NewLimiter[netip.Addr](guestBurst, guestEvery, now)
}

// maxSources bounds the memory of a limiter; beyond it everybody begins anew.
const maxSources = 1 << 16

// Limiter bounds how often each source may do something.
type Limiter[K comparable] struct {
	burst   int
	every   time.Duration
	now     func() time.Time
	mu      sync.Mutex
	sources map[K]time.Time // when all that was asked for is used up
}

// NewLimiter returns a limiter by which each source may ask burst times in a row,
// and then once in every.
func NewLimiter[K comparable](burst int, every time.Duration, now func() time.Time) *Limiter[K] {
	return &Limiter[K]{burst: burst, every: every, now: now, sources: make(map[K]time.Time)}
}

// Allow reports whether a source may ask once more.
func (l *Limiter[K]) Allow(source K) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	used := l.sources[source]
	if used.Before(now) {
		used = now
	}
	if used = used.Add(l.every); used.Sub(now) > time.Duration(l.burst)*l.every {
		return false
	}
	if len(l.sources) >= maxSources {
		clear(l.sources)
	}
	l.sources[source] = used
	return true
}

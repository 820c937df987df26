// Package loadbalancer computes the lookup tables by which the data plane
// spreads new flows over backends. It is pure: every node computes the same
// table from the same backends.
package loadbalancer

import (
	"hash/fnv"
	"slices"
	"strings"
)

// Backend is one place that flows can go.
type Backend struct {
	// Name places the backend in the table. It must be the same on every node
	// and unique among the backends of a table.
	Name string
	// Weight is relative to the other backends; 0 takes no flows.
	Weight uint32
}

// sizes are the table sizes in use: primes, so that every stride visits every
// place, roughly a hundred places and more for each backend (Eisenbud et al.,
// "Maglev", NSDI 2016, section 5.3: the imbalance is then about one percent).
var sizes = []struct {
	backends int
	size     uint32
}{
	{2, 251},
	{10, 1021},
	{40, 4093},
	{160, 16381},
}

const largestSize = 65537

// Size is the table size for a number of backends. It has few steps, so that
// a change in the number of backends seldom changes it.
func Size(backends int) uint32 {
	for _, s := range sizes {
		if backends <= s.backends {
			return s.size
		}
	}
	return largestSize
}

// Table fills a Maglev table of m places: each holds the index of a backend in
// backends. m must be a prime. The table is nil when no backend has weight.
//
// Backends take turns in claiming the next place of their own permutation; one
// with a lower weight sits out the turns it has not earned. The order of the
// argument does not matter to who gets which place.
func Table(backends []Backend, m uint32) []uint32 {
	claims, heaviest := permutations(backends, m)
	if len(claims) == 0 {
		return nil
	}
	const free = ^uint32(0)
	table := make([]uint32, m)
	for i := range table {
		table[i] = free
	}
	for filled := uint32(0); ; {
		for i := range claims {
			c := &claims[i]
			c.earned += uint64(c.weight)
			if c.earned < uint64(heaviest) {
				continue
			}
			c.earned -= uint64(heaviest)
			place := c.next(m)
			for table[place] != free {
				place = c.next(m)
			}
			table[place] = c.backend
			if filled++; filled == m {
				return table
			}
		}
	}
}

// claim is one backend's walk through its permutation of the places.
type claim struct {
	backend uint32
	name    string
	weight  uint32
	earned  uint64
	place   uint32
	stride  uint32
}

// next gives the current place and steps to the one after it.
func (c *claim) next(m uint32) uint32 {
	place := c.place
	c.place = uint32((uint64(c.place) + uint64(c.stride)) % uint64(m))
	return place
}

// permutations gives the claims of all backends with weight, ordered by name,
// and the largest weight.
func permutations(backends []Backend, m uint32) (claims []claim, heaviest uint32) {
	for i, b := range backends {
		if b.Weight == 0 {
			continue
		}
		heaviest = max(heaviest, b.Weight)
		claims = append(claims, claim{
			backend: uint32(i),
			name:    b.Name,
			weight:  b.Weight,
			place:   uint32(hash(b.Name, "place") % uint64(m)),
			stride:  uint32(hash(b.Name, "stride")%uint64(m-1)) + 1,
		})
	}
	for i := range claims {
		claims[i].earned = uint64(heaviest) / 2 // so that shares are rounded, not cut off
	}
	slices.SortFunc(claims, func(a, b claim) int { return strings.Compare(a.name, b.name) })
	return claims, heaviest
}

// hash is FNV-1a with a finishing mix: FNV alone leaves names that differ in
// their last digit close together.
func hash(name, purpose string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(purpose))
	h.Write([]byte{0})
	h.Write([]byte(name))
	x := h.Sum64()
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	x ^= x >> 33
	return x
}

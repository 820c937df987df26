// Package loadbalancer computes the lookup tables by which the data plane
// spreads new flows over backends. It is pure: every node computes the same
// table from the same backends.
//
// The table is Maglev's (Eisenbud et al., NSDI 2016) in that backends take
// turns in claiming the places of a permutation of their own. It differs in
// two points, so that a change of one of N backends moves at most 2/N of the
// flows to the others, for every N:
//
//   - A backend that finds the place of its turn taken has lost that turn, and
//     one that has what is due to it takes no further part. A place so belongs
//     to whoever comes to it first, whatever happens elsewhere in the table; in
//     Maglev each claim that fails shifts all later ones of that backend.
//   - Tables grow with the number of backends place by place, as in linear
//     hashing (Litwin, VLDB 1980): a new place takes half of the hashes of one
//     that was there, and all others keep theirs. Taking a hash modulo a prime
//     would deal all of them anew whenever the prime changes, and a size that
//     must never change would be too small for some frontends or too large for
//     the memory of most. Odd strides make every permutation visit every place.
package loadbalancer

import (
	"hash/fnv"
	"math/bits"
	"slices"
	"strings"
)

// Backend is one place that flows can go.
type Backend struct {
	// Name places the backend in the table. It must be the same on every node
	// and unique among the backends of a table.
	Name string
	// Weight is relative to the other backends; 0 takes no flows.
	Weight uint16
}

const (
	// placesPerBackend keeps what one backend has within a percent or two of its share.
	placesPerBackend = 128
	largestSize      = 65537
)

// Size is the number of places of a table for so many backends with weight.
func Size(backends int) uint32 {
	return uint32(min(backends*placesPerBackend, largestSize))
}

// Place is where a hash falls in a table of m places. It is the same in the
// programs (pick in frontend.h).
func Place(hash, m uint32) uint32 { return placeIn(hash, m, maskOf(m)) }

// placeIn is Place for a table whose mask is known.
func placeIn(hash, m, mask uint32) uint32 {
	if place := hash & mask; place < m {
		return place
	}
	return hash & (mask >> 1)
}

// maskOf has the bits that all places of a table of m need.
func maskOf(m uint32) uint32 { return 1<<bits.Len32(m-1) - 1 }

// width is how many of the mask+1 classes of hashes fall on a place: two until
// the place that takes one of them is there.
func width(place, m, mask uint32) int {
	if upper := place | (mask>>1 + 1); upper != place && upper >= m {
		return 2
	}
	return 1
}

// Shares is how much of all hashes each of the numbers in a table gets.
func Shares(table []uint32) map[uint32]float64 {
	m := uint32(len(table))
	mask := maskOf(m)
	shares := make(map[uint32]float64)
	for place, b := range table {
		shares[b] += float64(width(uint32(place), m, mask)) / float64(mask+1)
	}
	return shares
}

const free = ^uint32(0)

// Table fills a table of m places: each holds the index of a backend in
// backends. The table is nil when no backend has weight. The order of the
// argument does not matter to who gets which place.
func Table(backends []Backend, m uint32) []uint32 {
	claims := claimsOf(backends, m)
	if len(claims) == 0 {
		return nil
	}
	table := slices.Repeat([]uint32{free}, int(m))
	mask := maskOf(m)
	var active []*claim
	heaviest := uint32(0)
	for left := m; left > 0; {
		for len(active) == 0 { // at first, and should what is due to all be too little for the last places
			active, heaviest = next(claims)
		}
		finished := false
		for _, c := range active {
			if c.earned += c.weight; c.earned < heaviest {
				continue // a lower weight sits out the turns that it has not earned
			}
			c.earned -= heaviest
			place := placeIn(c.at, m, mask)
			c.at += c.stride
			if table[place] != free {
				continue
			}
			table[place] = c.backend
			c.due -= width(place, m, mask)
			finished = finished || c.due <= 0
			left--
		}
		if finished {
			active, heaviest = remaining(active)
		}
	}
	return table
}

// claim is one backend's walk through its permutation of the places.
type claim struct {
	backend uint32
	name    string
	weight  uint32
	earned  uint32
	at      uint32 // the low bits of which are the place
	stride  uint32
	due     int // classes of hashes that it still takes
}

// next lets every backend have one more class of hashes, and gives those that
// then take turns, and their largest weight.
func next(claims []claim) (active []*claim, heaviest uint32) {
	for i := range claims {
		claims[i].due++
		active = append(active, &claims[i])
	}
	return remaining(active)
}

func remaining(active []*claim) ([]*claim, uint32) {
	active = slices.DeleteFunc(active, func(c *claim) bool { return c.due <= 0 })
	heaviest := uint32(0)
	for _, c := range active {
		heaviest = max(heaviest, c.weight)
	}
	return active, heaviest
}

// claimsOf gives the claims of all backends with weight, ordered by name.
func claimsOf(backends []Backend, m uint32) []claim {
	var claims []claim
	total := uint64(0)
	for i, b := range backends {
		if b.Weight == 0 {
			continue
		}
		total += uint64(b.Weight)
		claims = append(claims, claim{
			backend: uint32(i),
			name:    b.Name,
			weight:  uint32(b.Weight),
			at:      uint32(hash(b.Name, "place")),
			stride:  uint32(hash(b.Name, "stride")) | 1,
		})
	}
	for i := range claims {
		claims[i].due = due(&claims[i], len(claims), total, m)
	}
	slices.SortFunc(claims, func(a, b claim) int { return strings.Compare(a.name, b.name) })
	return claims
}

// due is how many classes of hashes a backend may have: its share and, with
// many backends, up to a sixteenth of it more. If all had exactly their share,
// one that gets a place back would have to give another up, whose new owner
// gives up one in turn, and so on through all of them; with room at every
// second backend such chains are short. The fraction that remains is rounded
// up for some and down for others, so that a share that passes a whole number
// does not change for all at once. Next adds the last one.
func due(c *claim, backends int, total uint64, m uint32) int {
	const few, many, most = 16, 100, 16 // no room for more below few, a 16th from many on
	const one = 1 << 16
	share := uint64(maskOf(m)+1) * one * uint64(c.weight) / total
	room := share * uint64(min(max(backends, few), many)-few) / ((many - few) * most)
	return int((share+room+hash(c.name, "share")%one)/one) - 1
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

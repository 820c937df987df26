package loadbalancer

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// named gives n backends of weight 1 with names like those of tasks.
func named(n int) []Backend {
	backends := make([]Backend, n)
	for i := range backends {
		backends[i] = Backend{Name: fmt.Sprintf("10.128.0.%d:8080", i+1), Weight: 1}
	}
	return backends
}

// places counts the places of each backend, by name.
func places(backends []Backend, table []uint32) map[string]int {
	count := make(map[string]int)
	for _, i := range table {
		count[backends[i].Name]++
	}
	return count
}

func isPrime(n uint32) bool {
	for d := uint32(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return n > 1
}

func TestSizeIsAPrimeAndNeverShrinks(t *testing.T) {
	last := uint32(0)
	for n := range 2000 {
		size := Size(n)
		if !isPrime(size) || size < last {
			t.Fatalf("Size(%d) = %d after %d", n, size, last)
		}
		last = size
	}
}

func TestTableWithoutBackends(t *testing.T) {
	for _, backends := range [][]Backend{nil, {{Name: "a"}}, {{Name: "a"}, {Name: "b"}}} {
		if got := Table(backends, 251); got != nil {
			t.Errorf("Table(%v) has %d places, want none", backends, len(got))
		}
	}
}

func TestWeightZeroTakesNothing(t *testing.T) {
	backends := []Backend{{Name: "a", Weight: 1}, {Name: "b"}, {Name: "c", Weight: 1}}
	if got := places(backends, Table(backends, 251))["b"]; got != 0 {
		t.Errorf("b has %d places, want 0", got)
	}
}

// Equal weights differ by at most one place; others keep within one percent of
// the table.
func TestBalance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		backends := named(rapid.IntRange(1, 60).Draw(t, "backends"))
		equal := rapid.Bool().Draw(t, "equal")
		total := 0
		for i := range backends {
			if !equal {
				backends[i].Weight = rapid.Uint32Range(1, 256).Draw(t, "weight")
			}
			total += int(backends[i].Weight)
		}
		m := Size(len(backends))
		tolerance := 1.0
		if !equal {
			tolerance = float64(m) / 100
		}
		count := places(backends, Table(backends, m))
		for _, b := range backends {
			share := float64(m) * float64(b.Weight) / float64(total)
			if got := float64(count[b.Name]); got < share-tolerance || got > share+tolerance {
				t.Fatalf("%s has %.0f places of %d, its share is %.1f", b.Name, got, m, share)
			}
		}
	})
}

func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		backends := named(rapid.IntRange(1, 30).Draw(t, "backends"))
		for i := range backends {
			backends[i].Weight = rapid.Uint32Range(0, 256).Draw(t, "weight")
		}
		shuffled := rapid.Permutation(backends).Draw(t, "shuffled")
		m := Size(len(backends))
		name := func(backends []Backend, table []uint32) []string {
			names := make([]string, len(table))
			for i, b := range table {
				names[i] = backends[b].Name
			}
			return names
		}
		if diff := cmp.Diff(name(backends, Table(backends, m)), name(shuffled, Table(shuffled, m))); diff != "" {
			t.Fatal(diff)
		}
	})
}

// Taking one backend away moves its own places and few others.
func TestDisruption(t *testing.T) {
	for _, n := range []int{3, 10, 40, 100} {
		before := named(n)
		m := Size(n)
		old := Table(before, m)
		removed := before[n/2].Name
		var after []Backend
		for _, b := range before {
			if b.Name != removed {
				after = append(after, b)
			}
		}
		moved := 0
		for place, b := range Table(after, m) {
			if was := before[old[place]].Name; was != removed && was != after[b].Name {
				moved++
			}
		}
		if limit := int(m) / 10; moved > limit {
			t.Errorf("%d backends: %d of %d places moved needlessly, limit %d", n, moved, m, limit)
		}
	}
}

func BenchmarkTable(b *testing.B) {
	for _, n := range []int{3, 30, 300} {
		backends := named(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				Table(backends, Size(n))
			}
		})
	}
}

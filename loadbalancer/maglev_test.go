package loadbalancer

import (
	"fmt"
	"slices"
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

// shares are those of each backend, by name.
func shares(backends []Backend, table []uint32) map[string]float64 {
	named := make(map[string]float64)
	for i, share := range Shares(table) {
		named[backends[i].Name] = share
	}
	return named
}

func TestSizeGrowsUpToTheLargest(t *testing.T) {
	last := uint32(0)
	for n := range 2000 {
		size := Size(n)
		if size < last || size > last+placesPerBackend {
			t.Fatalf("Size(%d) = %d after %d", n, size, last)
		}
		last = size
	}
	if last < 65537 {
		t.Errorf("the largest table has %d places, want 65537", last)
	}
}

// Another place takes hashes from one other, and none changes hands besides.
func TestPlacesSplit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.Uint32Range(1, 65536).Draw(t, "places")
		from := make(map[uint32]bool)
		for hash := range uint32(1 << 18) {
			was, is := Place(hash, m), Place(hash, m+1)
			if was >= m || is > m || is != was && is != m {
				t.Fatalf("hash %d: place %d of %d, then %d of one more", hash, was, m, is)
			}
			if is == m {
				from[was] = true
			}
		}
		if len(from) != 1 {
			t.Fatalf("place %d took from the places %v, want one", m, from)
		}
	})
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
	if got := shares(backends, Table(backends, 256))["b"]; got != 0 {
		t.Errorf("b has %f of the table, want nothing", got)
	}
}

// Up to 16 backends have what is due to them, to a few places. Of many none has
// more than a sixteenth and a few places above its share.
func TestBalance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		backends := named(rapid.OneOf(rapid.IntRange(1, 16), rapid.IntRange(17, 600)).Draw(t, "backends"))
		equal := rapid.Bool().Draw(t, "equal")
		total := 0.0
		for i := range backends {
			if !equal {
				backends[i].Weight = rapid.Uint16Range(1, 256).Draw(t, "weight")
			}
			total += float64(backends[i].Weight)
		}
		m := Size(len(backends))
		few := 4 / float64(m)
		got := shares(backends, Table(backends, m))
		for _, b := range backends {
			due := float64(b.Weight) / total
			if got[b.Name] > due*17/16+few || len(backends) <= 16 && got[b.Name] < due-few {
				t.Fatalf("%s of weight %d has %.3f %% of the hashes, %.3f %% are due", b.Name, b.Weight, 100*got[b.Name], 100*due)
			}
		}
	})
}

func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		backends := named(rapid.IntRange(1, 30).Draw(t, "backends"))
		for i := range backends {
			backends[i].Weight = rapid.Uint16Range(0, 256).Draw(t, "weight")
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

// moved is how much of the flows of other backends than the given one go
// elsewhere when that one is taken away, or comes.
func moved(backends []Backend, gone int) float64 {
	rest := slices.Delete(slices.Clone(backends), gone, gone+1)
	before, after := Table(backends, Size(len(backends))), Table(rest, Size(len(rest)))
	moved, others := 0, 0
	for hash := range maskOf(Size(len(backends))) + 1 {
		was := before[Place(hash, uint32(len(before)))]
		if was == uint32(gone) {
			continue
		}
		others++
		if backends[was].Name != rest[after[Place(hash, uint32(len(after)))]].Name {
			moved++
		}
	}
	return float64(moved) / float64(others)
}

// A change of one of n backends moves at most 2/n of the flows of the others,
// whatever n is, also where the table's size changes with it.
func TestOneOfManyMovesFew(t *testing.T) {
	worst := 0.0
	for n := 2; n <= 1000; n++ {
		share := moved(named(n), (n*7919/3)%n) * float64(n)
		if share > 2 {
			t.Errorf("of %d backends one goes: %.2f/%d of the other flows move, want at most 2/%d", n, share, n, n)
		}
		worst = max(worst, share)
	}
	t.Logf("at most %.2f/n of the other flows move", worst)
}

// The same for other names, and whichever goes.
func TestAnyOfSomeMovesFew(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		backends := named(rapid.IntRange(2, 300).Draw(t, "backends"))
		seed := rapid.Uint32().Draw(t, "seed")
		for i := range backends {
			backends[i].Name = fmt.Sprint(seed, backends[i].Name)
		}
		gone := rapid.IntRange(0, len(backends)-1).Draw(t, "gone")
		if share := moved(backends, gone) * float64(len(backends)); share > 2 {
			t.Fatalf("%.2f/n of the other flows move", share)
		}
	})
}

func BenchmarkTable(b *testing.B) {
	for _, n := range []int{3, 10, 100, 1000} {
		backends := named(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				Table(backends, Size(n))
			}
		})
	}
}

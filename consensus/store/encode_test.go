package store

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/orch-dev/orch/pkg/api"
)

// Entries of at most so many bytes, applied one after the other, make the same
// state as one with everything.
func TestEncodeUpTo(t *testing.T) {
	var changes []api.Change
	for i := range 20 {
		changes = append(changes, api.Change{Network: &api.Network{ID: api.NetworkID(fmt.Sprint("n", i)), Name: fmt.Sprint("net", i), Number: uint32(i + 1)}})
	}
	whole, parts := New(), New()
	all, err := Encode(changes)
	if err != nil {
		t.Fatal(err)
	}
	whole.Apply(1, all)
	entries := 0
	for rest := changes; len(rest) > 0; entries++ {
		data, n, err := EncodeUpTo(rest, 300)
		if err != nil {
			t.Fatal(err)
		}
		if n < 1 || n > 1 && len(data) > 302 {
			t.Fatalf("an entry of %d changes has %d bytes", n, len(data))
		}
		if answer := parts.Apply(1, data); answer != nil {
			t.Fatal(answer)
		}
		rest = rest[n:]
	}
	if entries < 5 {
		t.Errorf("%d entries", entries)
	}
	if diff := cmp.Diff(whole.Snapshot(), parts.Snapshot(), cmpopts.IgnoreUnexported(api.Snapshot{})); diff != "" {
		t.Errorf("states (-one entry +several):\n%s", diff)
	}
}

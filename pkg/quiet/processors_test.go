package quiet

import (
	"context"
	"os"
	"runtime"
	"testing"
	"time"
)

// A process has one processor while it is quiet, and all again as soon as it has
// something to do, and when nobody looks any more.
func TestProcessors(t *testing.T) {
	all := runtime.GOMAXPROCS(0)
	if all == 1 || os.Getenv("GOMAXPROCS") != "" {
		t.Skip("needs more than one processor, and nobody who says how many")
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- Processors(ctx) }()
	await := func(want int, meanwhile func()) {
		t.Helper()
		for until := time.Now().Add(time.Minute); runtime.GOMAXPROCS(0) != want; meanwhile() {
			if time.Now().After(until) {
				t.Fatalf("%d processors, want %d", runtime.GOMAXPROCS(0), want)
			}
		}
	}
	rest := func() { time.Sleep(10 * time.Millisecond) }
	work := func() {
		for until := time.Now().Add(time.Millisecond); time.Now().Before(until); {
		}
	}
	await(1, rest)
	await(all, work)
	await(1, rest)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if got := runtime.GOMAXPROCS(0); got != all {
		t.Errorf("%d processors in the end, want %d", got, all)
	}
}

// Who says how many processors there are is not asked again.
func TestProcessorsOfTheEnvironment(t *testing.T) {
	t.Setenv("GOMAXPROCS", "2")
	if err := Processors(t.Context()); err != nil { // returns at once
		t.Error(err)
	}
}

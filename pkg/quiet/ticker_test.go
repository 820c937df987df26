package quiet

import (
	"testing"
	"time"
)

func newTicker(t *testing.T) *Ticker {
	t.Helper()
	ticker, err := NewTicker()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ticker.Close() })
	return ticker
}

// It ticks as often as it is told to, and not at all where it is not.
func TestTicker(t *testing.T) {
	const every = 5 * time.Millisecond
	ticker, other := newTicker(t), newTicker(t)
	began := time.Now()
	ticker.Reset(every)
	for i := range 10 {
		at := <-ticker.C
		if took := at.Sub(began); took < time.Duration(i+1)*every {
			t.Errorf("tick %d after %v", i+1, took)
		}
	}
	ticker.Reset(0)
	other.Reset(every)
	<-other.C
	select {
	case <-ticker.C: // it was there before
	default:
	}
	for range 10 {
		<-other.C
	}
	select {
	case <-ticker.C:
		t.Error("it ticks though it was told not to")
	default:
	}
}

// Those that nobody waits for are left out, and its end ends what waits.
func TestTickerIsNotWaitedFor(t *testing.T) {
	ticker, other := newTicker(t), newTicker(t)
	ticker.Reset(time.Millisecond)
	other.Reset(20 * time.Millisecond)
	<-other.C
	if n := len(ticker.C); n != 1 {
		t.Errorf("%d ticks wait", n)
	}
	idle := newTicker(t)
	waits := make(chan bool)
	go func() { waits <- idle.wait() }()
	idle.Close()
	if <-waits {
		t.Error("a ticker that is closed has ticked")
	}
	idle.Reset(time.Millisecond) // does nothing
}

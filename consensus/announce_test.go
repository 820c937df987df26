package consensus

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Followers hear of an entry as soon as nothing has come after it for a while, and
// one timer does for all that were written meanwhile.
func TestAnnouncementsShareATimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a announcements
		var fired, last atomic.Uint64
		told := make(chan uint64, 8)
		var later func()
		later = func() {
			fired.Add(1)
			if newest := last.Load(); a.unheard(newest, later) {
				told <- newest
			}
		}
		const step, writes = announceAfter / 50, 500 // ten times announceAfter in all
		for range writes {
			a.add(last.Add(1), later)
			time.Sleep(step)
		}
		if fired := fired.Load(); len(told) != 0 || fired > 2*writes/50 {
			t.Errorf("told %d times by %d timers while more was written", len(told), fired)
		}
		a.add(last.Load()-1, later) // who waited for it was slow
		time.Sleep(2 * announceAfter)
		if len(told) != 1 {
			t.Fatalf("told %d times, want once", len(told))
		}
		if got := <-told; got != writes {
			t.Errorf("told of %d, want %d", got, writes)
		}

		a.add(last.Add(1), later)
		last.Add(1) // which tells of it
		time.Sleep(2 * announceAfter)
		if len(told) != 0 {
			t.Errorf("told of %d, of which the next entry told", <-told)
		}
	})
}

package consensus

import (
	"testing"
	"testing/synctest"
	"time"
)

// Followers hear of an entry as soon as nothing has come after it for a while, and
// one timer does for all that were written meanwhile.
func TestAnnouncementsShareATimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a announcements
		var fired int
		var told []uint64
		var last uint64
		var later func()
		later = func() {
			fired++
			if a.unheard(last, later) {
				told = append(told, a.newest)
			}
		}
		const step, writes = announceAfter / 50, 500 // ten times announceAfter in all
		for range writes {
			last++
			a.add(last, later)
			time.Sleep(step)
		}
		if len(told) != 0 || fired > 2*writes/50 {
			t.Errorf("told of %v by %d timers while more was written", told, fired)
		}
		a.add(last-1, later) // who waited for it was slow
		time.Sleep(2 * announceAfter)
		if len(told) != 1 || told[0] != last {
			t.Errorf("told of %v, want %d", told, last)
		}

		a.add(last+1, later)
		last += 2 // which tells of it
		time.Sleep(2 * announceAfter)
		if len(told) != 1 {
			t.Errorf("told of %v, of which the next entry told", told)
		}
	})
}

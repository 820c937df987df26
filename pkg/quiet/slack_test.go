package quiet

import (
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

// All threads get the slack, and so do those that are made afterwards.
func TestRelaxTimers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a thread may not set another's otherwise")
	}
	const usual = 50 * time.Microsecond
	defer func() {
		if err := relaxTimers(usual); err != nil {
			t.Error(err)
		}
	}()
	strict := func() int {
		t.Helper()
		files, err := strictThreads(timerSlack)
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	if strict() == 0 {
		t.Fatal("all threads have the slack before it was set")
	}
	if err := relaxTimers(timerSlack); err != nil {
		t.Fatal(err)
	}
	if n := strict(); n != 0 {
		t.Errorf("%d threads do not have the slack", n)
	}

	var locked, made sync.WaitGroup
	done := make(chan struct{})
	for range 8 { // each takes a thread for itself
		made.Add(1)
		locked.Go(func() {
			runtime.LockOSThread()
			made.Done()
			<-done
		})
	}
	made.Wait()
	if n := strict(); n != 0 {
		t.Errorf("%d threads that were made later do not have the slack", n)
	}
	close(done)
	locked.Wait()
}

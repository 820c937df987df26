package quiet

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// alarmTime is the time in user space after which a quiet process looks whether it
	// still is one. The kernel tells, so that nothing needs to look before.
	alarmTime = 10 * time.Millisecond
	// busyShare and quietShare of one CPU are what a process uses that becomes busy,
	// or quiet again.
	busyShare, quietShare = 0.15, 0.05
	// busyLook is how often a busy process looks, quietLooks how many times in a
	// row it is to find itself quiet.
	busyLook   = time.Second
	quietLooks = 3
)

// Processors has Go's scheduler use one processor while this process has little to do,
// and all of them else, until ctx ends. With more, whoever is woken and makes something
// else ready wakes another thread, to share what there is; it finds that done, and looks
// for more. What memory it needed before it became quiet it gives back. Where the
// environment says how many processors there are (GOMAXPROCS), that holds.
func Processors(ctx context.Context) error {
	if os.Getenv("GOMAXPROCS") != "" || runtime.GOMAXPROCS(0) == 1 {
		return nil
	}
	alarm := make(chan os.Signal, 1)
	signal.Notify(alarm, syscall.SIGVTALRM)
	defer signal.Stop(alarm)
	defer runtime.SetDefaultGOMAXPROCS()
	for {
		awaitQuiet(ctx)
		if ctx.Err() != nil {
			return nil
		}
		debug.FreeOSMemory() // which would stay until the next collection, minutes later
		runtime.GOMAXPROCS(1)
		if err := awaitBusy(ctx, alarm); err != nil {
			return err
		}
		runtime.SetDefaultGOMAXPROCS()
	}
}

// awaitQuiet returns once the process has little to do.
func awaitQuiet(ctx context.Context) {
	ticker := time.NewTicker(busyLook)
	defer ticker.Stop()
	usage := startUsage()
	for quiet := 0; quiet < quietLooks; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if quiet++; usage.share() > quietShare {
			quiet = 0
		}
	}
}

// awaitBusy returns once it has more.
func awaitBusy(ctx context.Context, alarm <-chan os.Signal) error {
	usage := startUsage()
	for {
		if err := setAlarm(alarmTime); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-alarm:
		}
		if usage.share() > busyShare {
			return nil
		}
	}
}

// setAlarm has SIGVTALRM sent once this process has used so much more time in user
// space.
func setAlarm(after time.Duration) error {
	_, err := unix.Setitimer(unix.ItimerVirtual, unix.Itimerval{Value: unix.NsecToTimeval(int64(after))})
	if err != nil {
		return fmt.Errorf("watch for something to do: %w", err)
	}
	return nil
}

// usage is what this process used of a CPU since it was last asked.
type usage struct {
	at   time.Time
	used time.Duration
}

func startUsage() *usage {
	u := &usage{}
	u.share()
	return u
}

// share is 1 for one CPU.
func (u *usage) share() float64 {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // it refuses nothing but another argument
	now, used := time.Now(), time.Duration(r.Utime.Nano()+r.Stime.Nano())
	share := float64(used-u.used) / float64(max(1, now.Sub(u.at)))
	u.at, u.used = now, used
	return share
}

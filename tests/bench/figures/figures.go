// Package figures is what the benchmarks say their figures with: the machine that
// they are of, and how far durations are spread.
package figures

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is what has to be known to read the figures.
type Machine struct {
	Kernel string `json:"kernel"`
	CPUs   int    `json:"cpus"`
	Load   string `json:"loadAverage"` // over 1, 5 and 15 minutes
}

// ThisMachine is the one that this runs on, as it is now.
func ThisMachine() (Machine, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return Machine{}, fmt.Errorf("read kernel release: %w", err)
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return Machine{}, fmt.Errorf("read load average: %w", err)
	}
	return Machine{
		Kernel: unix.ByteSliceToString(uts.Release[:]),
		CPUs:   runtime.NumCPU(),
		Load:   strings.Join(strings.Fields(string(load))[:3], " "),
	}, nil
}

func (m Machine) String() string {
	return fmt.Sprintf("Linux %s, %d CPUs, load %s, %s", m.Kernel, m.CPUs, m.Load, runtime.Version())
}

// Spread are durations as a table row tells them.
type Spread []time.Duration

// At is the quantile q, 0..1, of at least one duration.
func (s Spread) At(q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func (s Spread) String() string {
	return fmt.Sprintf("min %s, median %s, p99 %s, max %s (%d times)", short(s.At(0)), short(s.At(0.5)), short(s.At(0.99)), short(s.At(1)), len(s))
}

// short writes a duration with the digits that say something.
func short(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

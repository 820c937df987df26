package dataplane_test

import (
	"path/filepath"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/orch-dev/orch/pkg/dataplane"
)

// At default sizes the maps take at most 64 MB of the kernel's memory, before
// and after a plan; docs/architecture.md says how much.
func TestMemory(t *testing.T) {
	c := newCluster(t, dataplane.ModeTC)
	n := c.nodes[0]
	n.must(n.dp.Close)
	n.must(func() (err error) {
		n.dp, err = dataplane.Open(dataplane.Config{PinDir: n.pins, Uplink: "eth0", Mode: n.mode})
		return err
	})
	n.apply(c.plan(n, c.backends(1, 2, 3)...))
	pins, err := filepath.Glob(filepath.Join(n.pins, "maps", "*"))
	if err != nil || len(pins) == 0 {
		t.Fatalf("%v, %v", pins, err)
	}
	var sum uint64
	for _, pin := range pins {
		m, err := ebpf.LoadPinnedMap(pin, nil)
		if err != nil {
			t.Fatal(err)
		}
		info, err := m.Info()
		m.Close()
		if err != nil {
			t.Fatal(err)
		}
		bytes, ok := info.Memlock()
		if !ok {
			t.Skip("this kernel does not say what a map takes")
		}
		t.Logf("%s: %d bytes", filepath.Base(pin), bytes)
		sum += bytes
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB in sum, on %d CPUs", float64(sum)/1e6, cpus)
	if cpus <= 4 && sum > 64<<20 {
		t.Errorf("%d bytes, want at most 64 MB", sum)
	}
}

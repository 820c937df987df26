package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"

	"github.com/orch-dev/orch/bpf"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
	"github.com/orch-dev/orch/tests/bench/figures"
)

// visible takes one task after another out of a service, and measures from the
// call until no node's kernel gives the task new flows any more. The call returns
// when the change is in the state, which so is a part of the time.
func (o *orch) visible(ctx context.Context, out io.Writer, times int) error {
	if times == 0 {
		return nil
	}
	const replicas = 12
	kernels, err := o.openKernels()
	if err != nil {
		return err
	}
	defer kernels.close()
	if err := o.deployFile(ctx, fmt.Sprintf("services: {web: {image: %q, stop_grace_period: 1s, deploy: {replicas: 1}}}\n", image("v1"))); err != nil {
		return err
	}
	var took figures.Spread
	for left := 1; len(took) < times; {
		if left == 1 {
			left = replicas
			if err := o.scale(ctx, left); err != nil {
				return err
			}
		}
		if err := await(ctx, "every node has the same tasks", func() error { return kernels.all(left, everyBackend) }); err != nil {
			return err
		}
		left--
		began := time.Now()
		if _, err := rpc.Call[api.ScaleRequest, api.ScaleResponse](ctx, o.clients["n1"], api.ProcScale,
			&api.ScaleRequest{Replicas: map[string]int{stackName + "_web": left}}); err != nil {
			return err
		}
		for kernels.all(left, takesFlows) != nil && time.Since(began) < patience {
			time.Sleep(200 * time.Microsecond)
		}
		took = append(took, time.Since(began))
	}
	fmt.Fprintf(out, "%-48s %-6s %v (p99 must be at most 100 ms)\n", "scaled down -> every node's kernel knows", o.name(), took)
	return o.remove(ctx)
}

// kernels are the maps of all nodes' backends.
type kernels []*ebpf.Map

func (o *orch) openKernels() (k kernels, err error) {
	for _, n := range o.Nodes() {
		pattern := filepath.Join(n.PinDir, "maps", "backends_*")
		pins, err := filepath.Glob(pattern)
		if err != nil || len(pins) != 1 {
			k.close()
			return nil, fmt.Errorf("%d maps at %s (%w)", len(pins), pattern, err)
		}
		m, err := ebpf.LoadPinnedMap(pins[0], nil)
		if err != nil {
			k.close()
			return nil, fmt.Errorf("open the map of backends of %s: %w", n.Name, err)
		}
		k = append(k, m)
	}
	return k, nil
}

func (k kernels) close() {
	for _, m := range k {
		m.Close()
	}
}

func everyBackend(b bpf.OrchBackend) bool { return b.Addr != 0 }

func takesFlows(b bpf.OrchBackend) bool {
	return b.Addr != 0 && b.Flags&bpf.OrchBackendFlagsBACKEND_DRAINING == 0
}

// all complains unless each node has want backends of a kind.
func (k kernels) all(want int, kind func(bpf.OrchBackend) bool) error {
	const ids = 64 // the lowest are given away first
	for i, m := range k {
		have := 0
		for id := range uint32(ids) {
			var b bpf.OrchBackend
			if err := m.Lookup(id, &b); err != nil {
				return fmt.Errorf("read the backends of n%d: %w", i+1, err)
			}
			if kind(b) {
				have++
			}
		}
		if have != want {
			return fmt.Errorf("n%d has %d backends, not %d", i+1, have, want)
		}
	}
	return nil
}

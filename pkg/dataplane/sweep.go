package dataplane

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/bpf"
)

// Times in ticks of 2^30 ns, as in the programs (types.h). An established TCP
// connection may be idle for days.
const (
	ticksUDPIdle    = 180
	ticksTCPOpening = 60
	ticksTCPClosed  = 60
	ticksTCPIdle    = 5 * 24 * 3600
)

// Sweep deletes flows and sessions that have ended, or whose backend or client
// is gone, and says how many. Apply does it after a removal and once a minute.
func (d *Dataplane) Sweep() (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.have == nil {
		return 0, nil
	}
	return d.sweep()
}

func (d *Dataplane) sweep() (int, error) {
	now, err := nowTicks()
	if err != nil {
		return 0, err
	}
	flows, err := entries[bpf.OrchFlowKey, bpf.OrchFlow](d.maps["flows"])
	if err != nil {
		return 0, err
	}
	var ended []bpf.OrchFlowKey
	for k, f := range flows {
		if b := d.have.backends[f.Backend]; b.Addr != f.Addr || flowEnded(k, f, now) {
			ended = append(ended, k)
		}
	}
	if err := deleteKeys(d.maps["flows"], ended); err != nil {
		return 0, err
	}
	sessions, err := entries[bpf.OrchSessionKey, bpf.OrchSession](d.maps["sessions"])
	if err != nil {
		return 0, err
	}
	var closed []bpf.OrchSessionKey
	for k, s := range sessions {
		if !d.have.serves(k, s) || sessionEnded(k, s, now) {
			closed = append(closed, k)
		}
	}
	if err := deleteKeys(d.maps["sessions"], closed); err != nil {
		return 0, err
	}
	d.swept = time.Now()
	return len(ended) + len(closed), d.sweepFragments()
}

// sweepFragments forgets fragments once there is nobody to receive any; until
// then the map's own replacement does.
func (d *Dataplane) sweepFragments() error {
	if len(d.have.endpoints) > 0 {
		return nil
	}
	fragments, err := entries[bpf.OrchFragmentKey, bpf.OrchFragment](d.maps["fragments"])
	if err != nil {
		return err
	}
	keys, _ := diffKeys(nil, fragments)
	return deleteKeys(d.maps["fragments"], keys)
}

// serves reports whether both ends of a session can still exist.
func (s *state) serves(k bpf.OrchSessionKey, v bpf.OrchSession) bool {
	backend, ok := s.endpoints[k.Backend]
	if !ok || backend.Node != s.node.Underlay {
		return false
	}
	if v.Client&s.node.PoolMask != s.node.Pool {
		return true
	}
	_, ok = s.endpoints[v.Client]
	return ok
}

func flowEnded(k bpf.OrchFlowKey, f bpf.OrchFlow, now uint32) bool {
	idle := now - f.Seen
	switch {
	case k.Proto == unix.IPPROTO_UDP:
		return idle > ticksUDPIdle
	case f.Flags != 0:
		return idle > ticksTCPClosed
	default:
		return idle > ticksTCPIdle
	}
}

func sessionEnded(k bpf.OrchSessionKey, s bpf.OrchSession, now uint32) bool {
	const both = bpf.OrchSeenSEEN_FIN_CLIENT | bpf.OrchSeenSEEN_FIN_BACKEND
	idle := now - s.Seen
	switch {
	case k.Proto == unix.IPPROTO_UDP:
		return idle > ticksUDPIdle
	case s.Flags&bpf.OrchSeenSEEN_RST != 0 || s.Flags&both == both:
		return idle > ticksTCPClosed
	case s.Flags&bpf.OrchSeenSEEN_ESTABLISHED == 0:
		return idle > ticksTCPOpening
	default:
		return idle > ticksTCPIdle
	}
}

// nowTicks is the programs' clock.
func nowTicks() (uint32, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &ts); err != nil {
		return 0, fmt.Errorf("read clock: %w", err)
	}
	return uint32(ts.Nano() >> 30), nil
}

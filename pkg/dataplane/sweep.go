package dataplane

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
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
	flow := func(k bpf.OrchFlowKey, f bpf.OrchFlow) bool {
		return d.have.backends[f.Backend].Addr != f.Addr || flowEnded(k, f, now)
	}
	session := func(k bpf.OrchSessionKey, s bpf.OrchSession) bool {
		return !d.have.serves(k, s) || sessionEnded(k, s, now)
	}
	swept := 0
	for _, sweep := range []func() (int, error){
		func() (int, error) { return sweepMap(d.maps["flows"], flow) },
		func() (int, error) {
			return sweepMap(d.maps["flows6"], func(k bpf.OrchFlow6Key, f bpf.OrchFlow) bool { return flow(k.K, f) })
		},
		func() (int, error) { return sweepMap(d.maps["sessions"], session) },
		func() (int, error) {
			return sweepMap(d.maps["sessions6"], func(k bpf.OrchSession6Key, s bpf.OrchSession6) bool { return session(k.K, s.S) })
		},
	} {
		n, err := sweep()
		if err != nil {
			return swept, err
		}
		swept += n
	}
	d.swept = time.Now()
	return swept, d.sweepFragments()
}

// sweepMap deletes the entries that have ended, and counts them.
func sweepMap[K comparable, V any](m *ebpf.Map, ended func(K, V) bool) (int, error) {
	all, err := entries[K, V](m)
	if err != nil {
		return 0, err
	}
	var keys []K
	for k, v := range all {
		if ended(k, v) {
			keys = append(keys, k)
		}
	}
	return len(keys), deleteKeys(m, keys)
}

// sweepFragments forgets fragments once there is nobody to receive any; until
// then the map's own replacement does.
func (d *Dataplane) sweepFragments() error {
	if len(d.have.endpoints) > 0 {
		return nil
	}
	_, err := sweepMap(d.maps["fragments"], func(bpf.OrchFragmentKey, bpf.OrchFragment) bool { return true })
	_, err6 := sweepMap(d.maps["fragments6"], func(bpf.OrchFragment6Key, bpf.OrchFragment) bool { return true })
	return errors.Join(err, err6)
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

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/orch-dev/orch/bpf"
)

// Times in ticks of 2^30 ns, as in the programs (types.h). An established TCP
// connection may be idle for days, and one end of it may be closed for long.
const (
	ticksTCPOpening    = 16
	ticksTCPClosed     = 60
	ticksTCPHalfClosed = 3600
	ticksTCPIdle       = 5 * 24 * 3600
)

// Run goes over the flows and sessions a few at a time, all the while, and
// forgets those that have ended. When a backend has left it looks at all of
// them at once, so that clients whose connection has lost its other end are told
// with a reset. It returns when ctx ends.
func (d *Dataplane) Run(ctx context.Context, log *slog.Logger) error {
	const pause, rest = 50 * time.Millisecond, 15 * time.Second
	var left []pass
	wait := rest
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.orphaned:
			left, wait = nil, rest
			if _, err := d.Sweep(); err != nil {
				log.Error("cannot look for flows of backends that have left", "err", err)
			}
			continue
		case <-time.After(wait):
		}
		var err error
		if len(left) == 0 {
			left, err = d.passes()
		}
		if wait = rest; err == nil && len(left) > 0 {
			var done bool
			if _, done, err = left[0].step(); done || err != nil {
				left = left[1:]
			}
			if len(left) > 0 {
				wait = pause
			}
		}
		if err != nil {
			log.Error("cannot sweep flows", "err", err)
		}
	}
}

// Sweep does in one go what Run does little by little, and says how many
// entries it forgot.
func (d *Dataplane) Sweep() (int, error) {
	passes, err := d.passes()
	if err != nil {
		return 0, err
	}
	return finish(passes)
}

// finish takes all the steps of passes.
func finish(passes []pass) (swept int, err error) {
	for _, p := range passes {
		for done := false; !done; {
			var n int
			if n, done, err = p.step(); err != nil {
				return swept, err
			}
			swept += n
		}
	}
	return swept, nil
}

// pass is one walk over a map. Each step looks at a few entries.
type pass struct {
	step func() (swept int, done bool, err error)
}

// passes gives one over each map that the programs write, flows first; none
// before the first plan.
func (d *Dataplane) passes() ([]pass, error) {
	s := d.ends()
	if s == nil {
		return nil, nil
	}
	now, err := nowTicks()
	if err != nil {
		return nil, err
	}
	flow := func(id flowID, k bpf.OrchFlowKey, f bpf.OrchFlow) bool {
		if d.backendGone(s, f) {
			d.resetClient(id, f)
			return true
		}
		return d.flowEnded(k, f, now)
	}
	session := func(k bpf.OrchSessionKey, v bpf.OrchSession) bool {
		return d.sessionEnded(k, v, now) || d.endGone(s, k, v)
	}
	var passes []pass
	for _, prefix := range []string{"", "brief_"} {
		passes = append(passes,
			passOver(d.maps[prefix+"flows"], func(k bpf.OrchFlowKey, f bpf.OrchFlow) bool { return flow(flowIDOf(k), k, f) }),
			passOver(d.maps[prefix+"flows6"], func(k bpf.OrchFlow6Key, f bpf.OrchFlow) bool { return flow(flowIDOf6(k), k.K, f) }),
			passOver(d.maps[prefix+"sessions"], session),
			passOver(d.maps[prefix+"sessions6"], func(k bpf.OrchSession6Key, v bpf.OrchSession6) bool { return session(k.K, v.S) }))
	}
	if len(s.endpoints) == 0 {
		// Until nobody is left to receive fragments, the maps' own replacement does.
		passes = append(passes,
			passOver(d.maps["fragments"], func(bpf.OrchFragmentKey, bpf.OrchFragment) bool { return true }),
			passOver(d.maps["fragments6"], func(bpf.OrchFragment6Key, bpf.OrchFragment) bool { return true }))
	}
	return passes, nil
}

// ends are of the last plan the node, endpoints and backends, nil before the first: as
// they are now, for a change of a few frontends edits the state in place.
func (d *Dataplane) ends() *state {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.have == nil {
		return nil
	}
	return &state{node: d.have.node, endpoints: d.have.endpoints, backends: maps.Clone(d.have.backends)}
}

// passOver deletes the entries that have ended. As the programs may have used
// one since it was read, it is looked at again before.
func passOver[K comparable, V any](m *ebpf.Map, ended func(K, V) bool) pass {
	const batch = 1024
	keys, values := make([]K, batch), make([]V, batch)
	var cursor ebpf.MapBatchCursor
	return pass{func() (swept int, done bool, err error) {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		if done = errors.Is(err, ebpf.ErrKeyNotExist); err != nil && !done {
			return 0, false, fmt.Errorf("read %s: %w", m, err)
		}
		for i := range n {
			if !ended(keys[i], values[i]) || m.Lookup(keys[i], &values[i]) != nil || !ended(keys[i], values[i]) {
				continue
			}
			if err := deleteKeys(m, keys[i:i+1]); err != nil {
				return swept, false, err
			}
			swept++
		}
		return swept, done, nil
	}}
}

// backendGone reports whether a flow's backend is there no more: neither in the
// state of the last plan nor, as a newer one may be on its way, in the kernel.
func (d *Dataplane) backendGone(s *state, f bpf.OrchFlow) bool {
	if s.backends[f.Backend].Addr == f.Addr {
		return false
	}
	var b bpf.OrchBackend
	err := d.maps["backends"].Lookup(f.Backend, &b)
	return err == nil && b.Addr != f.Addr
}

// endGone reports whether one of a session's ends is there no more, likewise.
func (d *Dataplane) endGone(s *state, k bpf.OrchSessionKey, v bpf.OrchSession) bool {
	if s.serves(k, v) {
		return false
	}
	now := &state{node: s.node, endpoints: make(map[uint32]bpf.OrchEndpoint)}
	for _, addr := range []uint32{k.Backend, v.Client} {
		var e bpf.OrchEndpoint
		err := d.maps["endpoints"].Lookup(addr, &e)
		if err == nil {
			now.endpoints[addr] = e
		} else if !errors.Is(err, ebpf.ErrKeyNotExist) {
			return false
		}
	}
	return !now.serves(k, v)
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

func (d *Dataplane) flowEnded(k bpf.OrchFlowKey, f bpf.OrchFlow, now uint32) bool {
	return idleTicks(now, f.Seen) > d.patience(k.Proto, f.Flags)
}

func (d *Dataplane) sessionEnded(k bpf.OrchSessionKey, s bpf.OrchSession, now uint32) bool {
	return idleTicks(now, s.Seen) > d.patience(k.Proto, s.Flags)
}

// idleTicks is for how many ticks nothing was seen of a flow. One in use may have been
// seen after now was read, which is a while ago for the last steps of a pass.
func idleTicks(now, seen uint32) uint32 { return uint32(max(0, int32(now-seen))) }

// isOver is is_over of types.h.
func isOver(seen bpf.OrchSeen) bool {
	return seen&bpf.OrchSeenSEEN_RST != 0 || seen&bothFins == bothFins
}

const bothFins = bpf.OrchSeenSEEN_FIN_CLIENT | bpf.OrchSeenSEEN_FIN_BACKEND

// patience is for how many ticks nothing may be seen of a flow before it is
// held for ended.
func (d *Dataplane) patience(proto uint8, seen bpf.OrchSeen) uint32 {
	switch {
	case proto == unix.IPPROTO_UDP:
		return ticksOf(d.cfg.UDPIdle)
	case isOver(seen):
		return ticksTCPClosed
	case seen&bothFins != 0:
		return ticksTCPHalfClosed
	case seen&bpf.OrchSeenSEEN_ESTABLISHED == 0:
		return ticksTCPOpening
	}
	return ticksTCPIdle
}

func ticksOf(t time.Duration) uint32 { return uint32(t >> 30) }

// nowTicks is the programs' clock.
func nowTicks() (uint32, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &ts); err != nil {
		return 0, fmt.Errorf("read clock: %w", err)
	}
	return ticksOf(time.Duration(ts.Nano())), nil
}

package agent

import (
	"context"
	"slices"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	// firstProbe is how long after its start a task is first asked whether it
	// is healthy; the pause doubles from one time to the next, up to maxProbe.
	firstProbe = 50 * time.Millisecond
	maxProbe   = 5 * time.Second
	// firstListen and maxListen are the same for a task without a healthcheck, of
	// which the kernel is asked whether it listens.
	firstListen = 10 * time.Millisecond
	maxListen   = 500 * time.Millisecond
	// listenPatience is how long after its start a task is waited for to listen: it
	// may never, and still be of use.
	listenPatience = 10 * time.Second
)

// probes times the agent's own probes of a task that has just started. They
// only bring good news early: that a task is unhealthy is for the runtime to
// say, by the rules of the healthcheck.
type probes struct {
	began time.Time // zero: not yet
	due   time.Time // zero: none
	pause time.Duration
}

// next returns in how long a probe is due, if one is.
func (p *probes) next(now time.Time) (time.Duration, bool) {
	return max(0, p.due.Sub(now)), !p.due.IsZero()
}

// begin has the first probe be due after a pause, unless it was begun before.
func (p *probes) begin(now time.Time, pause time.Duration) {
	if p.began.IsZero() {
		p.began, p.pause, p.due = now, pause, now.Add(pause)
	}
}

// again has the next one be due after twice the last pause, or most.
func (p *probes) again(now time.Time, most time.Duration) {
	p.pause = min(2*p.pause, most)
	p.due = now.Add(p.pause)
}

// end is for a task that needs none any more.
func (p *probes) end() { p.due = time.Time{} }

// probe asks a task that starts whether it is healthy, if it is time to.
func (w *worker) probe(ctx context.Context, state api.ContainerState) bool {
	now := w.agent.Now()
	w.probes.begin(now, firstProbe)
	if now.Before(w.probes.due) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, maxProbe)
	defer cancel()
	healthy, err := w.agent.Runtime.Probe(ctx, state.ContainerID)
	if err != nil && ctx.Err() == nil {
		w.agent.Log.Debug("probe", "task", w.id, "err", err)
	}
	if healthy {
		w.probes.end()
		return true
	}
	w.probes.again(w.agent.Now(), maxProbe)
	return false
}

// serves reports whether a task without a healthcheck is as ready as can be told from
// outside: it listens on the TCP ports that its service publishes. A client that is
// sent to a process which has only begun is refused.
func (w *worker) serves(t *api.Task, state api.ContainerState) bool {
	ports := w.agent.listensOn(t)
	if len(ports) == 0 {
		return true
	}
	now := w.agent.Now()
	w.probes.begin(now, firstListen)
	listens, err := w.agent.Links.Listens(state.NetNS, ports)
	switch {
	case err != nil:
		w.agent.Log.Warn("taking a task for ready without knowing whether it listens", "task", w.id, "err", err)
	case listens:
	case now.Sub(w.probes.began) >= listenPatience:
		w.agent.Log.Info("a task does not listen on the ports that its service publishes: it is taken for ready", "task", w.id, "ports", ports)
	default:
		if !now.Before(w.probes.due) {
			w.probes.again(now, maxListen)
		}
		return false
	}
	w.probes.end()
	return true
}

// listensOn returns the TCP ports that the task's service publishes of it.
func (a *Agent) listensOn(t *api.Task) (ports []uint16) {
	service := a.View().Services[t.ServiceID]
	if service == nil {
		return nil
	}
	for _, p := range service.Ports {
		if p.Protocol == api.TCP && !slices.Contains(ports, p.Target) {
			ports = append(ports, p.Target)
		}
	}
	return ports
}

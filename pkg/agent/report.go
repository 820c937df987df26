package agent

import (
	"context"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

const (
	// heartbeat is the longest time between two reports, a quarter of the lease
	// where that is less.
	heartbeat = time.Second
	// reportRest is the shortest time between an answer to a report and the next.
	reportRest = 5 * time.Millisecond
	// infoInterval is how often the node looks at what it is.
	infoInterval = 30 * time.Second
	// lagPatience is how long a manager may not pass on what the leader has.
	lagPatience = time.Second
)

// reports collects what the managers do not know yet.
type reports struct {
	mu       sync.Mutex
	applied  api.Version
	statuses map[api.TaskID]api.TaskStatus
	info     *api.NodeInfo // nil: as the managers know it
	news     chan struct{} // holds one token while there is something new
}

func newReports() *reports {
	return &reports{statuses: make(map[api.TaskID]api.TaskStatus), news: make(chan struct{}, 1)}
}

// acknowledge notes the version that is in the kernel.
func (r *reports) acknowledge(version api.Version) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if version != r.applied {
		r.applied = version
		r.signal()
	}
}

// status notes what has become of a task.
func (r *reports) status(id api.TaskID, s api.TaskStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.statuses[id] = s
	r.signal()
}

// describe notes what the node is.
func (r *reports) describe(info api.NodeInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.info = &info
	r.signal()
}

func (r *reports) signal() {
	select {
	case r.news <- struct{}{}:
	default:
	}
}

// next makes the report to send.
func (r *reports) next(node api.NodeID, addr netip.AddrPort) *api.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	report := &api.Report{
		Node: node, Applied: r.applied.Index, Epoch: r.applied.Epoch,
		Info: r.info, Statuses: make(map[api.TaskID]api.TaskStatus),
	}
	if r.info != nil {
		report.Addr = addr
	}
	for id, s := range r.statuses {
		report.Statuses[id] = s
	}
	return report
}

// accepted forgets what a manager has stored of a report, unless there is
// something newer.
func (r *reports) accepted(report *api.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, s := range report.Statuses {
		if r.statuses[id] == s {
			delete(r.statuses, id)
		}
	}
	if r.info == report.Info {
		r.info = nil
	}
}

// watchInfo looks now and then at what the node is. A container runtime that
// does not answer holds up nothing else.
func (a *Agent) watchInfo(ctx context.Context) error {
	var told api.NodeInfo
	for ctx.Err() == nil {
		if info := a.Info(ctx); ctx.Err() == nil && !reflect.DeepEqual(info, told) {
			told = info
			a.reports.describe(info)
		}
		select {
		case <-ctx.Done():
		case <-a.look:
		case <-time.After(infoInterval):
		}
	}
	return nil
}

// Changed says that Info would answer otherwise now.
func (a *Agent) Changed() {
	select {
	case a.look <- struct{}{}:
	default:
	}
}

// sendReports reports news at once, and that the node lives at every heartbeat.
func (a *Agent) sendReports(ctx context.Context) error {
	lag := lag{patience: lagPatience}
	beat := heartbeat
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for ctx.Err() == nil {
		report := a.reports.next(a.Node, a.Addr)
		sent, began := a.Fence.Now(), a.Now()
		res, err := a.Managers.Report(ctx, report)
		if err != nil {
			if ctx.Err() == nil {
				a.Log.Warn("cannot report to the managers", "err", err)
				pause(ctx, retryDelay)
			}
			continue
		}
		a.reports.accepted(report)
		if len(res.GossipKeys) > 0 {
			a.Gossip.SetKeys(res.GossipKeys)
		}
		if res.Fence > 0 {
			if err := a.Fence.Renew(sent + res.Fence); err != nil {
				a.Log.Error("cannot renew the lease of singletons", "err", err)
			}
		}
		a.newest.Set(res.Version)
		if next := min(heartbeat, res.Lease/4); res.Lease > 0 && next != beat {
			beat = next
			ticker.Reset(beat)
		}
		if lag.tooLong(a.known(), res.Version, a.Now()) {
			a.Log.Info("the manager lags behind the leader, looking for another", "have", a.known().Index, "newest", res.Index)
			a.Managers.MoveOn()
		}
		// A leader that is busy is asked less often, and gets more at a time.
		pause(ctx, min(max(a.Now().Sub(began), reportRest), beat/2))
		select {
		case <-ctx.Done():
		case <-a.reports.news:
		case <-ticker.C:
		}
	}
	return nil
}

// known is the newest state that the node has heard of.
func (a *Agent) known() (newest api.Version) {
	if view := a.View(); view != nil {
		newest = view.Version()
	}
	return newest
}

// lag watches for news that do not come.
type lag struct {
	patience time.Duration
	want     api.Version // the oldest news waited for
	since    time.Time
}

// tooLong reports whether what the leader had patience ago is not known yet,
// and then begins to wait anew.
func (l *lag) tooLong(have, newest api.Version, now time.Time) bool {
	none := api.Version{}
	switch {
	case have.Compare(newest) >= 0:
		l.want = none
	case l.want == none || have.Compare(l.want) >= 0:
		l.want, l.since = newest, now
	case now.Sub(l.since) >= l.patience:
		l.want = none
		return true
	}
	return false
}

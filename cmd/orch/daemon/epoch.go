package daemon

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orch-dev/orch/consensus"
	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// A manager that was left behind when its group began anew with another one, or with
// a backup, knows nothing of that. It finds out when it starts, and whenever it
// talks to the other one's Raft, which refuses it: then it takes no part any more.

func (d *daemon) epoch() uint64 { return d.identity().Epoch }

// laterEpoch is one after those that are known, and not another group's that began
// from the same: of an older backup, or of one that was restored before.
func laterEpoch(now time.Time, known ...uint64) uint64 {
	return max(slices.Max(known)+1, uint64(max(now.Unix(), 0)))
}

// saveEpoch keeps in which group the node is from now on.
func (d *daemon) saveEpoch(epoch uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.id.Epoch = epoch
	return d.id.save(d.stateDir)
}

// enterEpoch begins a later group. The epoch comes first, so that no manager of
// before ever reaches the group; if begin fails and left the group as it was, the
// epoch is put back: else the others would take it for one that they were left
// behind by.
func (d *daemon) enterEpoch(epoch uint64, begin func() error) error {
	before := d.epoch()
	if err := d.saveEpoch(epoch); err != nil {
		return errors.Join(err, d.saveEpoch(before))
	}
	err := begin()
	if errors.Is(err, consensus.ErrAsBefore) {
		err = errors.Join(err, d.saveEpoch(before))
	}
	return err
}

// dialRaft connects to another manager's Raft, or finds out why that refuses.
func (d *daemon) dialRaft(ctx context.Context, addr string) (net.Conn, error) {
	conn, err := rpc.DialRaft(ctx, d.sec, addr)
	if err == nil || ctx.Err() != nil || !rpc.Refused(err) {
		return conn, err
	}
	if later := d.later(ctx, addr); later != nil {
		d.group.Go(func() error { return d.leaveBehind(addr, later.Epoch) })
	}
	return nil, err
}

// later returns the group of the manager at addr if that is a later one.
func (d *daemon) later(ctx context.Context, addr string) *api.Group {
	group, err := d.groupOf(ctx, addr)
	if err != nil || group.Epoch <= d.epoch() {
		return nil
	}
	return group
}

// laterTimeout is what a manager's start takes longer if others are gone.
const laterTimeout = time.Second

// findLater asks the managers that a node knew whether one of them is in a later
// group.
func (d *daemon) findLater(ctx context.Context) (addr string, epoch uint64) {
	ctx, cancel := context.WithTimeout(ctx, laterTimeout)
	defer cancel()
	id := d.identity()
	var mu sync.Mutex
	var asked sync.WaitGroup
	for _, other := range id.Managers {
		if other == d.apiAddr(id.Addr) {
			continue
		}
		asked.Go(func() {
			if later := d.later(ctx, other); later != nil {
				mu.Lock()
				defer mu.Unlock()
				addr, epoch = other, later.Epoch
			}
		})
	}
	asked.Wait()
	return addr, epoch
}

// leaveBehind ends this manager's part in a group that is none any more. What runs
// on the node goes on.
func (d *daemon) leaveBehind(addr string, epoch uint64) error {
	d.mu.Lock()
	m := d.member
	if d.id.LeftBehind != "" || d.id.Epoch >= epoch {
		d.mu.Unlock()
		return nil
	}
	d.id.LeftBehind, d.member = addr, nil
	err := d.id.save(d.stateDir)
	d.mu.Unlock()
	d.log.Error("this manager was left behind: "+d.leftBehind(), "epoch", epoch)
	if m != nil {
		m.stop()
	}
	return err
}

// leftBehind says what to do.
func (d *daemon) leftBehind() string {
	host, _, _ := strings.Cut(d.identity().LeftBehind, ":")
	return "the cluster's managers began anew without it, at " + host +
		", after most of them were lost: run `orch leave --force` here, and join it again (`orch join-token` there)"
}

package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/seal"
)

// rejoin takes the node's place in its cluster again. What a manager keeps may be
// sealed under an unlock key.
func (d *daemon) rejoin(under seal.UnlockKey) error {
	id := d.identity()
	if id.LeftBehind != "" {
		d.log.Error("this manager was left behind: " + d.leftBehind())
		return nil
	}
	if id.Role == api.RoleManager {
		keys, err := openKeyring(d.keyFile(), under)
		if err != nil {
			return err
		}
		if err := id.open(keys.keys()); err != nil {
			return err
		}
	}
	d.mu.Lock()
	d.id, d.unlockKey = id, under
	d.mu.Unlock()
	if id.Role == api.RoleManager {
		if addr, epoch := d.findLater(d.ctx); addr != "" {
			return d.leaveBehind(addr, epoch)
		}
	}
	m, err := d.startMember(id, true)
	if err != nil {
		return err
	}
	d.setMember(id, m)
	if id.Joining {
		g := m.managing.Load()
		g.run("join", g.finishJoin)
	}
	return nil
}

// Unlock gives a manager that is locked the key to what it keeps.
func (d *daemon) Unlock(_ context.Context, req *api.UnlockRequest) (*api.Empty, error) {
	d.enrolling.Lock()
	defer d.enrolling.Unlock()
	if !d.isLocked() {
		return nil, api.Errorf(api.CodeConflict, "this node is not locked")
	}
	key, err := seal.ParseUnlockKey(req.Key)
	if err != nil {
		return nil, api.Errorf(api.CodeInvalid, "%v", err)
	}
	err = d.rejoin(key)
	if errors.Is(err, seal.ErrWrongKey) {
		return nil, api.Errorf(api.CodeDenied, "this is not the unlock key of this manager; if the key was replaced while it was down, it takes the one of before")
	}
	if err != nil {
		return nil, fmt.Errorf("rejoin the cluster: %w", err)
	}
	d.setLocked(false)
	d.log.Info("unlocked")
	return &api.Empty{}, nil
}

func (d *daemon) isLocked() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.locked
}

func (d *daemon) setLocked(locked bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.locked = locked
}

// viewPoll is how often a manager that has just started looks whether it knows
// what the others do.
const viewPoll = 200 * time.Millisecond

// followUnlockKey keeps what this manager has on disk under the cluster's unlock
// key. It begins once the state is as new as the leader's: on the way there it is
// that of earlier days, with the keys of then.
func (g *managing) followUnlockKey(ctx context.Context) error {
	for ctx.Err() == nil {
		changed := g.replica.Changed()
		var again <-chan time.Time
		if !g.current() {
			again = time.After(viewPoll)
		} else if err := g.keepUnder(g.replica.Cluster().UnlockKey); err != nil {
			g.d.log.Error("cannot put the keys of this manager under the cluster's unlock key", "err", err)
			again = time.After(renewRetry)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-again:
		}
	}
	return nil
}

// current reports whether this manager's state is as new as the leader's was when
// the node last heard of it.
func (g *managing) current() bool {
	view := g.node.agent.View()
	return view != nil && g.replica.Index() >= view.Index
}

// keepUnder puts the keys under the unlock key, and the node's own key under those.
func (g *managing) keepUnder(under seal.UnlockKey) error {
	d := g.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unlockKey = under
	if under == nil && d.id.ring != nil {
		d.id.ring = nil
		if err := d.id.save(d.stateDir); err != nil {
			return err
		}
	}
	changed, err := g.keys.keepUnder(under)
	if err != nil {
		return err
	}
	if changed {
		d.log.Info("the keys of this manager were put under another unlock key", "autolock", under != nil)
	}
	if under == nil || !changed && d.id.ring != nil {
		return nil
	}
	d.id.ring = g.keys.keys()
	return d.id.save(d.stateDir)
}

// dropOldKeys forgets the keys that were replaced, once nothing needs them.
func (d *daemon) dropOldKeys(keys *keyring) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.id.ring != nil {
		if err := d.id.save(d.stateDir); err != nil {
			return err
		}
	}
	return keys.dropOld()
}

package daemon

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// parts of the daemon run side by side until they are stopped together.
type parts struct {
	d      *daemon
	ctx    context.Context
	cancel context.CancelFunc
	group  *errgroup.Group
}

func (d *daemon) newParts() parts {
	ctx, cancel := context.WithCancel(d.ctx)
	group, ctx := errgroup.WithContext(ctx)
	return parts{d: d, ctx: ctx, cancel: cancel, group: group}
}

// run runs one part until all are stopped. The daemon does not outlive a part
// that fails: its supervisor starts it afresh, and nothing notices.
func (p *parts) run(name string, part func(context.Context) error) {
	p.group.Go(func() error {
		if err := part(p.ctx); err != nil && p.ctx.Err() == nil {
			err = fmt.Errorf("%s: %w", name, err)
			p.d.log.Error("a part of the daemon failed", "err", err)
			p.d.group.Go(func() error { return err })
			return err
		}
		return nil
	})
}

// stop ends the parts and waits for them.
func (p *parts) stop() {
	p.cancel()
	if err := p.group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		p.d.log.Warn("stop", "err", err)
	}
}

package consensus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/orch-dev/orch/pkg/api"
)

var (
	// ErrNotLeader: nothing was done; ask the node that Leader names.
	ErrNotLeader = errors.New("not the leader")
	// ErrNoQuorum: no majority of the managers answered in time. Whether the
	// entry will be applied is unknown.
	ErrNoQuorum = errors.New("no quorum")
	// ErrOutcomeUnknown: the node lost its lead, its disk or its life before it
	// knew whether the entry was committed. It may yet be applied.
	ErrOutcomeUnknown = errors.New("outcome unknown")
)

// MaxEntry is the largest entry that Propose takes, in bytes.
const MaxEntry = 8 << 20

// Propose puts data into the log and waits until a quorum has it and this
// node's FSM has applied it. It returns the entry's index and what the FSM
// answered; an answer that is an error is returned as the error, with the index.
//
// Errors are those above, the FSM's own, or the context's: then, too, the
// outcome is unknown.
func (n *Node) Propose(ctx context.Context, data []byte) (api.Index, any, error) {
	if len(data) > MaxEntry {
		return 0, nil, fmt.Errorf("propose: entry of %d bytes is larger than %d", len(data), MaxEntry)
	}
	var applied raft.ApplyFuture
	err := n.await(ctx, func(r *raft.Raft, timeout time.Duration) raft.Future {
		applied = r.Apply(data, timeout)
		return applied
	})
	if err != nil {
		return 0, nil, fmt.Errorf("propose: %w", err)
	}
	index := api.Index(applied.Index())
	n.announce(index)
	answer := applied.Response()
	if refused, ok := answer.(error); ok {
		return index, nil, refused
	}
	return index, answer, nil
}

// Barrier waits until this node, which must lead, has applied every entry
// committed before the call, those of earlier leaders included.
func (n *Node) Barrier(ctx context.Context) error {
	if err := n.await(ctx, (*raft.Raft).Barrier); err != nil {
		return fmt.Errorf("wait for applied log: %w", err)
	}
	n.announce(api.Index(n.raft.Load().CommitIndex()))
	return nil
}

// VerifyLeader asks a quorum whether this node leads at this moment.
func (n *Node) VerifyLeader(ctx context.Context) error {
	err := n.await(ctx, func(r *raft.Raft, _ time.Duration) raft.Future { return r.VerifyLeader() })
	if err != nil {
		return fmt.Errorf("verify lead: %w", err)
	}
	return nil
}

// Compact takes a snapshot now and shortens the log accordingly.
func (n *Node) Compact() error {
	if err := n.raft.Load().Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return fmt.Errorf("compact raft log: %w", err)
	}
	return nil
}

// await starts an operation of Raft and waits for its end, the context's, the
// node's, or that of its part in the group. The timeout given to start is the
// time left until the context's deadline, 0 if it has none.
func (n *Node) await(ctx context.Context, start func(r *raft.Raft, timeout time.Duration) raft.Future) error {
	n.proposing.RLock()
	defer n.proposing.RUnlock()
	return n.wait(ctx, start)
}

// wait is await for who holds n.proposing.
func (n *Node) wait(ctx context.Context, start func(r *raft.Raft, timeout time.Duration) raft.Future) error {
	stalled := n.lead.stall()
	select {
	case <-stalled:
		return fmt.Errorf("%w: %w", ErrNotLeader, errStalled)
	default:
	}
	var timeout time.Duration
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), time.Nanosecond)
	}
	done := make(chan error, 1)
	go func() { done <- start(n.raft.Load(), timeout).Error() }()
	select {
	case err := <-done:
		return translate(err)
	case <-stalled:
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, errStalled)
	case <-n.closing:
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, raft.ErrRaftShutdown)
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return fmt.Errorf("%w: %w", ErrNoQuorum, context.Cause(ctx))
		}
		return context.Cause(ctx)
	}
}

// translate turns Raft's errors into the ones callers branch on.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader):
		return ErrNotLeader
	case errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: %w", ErrNoQuorum, err)
	default:
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
}

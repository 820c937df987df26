package consensus

import (
	"context"
	"net"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/orch-dev/orch/pkg/api"
)

// CopyPlain copies the unsealed log in dir to another store.
func CopyPlain(dir string, to interface {
	raft.LogStore
	raft.StableStore
}) error {
	from, err := openBolt(filepath.Join(dir, logDir))
	if err != nil {
		return err
	}
	defer from.Close()
	last, err := from.LastIndex()
	if err != nil {
		return err
	}
	for i := uint64(1); i <= last; i++ {
		var entry raft.Log
		if err := from.GetLog(i, &entry); err != nil {
			return err
		}
		if err := to.StoreLog(&entry); err != nil {
			return err
		}
	}
	for _, key := range stableNumbers {
		n, err := from.GetUint64([]byte(key))
		if err != nil {
			return err
		}
		if err := to.SetUint64([]byte(key), n); err != nil {
			return err
		}
	}
	return nil
}

// OnDial has connections that are dialled from now on pass through wrap.
func (l *StreamLayer) OnDial(wrap func(net.Conn) net.Conn) {
	dial := l.dial
	l.dial = func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		return wrap(conn), nil
	}
}

// CutOff takes the node's Raft from all others.
func (n *Node) CutOff() { n.cfg.Transport.hangUp() }

// HangDisk is a write to the node's log that returns when until is closed.
func (n *Node) HangDisk(until <-chan struct{}) {
	_ = n.disk.watch(func() error { <-until; return nil })
}

// BreakConnections closes all connections that the node has for Raft, once.
func (n *Node) BreakConnections() {
	n.CutOff()
	n.cfg.Transport.resume()
}

// Tells reports whether the node would tell its followers that an entry is committed.
func (n *Node) Tells(index api.Index) bool {
	return n.notice(n.raft.Load(), n.trans.Load(), uint64(index)) != nil
}

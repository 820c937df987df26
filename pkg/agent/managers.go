package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// reportTimeout bounds a report: a manager that does not answer for so long is
// given up for another.
const reportTimeout = 2 * time.Second

// Directory is the way to the managers over the API. It stays with a manager
// that answers and moves on to the next when it does not. A manager's own agent
// reports to its own process, which knows the leader or nobody does, and begins
// there with its sessions too.
type Directory struct {
	node  api.NodeID
	peers *rpc.Pool
	save  func(addrs []string) // keeps the addresses for the next start

	mu      sync.Mutex
	home    string // this node's own API if it is a manager, else ""
	misses  int    // reports in a row that home could not pass on
	addrs   []string
	current string
	drop    context.CancelFunc // ends the session with current
	hearsay func() []string    // see SetHearsay
	heard   []string           // what it said when it last changed
	round   int                // of those alive, how many were tried since one had news or one of the others was tried
	other   string             // the last of these
}

// NewDirectory begins with the managers at addrs, at least one; save is called
// when they change. A manager gives its own address as home, others none.
func NewDirectory(node api.NodeID, peers *rpc.Pool, home string, addrs []string, save func([]string)) *Directory {
	d := &Directory{node: node, peers: peers, home: home, save: save, addrs: slices.Clone(addrs), hearsay: func() []string { return nil }}
	if d.current = home; home == "" {
		d.current = addrs[0]
	}
	return d
}

// Know implements Managers.
func (d *Directory) Know(addrs []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(addrs) == 0 || slices.Equal(addrs, d.addrs) {
		return
	}
	d.addrs = slices.Clone(addrs)
	d.save(d.addrs)
}

// SetHome says that the node is a manager now, by its own address, or, by none, that
// it is none any more.
func (d *Directory) SetHome(addr string) {
	d.mu.Lock()
	was := d.home
	d.home, d.misses = addr, 0
	d.mu.Unlock()
	if addr == "" && was != "" {
		d.leave(was)
	}
}

// SetHearsay has the directory try the addresses that hearsay returns, too, after those
// that are known: who answers there proves to be a manager, or is passed by.
func (d *Directory) SetHearsay(hearsay func() []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hearsay = hearsay
}

// Listen ends the session with a manager as soon as it is not alive any more by
// hearsay, until ctx ends: the connection would take seconds to notice. changed
// returns a channel that is closed when hearsay next changes.
func (d *Directory) Listen(ctx context.Context, changed func() <-chan struct{}) error {
	for ctx.Err() == nil {
		next := changed()
		if addr, gone := d.listen(); gone {
			d.leave(addr)
		}
		select {
		case <-next:
		case <-ctx.Done():
		}
	}
	return nil
}

// listen reports whether the current manager was alive when hearsay was last listened
// to, and is not any more.
func (d *Directory) listen() (addr string, gone bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.heard
	d.heard = d.hearsay()
	return d.current, slices.Contains(before, d.current) && !slices.Contains(d.heard, d.current)
}

// Addr returns the manager that calls go to now.
func (d *Directory) Addr() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current
}

// Session implements Managers.
func (d *Directory) Session(ctx context.Context, each func(*api.Update) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.mu.Lock()
	addr := d.current
	d.drop = cancel
	d.mu.Unlock()
	updates := 0
	err := rpc.Stream(ctx, d.peers.Manager(addr), api.ProcSession, &api.SessionRequest{Node: d.node}, func(u *api.Update) error {
		if updates++; updates == 2 { // news: the first is all that it has, which may be old
			d.mu.Lock()
			d.round = 0
			d.mu.Unlock()
		}
		return each(u)
	})
	d.leave(addr)
	if err == nil {
		err = errors.New("the manager closed the stream")
	}
	return err
}

// Report implements Managers.
func (d *Directory) Report(ctx context.Context, report *api.Report) (*api.ReportResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	addr := d.reportTo()
	res, err := rpc.Call[api.Report, api.ReportResponse](ctx, d.peers.Manager(addr), api.ProcReport, report)
	d.reported(addr, err == nil || answered(err))
	return res, err
}

// Announce tells the managers that the node lives, and nothing else, until ctx
// ends: a node whose daemon starts is not lost, however long its kernel takes to
// check the programs. What runs on the node itself does not answer yet.
func (d *Directory) Announce(ctx context.Context) error {
	for ctx.Err() == nil {
		d.mu.Lock()
		others := d.others()
		d.mu.Unlock()
		wait := retryDelay
		for _, addr := range others {
			if res, err := d.announceTo(ctx, addr); err == nil {
				wait = min(heartbeat, res.Lease/4)
				break
			}
		}
		pause(ctx, wait)
	}
	return nil
}

func (d *Directory) announceTo(ctx context.Context, addr string) (*api.ReportResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	return rpc.Call[api.Report, api.ReportResponse](ctx, d.peers.Manager(addr), api.ProcReport, &api.Report{Node: d.node})
}

// others are the managers' addresses but the node's own; d.mu is held.
func (d *Directory) others() []string {
	return slices.DeleteFunc(slices.Clone(d.addrs), func(addr string) bool { return addr == d.home })
}

// homePatience is how many reports in a row a manager's own process may fail to pass
// on. From then on others are asked every other time: it may be no manager any more
// and have missed that, having been down.
const homePatience = 3

func (d *Directory) reportTo() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.home == "":
		return d.current
	case d.misses < homePatience || d.misses%2 == 0:
		return d.home
	}
	others := d.others()
	if len(others) == 0 {
		return d.home
	}
	return others[d.misses/2%len(others)]
}

// reported notes whether the manager that was reported to had the cluster's answer.
func (d *Directory) reported(addr string, answered bool) {
	d.mu.Lock()
	home := d.home
	switch {
	case home == "":
	case answered && addr == home:
		d.misses = 0
	default:
		d.misses++
	}
	d.mu.Unlock()
	if home == "" && !answered {
		d.leave(addr)
	}
}

// filesTimeout bounds how long a manager may take to give a task's files.
const filesTimeout = 10 * time.Second

// TaskFiles implements Managers.
func (d *Directory) TaskFiles(ctx context.Context, id api.TaskID) ([]api.File, error) {
	ctx, cancel := context.WithTimeout(ctx, filesTimeout)
	defer cancel()
	res, err := rpc.Call[api.TaskFilesRequest, api.TaskFiles](ctx, d.peers.Manager(d.Addr()), api.ProcTaskFiles, &api.TaskFilesRequest{Task: id})
	if err != nil {
		return nil, err
	}
	return res.Files, nil
}

// answered reports whether an error is the cluster's own answer. A manager that
// has no leader may be on the wrong side of a cut: another may have one.
func answered(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code != api.CodeUnavailable
}

// MoveOn implements Managers.
func (d *Directory) MoveOn() { d.leave(d.Addr()) }

// leave moves on from a manager, if it still is the current one, and ends the
// session with it.
func (d *Directory) leave(addr string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current != addr || len(d.addrs) == 0 {
		return
	}
	d.current = d.after(addr)
	if d.current != addr && d.drop != nil {
		d.drop()
	}
}

// after is who is tried after the manager at addr; d.mu is held. Those who say that they
// are alive come first, with this node itself, and after each round of them one of the
// others: it takes a while to find out that nobody is there.
func (d *Directory) after(addr string) string {
	alive := slices.Clone(d.hearsay())
	if d.home != "" && len(alive) > 0 {
		alive = append(alive, d.home)
	}
	others := slices.DeleteFunc(slices.Clone(d.addrs), func(known string) bool { return slices.Contains(alive, known) })
	if d.round < len(alive) || len(others) == 0 {
		d.round++
		if next := following(alive, addr); next != addr || len(others) == 0 {
			return next
		}
	}
	d.round = 0
	if len(alive) == 0 {
		return following(others, addr)
	}
	d.other = following(others, d.other)
	return d.other
}

// following is who comes after one of a list in it, round and round; after one that is
// not in it, the first.
func following(list []string, one string) string {
	return list[(slices.Index(list, one)+1)%len(list)]
}

package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// ErrExists means that a lab of that name is up already.
var ErrExists = errors.New("up already")

// record is what a lab writes down about itself.
type record struct {
	Options Options `json:"options"`
	// Complete is false until the cluster was healthy once.
	Complete bool `json:"complete"`
}

func recordPath(name string) string { return filepath.Join(stateRoot, name, "lab.json") }

func (r record) write() error {
	path := recordPath(r.Options.Name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("encode lab record: %w", err)
	}
	if err := os.WriteFile(path+".new", append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write lab record: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write lab record: %w", err)
	}
	return nil
}

// Open returns a lab that was made earlier, maybe by another process. It
// returns ErrNotFound if there is none, or none that was ever complete.
func Open(name string) (*Lab, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(recordPath(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, name)
	}
	if err != nil {
		return nil, fmt.Errorf("read record of lab %s: %w", name, err)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("record of lab %s is damaged (%w): %s removes what is left of it", name, err, downCommand(name))
	}
	options, err := r.Options.complete(r.Options.Binary)
	if err != nil || options.Name != name {
		return nil, fmt.Errorf("record of lab %s is damaged: %s removes what is left of it", name, downCommand(name))
	}
	if !r.Complete {
		return nil, fmt.Errorf("%w: %s was never complete: %s removes what is left of it", ErrNotFound, name, downCommand(name))
	}
	return newLab(options), nil
}

func downCommand(name string) string {
	if name == defaultName {
		return "`orch lab down`"
	}
	return "`orch lab down --name " + name + "`"
}

// Up makes a lab and returns when all its nodes are ready. What an earlier run
// left half-made under the same name is removed first; a lab that is up is
// ErrExists. On an error, or when ctx ends, nothing is left behind.
func Up(ctx context.Context, options Options) (*Lab, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find orch program: %w", err)
	}
	if options, err = options.complete(self); err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, options.Name)
	if err != nil {
		return nil, err
	}
	defer unlock()

	if earlier, err := Open(options.Name); err == nil && earlier.intact() {
		return nil, fmt.Errorf("lab %s is %w: remove it first with %s", options.Name, ErrExists, downCommand(options.Name))
	}
	if err := remove(ctx, options.Name); err != nil {
		return nil, fmt.Errorf("remove what is left of an earlier lab %s: %w", options.Name, err)
	}
	l := newLab(options)
	if err := l.up(ctx); err != nil {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		return nil, errors.Join(fmt.Errorf("bring up lab %s: %w", options.Name, err), remove(clean, options.Name))
	}
	return l, nil
}

func (l *Lab) up(ctx context.Context) error {
	if err := mountBPF(); err != nil {
		return err
	}
	if err := pingEngine(ctx); err != nil {
		return err
	}
	state := record{Options: l.options}
	if err := state.write(); err != nil {
		return err
	}
	if err := l.makeFabric(); err != nil {
		return err
	}
	if err := l.startCluster(ctx); err != nil {
		return err
	}
	state.Complete = true
	return state.write()
}

// intact reports whether the namespaces are there: after the machine started
// anew only files are.
func (l *Lab) intact() bool {
	for _, member := range []string{switchName, ClientName} {
		if !isNamespace(l.namespacePath(member)) {
			return false
		}
	}
	for _, n := range l.nodes {
		if !isNamespace(n.NetNS) {
			return false
		}
	}
	return true
}

// startCluster starts all daemons, makes the first node a cluster and has the
// others join it, all of them at once.
func (l *Lab) startCluster(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	first := l.nodes[0]
	others, startCtx := errgroup.WithContext(ctx)
	tokens := make(chan struct{}) // closed when there are tokens to join with
	var managerToken, workerToken string
	for _, n := range l.nodes[1:] {
		others.Go(func() error {
			if err := l.startDaemon(startCtx, n); err != nil {
				return err
			}
			select {
			case <-tokens:
			case <-startCtx.Done():
				return startCtx.Err()
			}
			token := workerToken
			if n.Manager {
				token = managerToken
			}
			if _, err := l.Orch(startCtx, n.Name, "join", token); err != nil {
				return fmt.Errorf("join %s: %w%s", n.Name, err, n.logTail())
			}
			return nil
		})
	}
	err := func() error {
		if err := l.startDaemon(startCtx, first); err != nil {
			return err
		}
		if _, err := l.Orch(startCtx, first.Name, "init", "--advertise-addr", first.Addr.String()); err != nil {
			return fmt.Errorf("init %s: %w%s", first.Name, err, first.logTail())
		}
		var err error
		if managerToken, err = l.joinToken(startCtx, "manager"); err != nil {
			return err
		}
		workerToken, err = l.joinToken(startCtx, "worker")
		return err
	}()
	if err != nil {
		cancel()
		if cause := others.Wait(); cause != nil && !errors.Is(cause, context.Canceled) {
			return cause // it is why the first node was interrupted
		}
		return err
	}
	close(tokens)
	if err := others.Wait(); err != nil {
		return err
	}
	return l.awaitReady(ctx)
}

func (l *Lab) joinToken(ctx context.Context, role string) (string, error) {
	out, err := l.Orch(ctx, l.nodes[0].Name, "join-token", role, "-q")
	if err != nil {
		return "", fmt.Errorf("get join token: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// awaitReady waits until the first node says that every node is ready.
func (l *Lab) awaitReady(ctx context.Context) error {
	const ready = "ready"
	for {
		states, err := l.nodeStates(ctx)
		waiting := len(l.nodes) - len(states)
		for _, state := range states {
			if state != ready {
				waiting++
			}
		}
		if err == nil && waiting == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("%d of %d nodes are not ready", waiting, len(l.nodes))
			}
			return fmt.Errorf("wait for the cluster: %w%s", err, l.nodes[0].logTail())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// nodeStates asks the first node what state each node is in.
func (l *Lab) nodeStates(ctx context.Context) ([]string, error) {
	out, err := l.Orch(ctx, l.nodes[0].Name, "node", "ls", "--format", "json")
	if err != nil {
		return nil, err
	}
	type node struct {
		State string `json:"state"`
	}
	var states []string
	// One list of objects, or one object after the other.
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var raw json.RawMessage
		if err := decoder.Decode(&raw); errors.Is(err, io.EOF) {
			return states, nil
		} else if err != nil {
			return nil, fmt.Errorf("read node list: %w", err)
		}
		var list []node
		if err := json.Unmarshal(raw, &list); err != nil {
			list = make([]node, 1)
			if err := json.Unmarshal(raw, &list[0]); err != nil {
				return nil, fmt.Errorf("read node list: %w", err)
			}
		}
		for _, n := range list {
			states = append(states, n.State)
		}
	}
}

// lock keeps two commands from making or removing one lab at the same time. An
// abstract socket goes away with its process, and leaves no file.
func lock(ctx context.Context, name string) (unlock func(), err error) {
	for {
		held, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@orch-lab/" + name, Net: "unix"})
		if err == nil {
			return func() { held.Close() }, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another command that works on lab %s: %w", name, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

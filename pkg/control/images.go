package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// imageTimeout bounds what a node may take to look an image up.
const imageTimeout = 8 * time.Second

// pinImages finds out what the images of specs stand for, and pins them to that.
// It refuses images that no node has and none can pull.
func (s *Server) pinImages(ctx context.Context, specs []api.ServiceSpec, resolve api.Resolve) (warnings []string, err error) {
	if resolve == api.ResolveNever {
		return nil, nil
	}
	snap := s.Replica.Snapshot()
	var mu sync.Mutex
	var missing []string
	var wg sync.WaitGroup
	found := make(map[string]*imageLookup) // by image and pin
	for i := range specs {
		task := &specs[i].Task
		if keepPin(snap, &specs[i], resolve) {
			continue
		}
		key := task.Image + " " + task.Pin.ID
		lookup := found[key]
		if lookup == nil {
			lookup = &imageLookup{name: task.Image, id: task.Pin.ID, auth: task.RegistryAuth, resolve: resolve}
			found[key] = lookup
			wg.Go(func() {
				if problem := s.lookUp(ctx, lookup); problem != "" {
					mu.Lock()
					defer mu.Unlock()
					missing = append(missing, problem)
				}
			})
		}
	}
	wg.Wait()
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, api.Errorf(api.CodeInvalid, "%s", strings.Join(missing, "\n"))
	}
	for i := range specs {
		task := &specs[i].Task
		if lookup := found[task.Image+" "+task.Pin.ID]; lookup != nil {
			task.Pin = lookup.pin
		}
	}
	for _, lookup := range found {
		if lookup.warning != "" {
			warnings = append(warnings, lookup.warning)
		}
	}
	slices.Sort(warnings)
	return warnings, nil
}

// keepPin gives a spec the pin that the service has, if its image is to be left
// as it is. Only a new name, or content that the caller knows, is looked up.
func keepPin(snap *api.Snapshot, spec *api.ServiceSpec, resolve api.Resolve) bool {
	old := snap.ServiceByName(spec.Name)
	if old == nil || resolve == api.ResolveAlways || spec.Task.Pin.ID != "" || old.Spec.Task.Image != spec.Task.Image {
		return false
	}
	spec.Task.Pin = old.Spec.Task.Pin
	return true
}

// imageLookup is the search for one image, and what came of it.
type imageLookup struct {
	name    string
	id      string // if the content is known
	auth    *api.RegistryAuth
	resolve api.Resolve

	pin     api.ImagePin
	warning string
}

// lookUp asks the nodes, and where none has the image, or it is to be looked up
// anew, its registry. It returns what is wrong, in a user's words.
func (s *Server) lookUp(ctx context.Context, l *imageLookup) (problem string) {
	ctx, cancel := context.WithTimeout(ctx, imageTimeout)
	defer cancel()
	req := api.ImageStatusRequest{Image: cmp.Or(l.id, l.name), Ask: api.AskNever, Auth: l.auth}
	answers := s.askImage(ctx, &req, "")
	l.settle(answers)
	if l.id == "" && (l.pin == (api.ImagePin{}) || l.resolve == api.ResolveAlways) {
		req.Ask = api.AskAlways
		fromRegistry := s.askImage(ctx, &req, "")
		l.fromRegistry(fromRegistry)
		answers = fromRegistry
	}
	if l.pin != (api.ImagePin{}) {
		return ""
	}
	return fmt.Sprintf("image %s: no node has it and none can pull it (%s)", l.name, reasons(answers))
}

// settle pins the image to what nodes have. Where they have different ones, the
// one that was made last is meant.
func (l *imageLookup) settle(answers []imageAnswer) {
	var newest *imageAnswer
	differ := false
	for i := range answers {
		a := &answers[i]
		if !a.status.Present {
			continue
		}
		if newest != nil && a.status.ID != newest.status.ID {
			differ = true
		}
		if newest == nil || a.status.Created > newest.status.Created {
			newest = a
		}
	}
	if newest == nil {
		return
	}
	l.pin = api.ImagePin{ID: newest.status.ID, Digest: newest.status.Digest}
	if l.pin.Digest == "" {
		l.pin.Platform = newest.status.Platform
	}
	if differ {
		l.warning = fmt.Sprintf("image %s is not the same on all nodes: the newest is taken, that of %s", l.name, newest.node.Hostname)
	}
}

// fromRegistry pins the image to what a registry has. The node's own copy counts
// only if it is that.
func (l *imageLookup) fromRegistry(answers []imageAnswer) {
	for _, a := range answers {
		if a.status.Pullable {
			if l.pin.Digest != a.status.Digest {
				l.pin = api.ImagePin{Digest: a.status.Digest}
			}
			return
		}
	}
}

// imageAnswer is what one node said.
type imageAnswer struct {
	node   *api.Node
	status api.ImageStatus
}

func reasons(answers []imageAnswer) string {
	var all []string
	for _, a := range answers {
		all = append(all, a.node.Hostname+": "+a.status.Reason)
	}
	if len(all) == 0 {
		all = append(all, "no node is ready")
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// askImage asks all ready nodes but one for an image, side by side.
func (s *Server) askImage(ctx context.Context, req *api.ImageStatusRequest, but api.NodeID) []imageAnswer {
	var answers []imageAnswer
	for _, n := range api.Sorted(s.Replica.Snapshot().Nodes) {
		if n.State == api.NodeReady && n.ID != but {
			answers = append(answers, imageAnswer{node: n})
		}
	}
	var wg sync.WaitGroup
	for i := range answers {
		wg.Go(func() {
			a := &answers[i]
			status, err := rpc.Call[api.ImageStatusRequest, api.ImageStatus](ctx, s.Peers.Node(a.node), api.ProcImageStatus, req)
			switch {
			case err == nil:
				a.status = *status
			case ctx.Err() != nil:
				a.status.Reason = "did not answer in time"
			default:
				a.status.Reason = err.Error()
			}
		})
	}
	wg.Wait()
	return answers
}

// ImageSources says which nodes have the image of a task of the caller's, and has
// them let the caller read it.
func (s *Server) ImageSources(ctx context.Context, req *api.ImageSourcesRequest) (*api.ImageSources, error) {
	if err := ownCall(ctx, req.Node); err != nil {
		return nil, err
	}
	task := s.Replica.Snapshot().Tasks[req.Task]
	if task == nil || task.NodeID != req.Node {
		return nil, api.Errorf(api.CodeNotFound, "task %s is not one of node %s", req.Task, req.Node)
	}
	image, pin := task.Spec.Image, task.Spec.Pin
	if task.Fetch != nil { // it has its own image already
		image, pin = task.Fetch.Image, task.Fetch.Pin
	}
	if pin.ID == "" {
		return nil, api.Errorf(api.CodeNotFound, "no node had image %s when it was deployed", image)
	}
	ctx, cancel := context.WithTimeout(ctx, imageTimeout)
	defer cancel()
	ask := &api.ImageStatusRequest{Image: pin.ID, Ask: api.AskNever, Grant: req.Node}
	sources := &api.ImageSources{Nodes: []api.Node{}}
	for _, a := range s.askImage(ctx, ask, req.Node) {
		if a.status.Present {
			sources.Nodes = append(sources.Nodes, api.Node{ID: a.node.ID, Hostname: a.node.Hostname, Addr: a.node.Addr, APIPort: a.node.APIPort})
		}
	}
	// Each begins with another, so that one that everybody needs is not read
	// from one node alone.
	if n := len(sources.Nodes); n > 1 {
		first := int(req.Node[len(req.Node)-1]) % n
		sources.Nodes = slices.Concat(sources.Nodes[first:], sources.Nodes[:first])
	}
	return sources, nil
}

// ImageHolders says which nodes have an image.
func (s *Server) ImageHolders(ctx context.Context, req *api.ImageRequest) (*api.ImageHolders, error) {
	ctx, cancel := context.WithTimeout(ctx, imageTimeout)
	defer cancel()
	holders := &api.ImageHolders{Nodes: []string{}}
	for _, a := range s.askImage(ctx, &api.ImageStatusRequest{Image: req.ID, Ask: api.AskNever}, "") {
		if a.status.Present {
			holders.Nodes = append(holders.Nodes, a.node.Hostname)
		}
	}
	return holders, nil
}

package control

import (
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

// checkImages refuses services whose image no node has and none can pull.
func (s *Server) checkImages(ctx context.Context, specs []api.ServiceSpec) error {
	var images []string
	for _, spec := range specs {
		if !slices.Contains(images, spec.Task.Image) {
			images = append(images, spec.Task.Image)
		}
	}
	var missing []string
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, image := range images {
		wg.Go(func() {
			if reasons, ok := s.findImage(ctx, image); !ok {
				mu.Lock()
				defer mu.Unlock()
				missing = append(missing, fmt.Sprintf("image %s: no node has it and none can pull it (%s)", image, reasons))
			}
		})
	}
	wg.Wait()
	if len(missing) > 0 {
		slices.Sort(missing)
		return api.Errorf(api.CodeInvalid, "%s", strings.Join(missing, "\n"))
	}
	return nil
}

// findImage asks all ready nodes for an image until one has it or can pull it.
func (s *Server) findImage(ctx context.Context, image string) (reasons string, found bool) {
	ctx, cancel := context.WithTimeout(ctx, imageTimeout)
	defer cancel()
	type answer struct {
		ok     bool
		reason string
	}
	answers := make(chan answer)
	asked := 0
	for _, n := range api.Sorted(s.Replica.Snapshot().Nodes) {
		if n.State != api.NodeReady {
			continue
		}
		asked++
		go func() {
			status, err := rpc.Call[api.ImageStatusRequest, api.ImageStatus](ctx, s.Peers.Node(n), api.ProcImageStatus, &api.ImageStatusRequest{Image: image})
			a := answer{}
			if err != nil {
				a.reason = fmt.Sprintf("%s: %v", n.Hostname, err)
			} else {
				a = answer{status.Present || status.Pullable, n.Hostname + ": " + status.Reason}
			}
			select {
			case answers <- a:
			case <-ctx.Done():
			}
		}()
	}
	var all []string
	for range asked {
		select {
		case a := <-answers:
			if a.ok {
				return "", true
			}
			all = append(all, a.reason)
		case <-ctx.Done():
			all = append(all, "a node did not answer in time")
		}
	}
	if asked == 0 {
		all = append(all, "no node is ready")
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), "; "), false
}

package control

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/rpc"
)

// pathsTimeout bounds what a node may take to look for paths.
const pathsTimeout = 3 * time.Second

// checkBinds asks the nodes that may run each service whether they have the paths
// that it mounts. It refuses a service that could start nowhere, and warns where
// it could start on some nodes only. A node that does not answer may have all.
func (s *Server) checkBinds(ctx context.Context, specs []api.ServiceSpec) (warnings []string, err error) {
	nodes := s.Replica.Snapshot().Nodes
	wanted := make(map[api.NodeID]map[string]bool)
	for i := range specs {
		for _, n := range candidates(nodes, &specs[i]) {
			for _, path := range bindSources(&specs[i]) {
				if wanted[n.ID] == nil {
					wanted[n.ID] = make(map[string]bool)
				}
				wanted[n.ID][path] = true
			}
		}
	}
	missing := s.askPaths(ctx, nodes, wanted)
	var problems []string
	for i := range specs {
		for _, path := range bindSources(&specs[i]) {
			problem, warning := judgeBind(&specs[i], path, candidates(nodes, &specs[i]), missing)
			problems, warnings = append(problems, problem...), append(warnings, warning...)
		}
	}
	if len(problems) > 0 {
		return nil, api.Errorf(api.CodeInvalid, "%s", strings.Join(problems, "\n"))
	}
	return warnings, nil
}

// judgeBind says what is wrong with a path that candidates may lack, in a user's
// words.
func judgeBind(spec *api.ServiceSpec, path string, candidates []*api.Node, missing map[api.NodeID][]string) (problem, warning []string) {
	var without []string
	for _, n := range candidates {
		if slices.Contains(missing[n.ID], path) {
			without = append(without, n.Hostname)
		}
	}
	switch {
	case len(without) == 0:
	case len(without) == len(candidates):
		problem = []string{fmt.Sprintf("service %s mounts %s, which is on none of the nodes that may run it (%s): make it there, or use a volume",
			spec.Name, path, strings.Join(without, ", "))}
	default:
		warning = []string{fmt.Sprintf("service %s mounts %s, which is not on %s: its tasks cannot start there; make it, or add a constraint",
			spec.Name, path, strings.Join(without, ", "))}
	}
	return problem, warning
}

// candidates are the ready nodes that satisfy a service's constraints, by name.
func candidates(nodes map[api.NodeID]*api.Node, spec *api.ServiceSpec) []*api.Node {
	var out []*api.Node
	for _, n := range nodes {
		if _, unmet := spec.Placement.Unmet(n); !unmet && n.State == api.NodeReady {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b *api.Node) int { return strings.Compare(a.Hostname, b.Hostname) })
	return out
}

// bindSources are the paths of nodes that a service mounts, but for those whose
// names each node fills in.
func bindSources(spec *api.ServiceSpec) []string {
	var out []string
	for _, m := range spec.Task.Mounts {
		if m.Type == api.MountBind && !strings.Contains(m.Source, "{{") && !slices.Contains(out, m.Source) {
			out = append(out, m.Source)
		}
	}
	return out
}

// askPaths asks nodes, side by side, which of the paths that are wanted they lack.
func (s *Server) askPaths(ctx context.Context, nodes map[api.NodeID]*api.Node, wanted map[api.NodeID]map[string]bool) map[api.NodeID][]string {
	ctx, cancel := context.WithTimeout(ctx, pathsTimeout)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	missing := make(map[api.NodeID][]string)
	for id, paths := range wanted {
		wg.Go(func() {
			req := &api.Paths{Paths: slices.Sorted(maps.Keys(paths))}
			res, err := rpc.Call[api.Paths, api.Paths](ctx, s.Peers.Node(nodes[id]), api.ProcMissingPaths, req)
			if err != nil {
				s.Log.Debug("a node did not say which paths it has", "node", nodes[id].Hostname, "err", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			missing[id] = res.Paths
		})
	}
	wg.Wait()
	return missing
}

package control

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/orch-dev/orch/pkg/api"
)

// checkEncryption refuses services on encrypted networks while a node that may run
// a task of one, or has to forward its clients, cannot encrypt.
func checkEncryption(snap *api.Snapshot, specs []api.ServiceSpec) error {
	var problems []string
	for i := range specs {
		spec := &specs[i]
		network := spec.EncryptedNetwork(snap)
		if network == nil {
			continue
		}
		nodes, why := candidates(snap.Nodes, spec), "may run it"
		if slices.ContainsFunc(spec.Ports, func(p api.Port) bool { return !p.Host }) {
			nodes, why = api.Sorted(snap.Nodes), "may run it or forward its clients"
		}
		var lacking []string
		for _, n := range nodes {
			if lacks := n.LacksEncryption(); lacks != "" {
				lacking = append(lacking, fmt.Sprintf("%s (%s)", n.Hostname, lacks))
			}
		}
		if len(lacking) > 0 {
			slices.Sort(lacking)
			problems = append(problems, fmt.Sprintf("service %s: its network %s is encrypted, and nodes that %s cannot encrypt: %s; mend them, keep the service off them (deploy.placement.constraints), or leave encrypted out",
				spec.Name, network.Name, why, strings.Join(lacking, ", ")))
		}
	}
	if len(problems) > 0 {
		return api.Errorf(api.CodeInvalid, "%s", strings.Join(problems, "\n"))
	}
	return nil
}

// dropKeysOfOthers takes away keys that another node has reported: one that claims
// them would draw the other's packets, which it could not read.
func dropKeysOfOthers(snap *api.Snapshot, node *api.Node) {
	if node.Info.Encryption == nil || len(node.Info.Encryption.Keys) == 0 {
		return
	}
	own := *node.Info.Encryption
	own.Keys = slices.DeleteFunc(slices.Clone(own.Keys), func(key api.TunnelKey) bool {
		for _, n := range snap.Nodes {
			if n.ID != node.ID && bytes.Equal(n.TunnelKey(key.Epoch), key.Public) {
				return true
			}
		}
		return false
	})
	node.Info.Encryption = &own
}

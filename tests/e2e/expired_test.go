package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/api"
	"github.com/orch-dev/orch/pkg/lab"
)

// A worker that was off until its certificate had ended is refused, says why, and is a
// member again when it was made new as the documents say. It takes as long as the
// shortest certificate lives, at the end of which the cluster goes on by itself.
func TestExpired(t *testing.T) {
	t.Parallel() // it waits, most of the time
	const node = "n2"
	c := newCluster(t, lab.Options{Nodes: 2, Managers: 1, Datapath: lab.DatapathTC})
	c.secret(t, "token", "planted-"+rand(t))
	spec, err := os.ReadFile("testdata/steady.yaml")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "compose.yaml") // what else says the image is the whole process's
	if err := os.WriteFile(file, bytes.ReplaceAll(spec, []byte("${PROBE_IMAGE}"), []byte(probeImage("v1"))), 0o600); err != nil {
		t.Fatal(err)
	}
	c.run(t, "n1", "deploy", "-c", file, steady)
	c.run(t, "n1", "cluster", "update", "--certificate-life", api.MinCertificateLife.String())
	var ends time.Time
	await(t, patience, "the worker has a certificate that ends soon", func() error {
		var info api.Info
		if err := json.Unmarshal([]byte(c.run(t, node, "info", "--format", "json")), &info); err != nil {
			return err
		}
		if ends = info.CertificateEnds; time.Until(ends) > api.MinCertificateLife {
			return fmt.Errorf("it ends %v", ends)
		}
		return nil
	})
	if err := c.StopDaemon(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	await(t, 2*api.MinCertificateLife, "the certificate has ended", func() error {
		if rest := time.Until(ends); rest > 0 {
			return fmt.Errorf("it is good for another %v", rest)
		}
		return nil
	})
	if err := c.Start(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	await(t, patience, "the node says what is wrong", func() error {
		log, err := os.ReadFile(c.find(node).Log())
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, "cannot renew this node's certificate") && strings.Contains(line, "expired") {
				return nil
			}
		}
		return errors.New("nothing of it is in its log")
	})
	state := func() (string, error) {
		nodes, err := c.nodes(t.Context(), "n1")
		at := slices.IndexFunc(nodes, func(n api.NodeEntry) bool { return n.Hostname == node })
		if err != nil || at < 0 {
			return "no member", err
		}
		return string(nodes[at].State), nil
	}
	if now, err := state(); err != nil || now != string(api.NodeDown) {
		t.Errorf("a node whose certificate has ended is %s, want %s: %v", now, api.NodeDown, err)
	}

	c.run(t, "n1", "node", "rm", node)
	c.run(t, node, "leave", "--force")
	if left, err := c.engine.containers(t.Context(), c.Options().Name, true, labelNode+"="+node); err != nil || len(left) > 0 {
		t.Errorf("what the node ran as another is still there: %v, %v", left, err)
	}
	c.joinAs(t, node, api.RoleWorker, "n1")
	await(t, patience, "the node is a member again", func() error { return c.ready(t.Context(), "n1", node) })
	c.settle(t)
}

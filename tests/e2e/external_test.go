package e2e

import (
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/orch-dev/orch/pkg/lab"
	"github.com/orch-dev/orch/tests/cfssl"
)

// testAuthorityOutside has the cluster's certificates signed by an authority on
// another machine from now on, while clients call: every node gets one of it, and
// managers can sign nothing by themselves any more.
func testAuthorityOutside(t *testing.T, c *cluster) {
	var listener net.Listener
	if err := c.outside().in(func() (err error) {
		listener, err = net.Listen("tcp", net.JoinHostPort(lab.ClientAddr.String(), "0"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ca := cfssl.StartOn(t, "corporate", listener)
	ca.Trust(c.authority(t).Authority)
	root := filepath.Join(t.TempDir(), "root.pem")
	if err := os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Cert.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}

	load := c.startLoad(t, c.names(), blogPort)
	start := time.Now()
	says(t, c.run(t, "n1", "ca", "rotate", "--external-ca", "url="+ca.URL+",cacert="+root, "--ca-cert", root), []string{"all nodes have certificates"})
	took := time.Since(start)
	c.trusted(t, c.names()...)
	says(t, c.run(t, "n1", "ca"), []string{ca.URL, "corporate"})
	says(t, c.run(t, "n1", "cluster", "inspect"), []string{ca.URL})
	if got := ca.Signed(); len(got) < len(c.names()) {
		t.Errorf("it has signed for %v", got)
	}
	t.Logf("all nodes have a certificate from outside after %v", took.Round(10*time.Millisecond))

	c.run(t, "n1", "user", "add", "outsider", "-o", "-")
	c.run(t, "n1", "user", "rm", "outsider")
	ca.Refuse("closed on Sundays")
	for _, args := range [][]string{{"user", "add", "late", "-o", "-"}, {"ca", "rotate"}} {
		out, err := c.Orch(t.Context(), "n1", args...)
		if err == nil {
			t.Errorf("orch %v: %s", args, out)
			continue
		}
		says(t, err.Error(), []string{ca.URL})
	}
	restart(t, c, "n2")
	c.settle(t)
	load.end()
	load.noFailures(t, "while the authority moves out", start)
}

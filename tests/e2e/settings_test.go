package e2e

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/orch-dev/orch/pkg/api"
)

// testSettings changes the managers' timers, the life of certificates and the gossip
// key while clients call. The timers hold on every manager at once, also on one that
// was restarted, every node renews, and has the new key alone in the end.
func testSettings(t *testing.T, c *cluster) {
	load := c.startLoad(t, c.names(), blogPort)
	start, lost := time.Now(), lostStreams(t, c)
	begun := time.Now()
	says(t, c.run(t, "n1", "cluster", "update", "--election-timeout", "400ms"), []string{"400ms to 800ms"})
	took := time.Since(begun)
	for _, node := range c.names() {
		says(t, c.run(t, node, "info"), []string{"400ms to 800ms"})
	}
	if now := lostStreams(t, c); now != lost {
		t.Errorf("%d streams to the managers were lost", now-lost)
	}
	says(t, c.run(t, "n1", "cluster", "inspect"), []string{"400ms to 800ms", "4s", "Autolock"})

	restart(t, c, "n2")
	c.settle(t)
	if kept := c.identity(t, "n2").ElectionTimeout; kept != 400*time.Millisecond {
		t.Errorf("n2 keeps %v for its next start", kept)
	}
	says(t, c.run(t, "n2", "info"), []string{"400ms to 800ms"})

	says(t, c.run(t, "n1", "cluster", "update", "--certificate-life", "5m"), nil)
	for _, node := range c.names() {
		await(t, patience, node+" has a certificate with a short life", func() error {
			cert, err := x509.ParseCertificate(c.identity(t, node).Certificate)
			if err == nil && time.Until(cert.NotAfter) > 5*time.Minute {
				err = fmt.Errorf("it ends %v", cert.NotAfter)
			}
			return err
		})
	}

	old := c.identity(t, "n1").GossipKey
	begun = time.Now()
	says(t, c.run(t, "n1", "cluster", "rotate-gossip-key"), []string{"was replaced"})
	rekeyed := time.Since(begun)
	for _, node := range c.names() {
		want := kept{GossipKey: c.identity(t, "n1").GossipKey}
		await(t, patience, node+" has the new gossip key alone", func() error {
			id := c.identity(t, node)
			if diff := cmp.Diff(want, kept{GossipKey: id.GossipKey, OtherGossipKeys: id.OtherGossipKeys}); diff != "" || bytes.Equal(id.GossipKey, old) {
				return fmt.Errorf("(-want +got):\n%s", diff)
			}
			return nil
		})
	}

	c.run(t, "n1", "cluster", "update", "--certificate-life", "2160h", "--election-timeout", api.DefaultElectionTimeout.String())
	t.Logf("all managers went by another election timeout after %v, all nodes by another gossip key after %v",
		took.Round(10*time.Millisecond), rekeyed.Round(10*time.Millisecond))

	for name, args := range map[string][]string{
		"give one from 50ms to 30s":     {"--election-timeout", "1ms"},
		"give a lease of at least 6s":   {"--election-timeout", "3s"},
		"give one from 2s to 10m0s":     {"--lease", "1s"},
		"give one from 1m0s":            {"--certificate-life", "1s"},
		"say what to change of the clu": nil,
	} {
		if out, err := c.Orch(t.Context(), "n1", append([]string{"cluster", "update"}, args...)...); err == nil {
			t.Errorf("orch cluster update %v: %s", args, out)
		} else {
			says(t, err.Error(), []string{name})
		}
	}
	c.settle(t)
	load.end()
	load.noFailures(t, "while the settings are changed", start)
}

// kept is what a node keeps of itself, as far as tests want to know it.
type kept struct {
	Certificate     []byte
	GossipKey       []byte
	OtherGossipKeys [][]byte
	ElectionTimeout time.Duration
}

func (c *cluster) identity(t *testing.T, node string) (id kept) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(c.find(node).StateDir, "node.json"))
	if err == nil {
		err = json.Unmarshal(data, &id)
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

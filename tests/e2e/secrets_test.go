package e2e

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/orch-dev/orch/pkg/pki"
)

// testSecrets looks for what must stay secret in all that the cluster says: the
// join tokens, the key of gossip and the nodes' own keys.
func testSecrets(t *testing.T, c *cluster) {
	secrets := map[string][]byte{}
	for _, role := range []string{"worker", "manager"} {
		token, err := pki.ParseToken(c.run(t, "n1", "join-token", role, "-q"))
		if err != nil {
			t.Fatal(err)
		}
		secrets["the "+role+"'s token"] = []byte(token.Secret)
	}
	said := map[string]string{}
	for _, n := range c.Nodes() {
		var identity struct{ Key, GossipKey []byte }
		data, err := os.ReadFile(filepath.Join(n.StateDir, "node.json"))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &identity); err != nil || len(identity.Key) == 0 || len(identity.GossipKey) == 0 {
			t.Fatalf("%s keeps no keys: %v", n.Name, err)
		}
		secrets["the key of "+n.Name], secrets["the key of gossip"] = identity.Key, identity.GossipKey
		log, err := os.ReadFile(n.Log())
		if err != nil {
			t.Fatal(err)
		}
		said["the log of "+n.Name] = string(log)
		for _, args := range [][]string{
			{"info"}, {"info", "--format", "json"}, {"node", "ls", "--format", "json"}, {"service", "ls", "--format", "json"},
			{"stack", "ls", "--format", "json"}, {"stack", "ps", blog, "--format", "json"}, {"service", "ps", "blog_web", "--format", "json"},
		} {
			said["orch "+strings.Join(args, " ")+" on "+n.Name] = c.run(t, n.Name, args...)
		}
	}
	for where, text := range said {
		if text == "" {
			t.Errorf("%s is empty", where)
		}
		for what, secret := range secrets {
			for _, form := range []string{string(secret), base64.StdEncoding.EncodeToString(secret), hex.EncodeToString(secret)} {
				if strings.Contains(text, form) {
					t.Errorf("%s is in %s", what, where)
				}
			}
		}
	}
}

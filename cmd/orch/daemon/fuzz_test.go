package daemon

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzIdentity looks for files in the place of a node's identity that make its daemon
// panic, that it refuses without saying which file, or that it takes for an identity
// which it would write as another.
func FuzzIdentity(f *testing.F) {
	dir := f.TempDir()
	if _, err := loadIdentity(dir); err != nil {
		f.Fatal(err)
	}
	alone, err := os.ReadFile(identityFile(dir))
	if err != nil {
		f.Fatal(err)
	}
	founded(f, dir)
	member, err := os.ReadFile(identityFile(dir))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(alone)
	f.Add(member)
	f.Add([]byte(strings.Replace(string(member), `"role": "manager"`, `"role": "worker"`, 1)))
	f.Add([]byte(`{"node":"n","clusterID":"c","sealed":"AG9yY2gx","electionTimeout":-1,"pool":"x","addr":"10.0.0.1"}`))
	f.Add([]byte(`{"node":"n","key":"AAAA","managers":[""],"later":{}}`))
	f.Add([]byte(`{}`))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(identityFile(dir), data, 0o600); err != nil {
			t.Fatal(err)
		}
		id, err := loadIdentity(dir)
		if err != nil {
			if !strings.Contains(err.Error(), identityFile(dir)) {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		if id.member() && id.Sealed == nil && (id.Role == "" || id.credentials.Identity.Role != id.Role) {
			t.Fatalf("%q: its role is %q", data, id.Role)
		}
		if err := id.save(dir); err != nil {
			t.Fatalf("%q was read and cannot be written: %v", data, err)
		}
		again, err := loadIdentity(dir)
		if err != nil {
			t.Fatalf("%q was read, and what was written of it is refused: %v", data, err)
		}
		if diff := cmp.Diff(asFile(t, id), asFile(t, again)); diff != "" {
			t.Fatalf("%q (-read +read again):\n%s", data, diff)
		}
	})
}

// asFile is an identity without what is made of it.
func asFile(t *testing.T, id *identity) string {
	t.Helper()
	text, err := json.MarshalIndent(id, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

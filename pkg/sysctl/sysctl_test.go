package sysctl

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// namespaced runs the test on a thread in a network namespace of its own, which
// ends with the thread.
func namespaced(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func TestRestore(t *testing.T) {
	namespaced(t)
	const (
		forward   = "net/ipv4/ip_forward"
		device    = "net/ipv4/conf/lo/forwarding"
		redirects = "net/ipv4/conf/all/accept_redirects"
		local     = "net/ipv4/conf/lo/accept_local"
		port      = "net/ipv4/ip_unprivileged_port_start"
		gone      = "net/ipv4/conf/gone/rp_filter"
	)
	for _, s := range [][2]string{{forward, "0"}, {device, "1"}, {redirects, "0"}, {local, "0"}, {port, "1024"}} {
		if err := write(s[0], s[1]); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), "sysctls.json")
	for _, s := range [][2]string{{forward, "1"}, {local, "1"}, {port, "80"}, {port, "81"}, {local, "1"}} {
		if err := New(path).Set(s[0], s[1]); err != nil { // each time as another process
			t.Fatal(err)
		}
		if got, err := read(s[0]); err != nil || got != s[1] {
			t.Errorf("%s is %s, want %s: %v", s[0], got, s[1], err)
		}
	}
	if err := write(local, "0"); err != nil { // somebody else, who wants it so
		t.Fatal(err)
	}
	j := New(path)
	if err := j.write(append(must(j.read()), note{Key: gone, Was: "1", Set: "2"})); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to do
		if err := j.Restore(); err != nil {
			t.Fatal(err)
		}
		for _, s := range [][2]string{{forward, "0"}, {device, "1"}, {redirects, "0"}, {local, "0"}, {port, "1024"}} {
			if got, err := read(s[0]); err != nil || got != s[1] {
				t.Errorf("%s is %s, want %s as before: %v", s[0], got, s[1], err)
			}
		}
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the note is left: %v", err)
	}
	if err := j.Set("net/ipv4/no_such", "1"); err == nil {
		t.Error("a setting that is not there was set")
	}
}

func must(notes []note, err error) []note {
	if err != nil {
		panic(err)
	}
	return notes
}

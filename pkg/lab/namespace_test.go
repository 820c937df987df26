package lab

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Whoever makes the directory of namespaces a mount of its own after one was made, as
// the ip command does unless it is one, does not keep that from being removed.
func TestNamespaceIsRemovedAfterOthersBegan(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	dir := filepath.Join(t.TempDir(), "netns")
	path := filepath.Join(dir, "one")
	t.Cleanup(func() {
		for unix.Unmount(path, unix.MNT_DETACH) == nil || unix.Unmount(dir, unix.MNT_DETACH) == nil {
		}
	})
	if err := addNamespace(path); err != nil {
		t.Fatal(err)
	}
	if unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "") != nil {
		if err := unix.Mount(dir, dir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeNamespace(path); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("its name is left: %v", err)
	}
}

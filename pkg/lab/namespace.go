package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// addNamespace makes a named network namespace, as the ip command does.
func addNamespace(path string) error {
	if err := makeNamespaceDirectory(filepath.Dir(path)); err != nil {
		return fmt.Errorf("make directory of network namespaces: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0)
	if err != nil {
		return fmt.Errorf("make network namespace: %w", err)
	}
	file.Close()

	result := make(chan error, 1)
	go func() { result <- bindNewNamespace(path) }()
	if err := <-result; err != nil {
		return errors.Join(fmt.Errorf("make network namespace %s: %w", path, err), os.Remove(path))
	}
	return nil
}

// makeNamespaceDirectory makes it a mount point of its own that others share. The ip
// command does so when it makes its first namespace: if that came after this lab's, it
// would hide their mounts, and they could never be removed.
func makeNamespaceDirectory(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	share := func() error { return unix.Mount("", dir, "none", unix.MS_SHARED|unix.MS_REC, "") }
	err := share()
	if errors.Is(err, unix.EINVAL) { // it is none yet
		if err = unix.Mount(dir, dir, "none", unix.MS_BIND|unix.MS_REC, ""); err == nil {
			err = share()
		}
	}
	return err
}

// bindNewNamespace makes a namespace by being in it for a moment.
func bindNewNamespace(path string) error {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, "")
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays locked, and so ends with this goroutine.
		return errors.Join(err, back)
	}
	runtime.UnlockOSThread()
	return err
}

// removeNamespace removes the name. The namespace itself goes when nothing is
// in it any more.
func removeNamespace(path string) error {
	for {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			break // not mounted, or not any more
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	return nil
}

// isNamespace reports whether path is a live namespace, and not the empty file
// that a run killed half way leaves behind.
func isNamespace(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// sameNamespace compares two namespaces by their files.
func sameNamespace(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// mountBPF mounts the bpf file system, which pins need, unless it is there.
func mountBPF() error {
	const path = "/sys/fs/bpf"
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return fmt.Errorf("look up %s: %w", path, err)
	}
	if fs.Type == unix.BPF_FS_MAGIC {
		return nil
	}
	if err := unix.Mount("bpf", path, "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount %s: %w", path, err)
	}
	return nil
}

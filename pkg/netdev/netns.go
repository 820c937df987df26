package netdev

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Do calls fn on a thread that is in the network namespace at path, and comes
// back. fn runs on a goroutine of its own: a process that it starts and a
// socket that it opens belong to the namespace, goroutines that it starts do
// not.
func Do(path string, fn func() error) error {
	ns, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer ns.Close()

	result := make(chan error, 1)
	go func() { result <- doIn(ns, fn) }()
	return <-result
}

func doIn(ns *os.File, fn func() error) (err error) {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer home.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace %s: %w", ns.Name(), err)
	}
	defer func() {
		if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
			// The thread stays locked, so that it ends with this goroutine
			// and nothing else ever runs in the wrong namespace.
			err = errors.Join(err, fmt.Errorf("leave network namespace %s: %w", ns.Name(), back))
			return
		}
		runtime.UnlockOSThread()
	}()
	return fn()
}

// Package quiet keeps a daemon that has nothing to do from using a CPU for it.
//
// What an idle daemon costs is to be woken, a hundred times a second: to take and
// answer heartbeats and probes, each of which is a few microseconds of work. Most of
// the rest is Go's runtime. It looks for more to do with as many threads as there are
// CPUs (Processors), and wakes a thread that watches the others (sysmon) at each timer
// and at each system call that might wait: Conn, PacketConn and Ticker make theirs
// without that, Timers has it sleep longer.
package quiet

import "syscall"

// direct makes a system call that Go's scheduler is not told of. It is told of others
// because they may wait, so that something else can run meanwhile; this one must not.
// It is made again when a signal interrupts it.
//
//go:uintptrescapes
func direct(trap, a1, a2, a3, a4, a5, a6 uintptr) (uintptr, syscall.Errno) {
	for {
		n, _, errno := syscall.RawSyscall6(trap, a1, a2, a3, a4, a5, a6)
		if errno != syscall.EINTR {
			return n, errno
		}
	}
}

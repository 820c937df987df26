package quiet

import (
	"encoding/binary"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ticker is a time.Ticker whose clock is a file of the kernel's (timerfd_create(2)),
// which is waited for like a connection.
type Ticker struct {
	// C has room for one tick; those that nobody waits for are left out.
	C    <-chan time.Time
	file *os.File
	raw  syscall.RawConn
}

// NewTicker returns one that does not tick yet.
func NewTicker() (*Ticker, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make timer: %w", err)
	}
	file := os.NewFile(uintptr(fd), "timer")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("make timer: %w", err)
	}
	c := make(chan time.Time, 1)
	t := &Ticker{C: c, file: file, raw: raw}
	go t.run(c)
	return t, nil
}

// run ends with Close.
func (t *Ticker) run(c chan<- time.Time) {
	for t.wait() {
		select {
		case c <- time.Now():
		default:
		}
	}
}

// wait returns when it ticks; false: it is closed.
func (t *Ticker) wait() bool {
	var ticks [8]byte
	var n uintptr
	err := t.raw.Read(func(fd uintptr) bool {
		var errno syscall.Errno
		n, errno = direct(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&ticks)), unsafe.Sizeof(ticks), 0, 0, 0)
		return errno != syscall.EAGAIN
	})
	return err == nil && n == unsafe.Sizeof(ticks) && binary.NativeEndian.Uint64(ticks[:]) > 0
}

// Reset has it tick each d from now on, or not at all if that is 0.
func (t *Ticker) Reset(d time.Duration) {
	every := unix.NsecToTimespec(int64(d))
	_ = t.raw.Control(func(fd uintptr) { // refused when it is closed
		_ = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Interval: every, Value: every}, nil)
	})
}

// Close ends it. C is not closed.
func (t *Ticker) Close() error { return t.file.Close() }

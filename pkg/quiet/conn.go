package quiet

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// conn is a TCP connection that is read and written by direct system calls.
type conn struct {
	net.Conn // *net.TCPConn
	raw      syscall.RawConn
	in, out  transfer
}

// transfer is what one call reads or writes.
type transfer struct {
	mu   sync.Mutex // held by the call
	trap uintptr
	b    []byte
	n    int
	err  error
	try  func(fd uintptr) (done bool) // once, as it would be made anew for each call
}

// Conn returns one of TCP as one whose system calls are direct; any other as it is.
func Conn(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c // it is closed, and says so
	}
	q := &conn{Conn: c, raw: raw}
	q.in.trap, q.out.trap = syscall.SYS_READ, syscall.SYS_WRITE
	q.in.try, q.out.try = q.in.once, q.out.once
	return q
}

// once makes the system call. It is not done where that would have to wait.
func (t *transfer) once(fd uintptr) (done bool) {
	n, errno := direct(t.trap, fd, uintptr(unsafe.Pointer(&t.b[0])), uintptr(len(t.b)), 0, 0, 0)
	if errno == syscall.EAGAIN {
		return false
	}
	if t.n = int(n); errno != 0 {
		t.n, t.err = 0, errno
	}
	return true
}

// do has the poller wait for what once needs.
func (t *transfer) do(wait func(func(fd uintptr) bool) error, b []byte) (int, error) {
	t.b, t.n, t.err = b, 0, nil
	err := wait(t.try)
	t.b = nil
	if err == nil {
		err = t.err
	}
	return t.n, err
}

func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.in.mu.Lock()
	defer c.in.mu.Unlock()
	n, err := c.in.do(c.raw.Read, b)
	if err == nil && n == 0 {
		return 0, io.EOF
	}
	return n, c.explain("read", err)
}

func (c *conn) Write(b []byte) (int, error) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	written := 0
	for written < len(b) {
		n, err := c.out.do(c.raw.Write, b[written:])
		written += n
		if err != nil {
			return written, c.explain("write", err)
		}
	}
	return written, nil
}

func (c *conn) explain(op string, err error) error {
	return explain(op, "tcp", err, c.LocalAddr(), c.RemoteAddr())
}

// explain gives an error the form that those of package net have.
func explain(op, network string, err error, local, remote net.Addr) error {
	var polled *net.OpError // closed, or too late
	var errno syscall.Errno
	switch {
	case err == nil:
		return nil
	case errors.As(err, &polled):
		err = polled.Err
	case errors.As(err, &errno):
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: network, Source: local, Addr: remote, Err: err}
}

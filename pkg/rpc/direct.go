package rpc

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// directConn is a TCP connection that is read and written by system calls that
// Go's scheduler is not told of.
//
// It is told of system calls because they may wait, so that something else can run
// meanwhile; for that it wakes a thread that watches them, if that sleeps. Those of
// a connection never wait: while there is nothing to read the poller does. In a
// daemon that has nothing to do but to answer heartbeats each message would wake
// that thread twice, which costs as much as the message.
type directConn struct {
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

// direct returns conn as such a connection, if it is one of TCP.
func direct(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn // it is closed, and says so
	}
	d := &directConn{Conn: conn, raw: raw}
	d.in.trap, d.out.trap = syscall.SYS_READ, syscall.SYS_WRITE
	d.in.try, d.out.try = d.in.once, d.out.once
	return d
}

// once makes the system call. It is not done where that would have to wait.
func (t *transfer) once(fd uintptr) (done bool) {
	for {
		n, _, errno := syscall.RawSyscall(t.trap, fd, uintptr(unsafe.Pointer(&t.b[0])), uintptr(len(t.b)))
		switch errno {
		case 0:
			t.n = int(n)
			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			t.err = errno
			return true
		}
	}
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

func (d *directConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	d.in.mu.Lock()
	defer d.in.mu.Unlock()
	n, err := d.in.do(d.raw.Read, b)
	if err == nil && n == 0 {
		return 0, io.EOF
	}
	return n, d.explain("read", err)
}

func (d *directConn) Write(b []byte) (int, error) {
	d.out.mu.Lock()
	defer d.out.mu.Unlock()
	written := 0
	for written < len(b) {
		n, err := d.out.do(d.raw.Write, b[written:])
		written += n
		if err != nil {
			return written, d.explain("write", err)
		}
	}
	return written, nil
}

// explain gives an error the form that those of package net have.
func (d *directConn) explain(op string, err error) error {
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
	return &net.OpError{Op: op, Net: "tcp", Source: d.LocalAddr(), Addr: d.RemoteAddr(), Err: err}
}

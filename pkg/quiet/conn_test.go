package quiet

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// pair are both ends of a connection: one that is tested, and one of package net.
func pair(t *testing.T) (tested, other *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

// What goes in comes out, both ways at a time, also where it has to wait for room
// and for more.
func TestDirectCarries(t *testing.T) {
	a, b := pair(t)
	tested := Conn(a)
	if _, is := tested.(*conn); !is {
		t.Fatalf("a TCP connection became %T", tested)
	}
	sent := make([]byte, 8<<20) // more than the sockets hold
	_, _ = rand.NewChaCha8([32]byte{}).Read(sent)
	errs := make(chan error, 2)
	go func() { // sends back what it gets
		_, err := io.Copy(b, struct{ io.Reader }{b})
		errs <- errors.Join(err, b.CloseWrite())
	}()
	go func() {
		n, err := tested.Write(sent)
		if err == nil && n != len(sent) {
			err = io.ErrShortWrite
		}
		errs <- errors.Join(err, a.CloseWrite())
	}()
	got, err := io.ReadAll(tested)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes came back of %d, the same: %v; %v", len(got), len(sent), bytes.Equal(got, sent), err)
	}
	for range 2 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// Deadlines, a close and a reset end what waits, with the errors of package net.
func TestDirectEnds(t *testing.T) {
	a, b := pair(t)
	tested := Conn(a)
	one := make([]byte, 1)
	isNet := func(what string, err error, want error) {
		t.Helper()
		var op *net.OpError
		if !errors.Is(err, want) || !errors.As(err, &op) {
			t.Errorf("%s: %v, want %v of package net", what, err, want)
		}
	}
	_ = tested.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := tested.Read(one)
	isNet("a read that waits too long", err, os.ErrDeadlineExceeded)
	var late net.Error
	if !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("a read that waits too long: %v is no timeout", err)
	}
	unread := make([]byte, 64<<20)
	_ = tested.SetWriteDeadline(time.Now().Add(time.Second))
	n, err := tested.Write(unread)
	isNet("a write that waits too long", err, os.ErrDeadlineExceeded)
	if n == 0 || n == len(unread) {
		t.Errorf("%d bytes were written", n)
	}
	_ = tested.SetDeadline(time.Time{})

	waits := make(chan error)
	go func() { _, err := tested.Read(one); waits <- err }()
	_ = b.SetLinger(0)
	b.Close() // with what it has not read: a reset
	isNet("a read of a connection that is reset", <-waits, syscall.ECONNRESET)
	_, err = tested.Write(one)
	isNet("a write to a connection that was reset", err, syscall.EPIPE)

	a, _ = pair(t)
	tested = Conn(a)
	go func() { _, err := tested.Read(one); waits <- err }()
	tested.Close()
	isNet("a read of a connection that is closed", <-waits, net.ErrClosed)
	_, err = tested.Write(one)
	isNet("a write to a connection that is closed", err, net.ErrClosed)
}

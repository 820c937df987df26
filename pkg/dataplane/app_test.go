package dataplane_test

import (
	"bufio"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The application in every task speaks a line protocol over TCP:
//
//	who        -> "NAME CLIENT"
//	send N     -> N bytes, then it closes
//	recv N     <- N bytes, -> their MD5
//	echo TEXT  -> TEXT
//	keep NAME  -> NAME, and the test may end the connection at this side: see kept
//
// and over UDP answers each datagram with "NAME CLIENT LENGTH", padded to the
// datagram's own length.

const patience = 10 * time.Second

// kept has the application's ends of connections, by their names.
var kept sync.Map

// serve runs the application on a TCP and a UDP port.
func (k *task) serve(port uint16) {
	k.t.Helper()
	k.must(func() error {
		config := net.ListenConfig{}
		config.SetMultipathTCP(false)
		l, err := config.Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		u, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		if err != nil {
			return err
		}
		k.t.Cleanup(func() { l.Close(); u.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go k.answer(c)
			}
		}()
		go k.answerDatagrams(u)
		return nil
	})
}

func (k *task) answerDatagrams(u *net.UDPConn) {
	buf := make([]byte, 65536)
	for {
		n, from, err := u.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		text := fmt.Sprintf("%s %s %d ", k.name, from.Addr().Unmap(), n)
		reply := append([]byte(text), make([]byte, max(0, n-len(text)))...)
		u.WriteToUDPAddrPort(reply, from)
	}
}

func (k *task) answer(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		var n int64
		switch verb, rest, _ := strings.Cut(strings.TrimSpace(line), " "); verb {
		case "who":
			from := c.RemoteAddr().(*net.TCPAddr).AddrPort()
			fmt.Fprintf(c, "%s %s\n", k.name, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()))
		case "echo":
			fmt.Fprintf(c, "%s\n", rest)
		case "keep":
			kept.Store(rest, c)
			fmt.Fprintf(c, "%s\n", rest)
		case "send":
			fmt.Sscan(rest, &n)
			io.CopyN(c, noise(n), n)
			return
		case "recv":
			fmt.Sscan(rest, &n)
			h := md5.New()
			io.CopyN(h, r, n)
			fmt.Fprintf(c, "%s\n", hex.EncodeToString(h.Sum(nil)))
		}
	}
}

// noise is a stream of bytes that the seed determines.
func noise(seed int64) io.Reader {
	return rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), byte(seed >> 24)})
}

func noiseSum(n int64) string {
	h := md5.New()
	io.CopyN(h, noise(n), n)
	return hex.EncodeToString(h.Sum(nil))
}

// dial connects from a namespace.
func (s *space) dial(addr netip.AddrPort) (net.Conn, error) {
	return s.dialFrom(netip.AddrPort{}, addr, patience)
}

func (s *space) dialFrom(from, addr netip.AddrPort, timeout time.Duration) (c net.Conn, err error) {
	err = s.do(func() error {
		d := net.Dialer{Timeout: timeout}
		d.SetMultipathTCP(false)
		if from.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(from)
			d.Control = func(_, _ string, raw syscall.RawConn) error {
				return raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
			}
		}
		c, err = d.Dial("tcp", addr.String())
		return err
	})
	if err == nil {
		c.SetDeadline(time.Now().Add(6 * patience))
	}
	return c, err
}

// ask sends a line on a connection and reads the answering line.
func ask(c net.Conn, line string) (string, error) {
	if _, err := fmt.Fprintln(c, line); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(answer), err
}

// who asks a fresh connection which task answers and which client it sees.
func (s *space) who(addr netip.AddrPort) (name string, client netip.AddrPort, err error) {
	c, err := s.dial(addr)
	if err != nil {
		return "", client, err
	}
	defer c.Close()
	answer, err := ask(c, "who")
	if err != nil {
		return "", client, err
	}
	name, text, _ := strings.Cut(answer, " ")
	client, err = netip.ParseAddrPort(text)
	return name, client, err
}

// datagrams opens a connected UDP socket.
func (s *space) datagrams(addr netip.AddrPort) (c net.Conn, err error) {
	err = s.do(func() error {
		c, err = net.Dial("udp", addr.String())
		return err
	})
	return c, err
}

// exchange sends a datagram of a length until it is answered in full, and
// splits the answer.
func exchange(c net.Conn, length int) (name string, client netip.Addr, err error) {
	buf := make([]byte, 65536)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err = c.Write(make([]byte, length)); err != nil {
			continue // an ICMP error about an earlier one
		}
		c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		var n int
		if n, err = c.Read(buf); err != nil {
			continue
		}
		var got int
		var text string
		if _, err = fmt.Sscan(string(buf[:n]), &name, &text, &got); err == nil && got == length {
			client, err = netip.ParseAddr(text)
			return name, client, err
		}
	}
	return "", client, fmt.Errorf("no answer to a datagram of %d bytes: %w", length, err)
}

// download and upload move n bytes and compare their digest.
func (s *space) download(addr netip.AddrPort, n int64) error {
	c, err := s.dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(6 * patience))
	fmt.Fprintf(c, "send %d\n", n)
	h := md5.New()
	got, err := io.Copy(h, c)
	if sum := hex.EncodeToString(h.Sum(nil)); err != nil || got != n || sum != noiseSum(n) {
		return fmt.Errorf("download: %d of %d bytes, digest %s: %v", got, n, sum, err)
	}
	return nil
}

func (s *space) upload(addr netip.AddrPort, n int64) error {
	c, err := s.dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(6 * patience))
	fmt.Fprintf(c, "recv %d\n", n)
	if _, err := io.CopyN(c, noise(n), n); err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil || strings.TrimSpace(answer) != noiseSum(n) {
		return fmt.Errorf("upload: digest %q: %v", answer, err)
	}
	return nil
}

package sysctl

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// What is in the kernel's list after each step, of ours and of an administrator, and
// once all is put back.
func TestReservePorts(t *testing.T) {
	type step struct {
		do   func(*Journal) error
		want string
	}
	reserve := func(ports ...uint16) func(*Journal) error {
		return func(j *Journal) error { return j.ReservePorts(ports) }
	}
	release := func(but ...uint16) func(*Journal) error {
		return func(j *Journal) error { return j.ReleasePorts(but) }
	}
	admin := func(key, value string) func(*Journal) error {
		return func(*Journal) error { return write(key, value) }
	}
	list := func(value string) func(*Journal) error { return admin(reservedPorts, value) }
	for _, tt := range []struct {
		name     string
		was      string
		steps    []step
		restored string
	}{
		{"one comes and goes", "", []step{
			{reserve(40000), "40000"}, {reserve(40000), "40000"}, {release(40000), "40000"}, {release(), ""}, {release(), ""},
		}, ""},
		{"only those that the kernel would give", "", []step{{reserve(80, 30000, 32767, 32768, 60999, 61000), "32768,60999"}}, ""},
		{"none is lost while others come", "8080,9000-9100", []step{
			{reserve(40000, 40001), "8080,9000-9100,40000-40001"}, {reserve(40002), "8080,9000-9100,40000-40002"},
			{release(40002), "8080,9000-9100,40002"},
		}, "8080,9000-9100"},
		{"it was there", "40000", []step{{reserve(40000, 40001), "40000-40001"}, {release(), "40000"}}, "40000"},
		{"it was there, in a range", "39000-41000", []step{{reserve(40000), "39000-41000"}, {release(), "39000-41000"}}, "39000-41000"},
		{"the administrator adds", "", []step{
			{reserve(40000), "40000"}, {list("40000,50000"), "40000,50000"}, {reserve(40000, 40001), "40000-40001,50000"}, {release(), "50000"},
		}, "50000"},
		{"and that is all that is left", "", []step{{reserve(40000), "40000"}, {list("40000,50000"), "40000,50000"}}, "50000"},
		{"the administrator takes what was there", "8080,9000", []step{
			{reserve(40000), "8080,9000,40000"}, {list("9000,40000"), "9000,40000"}, {release(), "9000"},
		}, "9000"},
		{"the administrator takes what is ours", "8080", []step{
			{reserve(40000), "8080,40000"}, {list("8080"), "8080"}, {reserve(40000), "8080,40000"}, {release(), "8080"},
		}, "8080"},
		{"and has none of it", "", []step{{reserve(40000), "40000"}, {list(""), ""}}, ""},
		{"the administrator writes it anew, with one of ours", "", []step{
			{reserve(40000, 40001), "40000-40001"}, {list("40000"), "40000"}, {reserve(40000, 40001), "40000-40001"}, {release(), "40000"},
		}, "40000"},
		{"the range of what the kernel gives moves", "", []step{
			{reserve(20000, 40000), "40000"}, {admin(portRange, "10000 30000"), "40000"}, {reserve(20000, 40000), "20000,40000"},
			{release(20000, 40000), "20000"}, {admin(portRange, "32768 60999"), "20000"},
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sysctls.json")
			namespaced(t)
			check := func(step int, want string) {
				t.Helper()
				if got, err := read(reservedPorts); err != nil || got != want {
					t.Fatalf("after step %d the list is %q, want %q: %v", step, got, want, err)
				}
			}
			if err := errors.Join(write(portRange, "32768 60999"), write(reservedPorts, tt.was)); err != nil {
				t.Fatal(err)
			}
			for i, s := range tt.steps {
				if err := s.do(New(path)); err != nil { // each time as another process
					t.Fatal(err)
				}
				check(i, s.want)
			}
			for range 2 {
				if err := New(path).Restore(); err != nil {
					t.Fatal(err)
				}
				check(len(tt.steps), tt.restored)
			}
		})
	}
}

// What is on disk is written before the kernel's list, and only when it changes.
func TestReservePortsNotes(t *testing.T) {
	namespaced(t)
	path := filepath.Join(t.TempDir(), "sysctls.json")
	j := New(path)
	noted := func(want ...note) {
		t.Helper()
		if diff := cmp.Diff(want, must(j.read())); diff != "" {
			t.Errorf("notes (-want +got):\n%s", diff)
		}
	}
	if err := errors.Join(write(reservedPorts, "9000"), j.ReleasePorts(nil), j.ReservePorts([]uint16{80})); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a note of nothing: %v", err)
	}
	const other = "net/ipv4/conf/lo/accept_local"
	if err := errors.Join(j.Set(other, "1"), j.ReservePorts([]uint16{40000})); err != nil {
		t.Fatal(err)
	}
	first := note{Key: other, Was: "0", Set: "1"}
	noted(first, note{Key: reservedPorts, Was: "9000", Set: "9000,40000"})
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(j.ReservePorts([]uint16{40000}), j.ReleasePorts([]uint16{40000})); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("it is written though nothing changed: %v", err)
	}
	if err := j.ReleasePorts(nil); err != nil {
		t.Fatal(err)
	}
	noted(first)
}

// A list longer than what the kernel takes, or os.ReadFile asks for, at once.
func TestThousandsOfPorts(t *testing.T) {
	namespaced(t)
	if err := errors.Join(write(portRange, "1025 65535"), write(reservedPorts, "20001-20007")); err != nil {
		t.Fatal(err)
	}
	var ports []uint16
	var want [][2]uint16
	for port := uint16(30000); port < 60000; port += 2 {
		ports = append(ports, port)
		want = append(want, [2]uint16{port, port})
	}
	want = append([][2]uint16{{20001, 20007}}, want...)
	j := New(filepath.Join(t.TempDir(), "sysctls.json"))
	for range 2 {
		if err := errors.Join(j.ReservePorts(ports), j.ReleasePorts(ports)); err != nil {
			t.Fatal(err)
		}
		given, got, err := LocalPorts()
		if diff := cmp.Diff(want, got); err != nil || diff != "" || given != [2]uint16{1025, 65535} {
			t.Fatalf("%v, %v (-want +got):\n%.1000s", given, err, diff)
		}
	}
	if err := j.ReleasePorts(ports[1:2]); err != nil {
		t.Fatal(err)
	}
	if got, err := read(reservedPorts); err != nil || got != "20001-20007,30002" {
		t.Errorf("%.1000s, want 20001-20007,30002: %v", got, err)
	}
}

// The kernel gives no connection a port that is reserved; who asks for it has it.
func TestReservedPortIsNotGiven(t *testing.T) {
	namespaced(t)
	const reserved, other = 40000, 40001
	j := New(filepath.Join(t.TempDir(), "sysctls.json"))
	if err := errors.Join(write(portRange, "40000 40001"), j.ReservePorts([]uint16{reserved})); err != nil {
		t.Fatal(err)
	}
	open := func(port int) (int, error) {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: port})
		if err != nil {
			return 0, err
		}
		t.Cleanup(func() { l.Close() })
		return l.Addr().(*net.TCPAddr).Port, nil
	}
	if got, err := open(0); err != nil || got != other {
		t.Errorf("the kernel gives %d, want %d: %v", got, other, err)
	}
	if got, err := open(0); err == nil {
		t.Errorf("the kernel gives %d, want none", got)
	}
	if err := j.ReleasePorts(nil); err != nil {
		t.Fatal(err)
	}
	if got, err := open(0); err != nil || got != reserved {
		t.Errorf("the kernel gives %d, want %d: %v", got, reserved, err)
	}
}

// What the kernel does not take is told in short, and not taken for done.
func TestPortsThatTheKernelRefuses(t *testing.T) {
	namespaced(t)
	err := write(reservedPorts, strings.Repeat("9,", 5000)+"x")
	if err == nil || len(err.Error()) > 400 {
		t.Errorf("an error of a list that cannot be: %.500v", err)
	}
	path := filepath.Join(t.TempDir(), "no such directory", "sysctls.json")
	if err := New(path).ReservePorts([]uint16{40000}); err == nil {
		t.Error("a port was reserved and nothing noted")
	}
	if got, err := read(reservedPorts); err != nil || got != "9" { // what came before the x
		t.Errorf("%q: %v", got, err)
	}

	j := New(filepath.Join(t.TempDir(), "sysctls.json"))
	if err := j.ReservePorts([]uint16{40000}); err != nil {
		t.Fatal(err)
	}
	before := must(j.read())
	if err := errors.Join( // of this thread alone
		unix.Unshare(unix.CLONE_NEWNS),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND, ""),
		unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""),
	); err != nil {
		t.Fatal(err)
	}
	for _, do := range []func() error{
		func() error { return j.ReservePorts([]uint16{40001}) }, func() error { return j.ReleasePorts(nil) }, j.Restore,
	} {
		if err := do(); !errors.Is(err, unix.EROFS) {
			t.Errorf("%v, want %v", err, unix.EROFS)
		}
		if diff := cmp.Diff(before, must(j.read())); diff != "" {
			t.Errorf("notes (-before +after):\n%s", diff)
		}
	}
}

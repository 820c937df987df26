package dataplane

import (
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDevices(t *testing.T) {
	all, err := net.Interfaces()
	if err != nil || len(all) == 0 {
		t.Fatal(all, err)
	}
	highest := 0
	for _, dev := range all {
		highest = max(highest, dev.Index)
		if got, err := mtu(dev.Index); err != nil || got != dev.MTU {
			t.Errorf("MTU of %s: %d, %v, want %d", dev.Name, got, err, dev.MTU)
		}
		if name, err := deviceName(dev.Index); err != nil || name != dev.Name {
			t.Errorf("interface %d: %q, %v, want %s", dev.Index, name, err, dev.Name)
		}
	}
	const never = 1 << 30 // none is given such an index
	if exists(never) || !exists(highest) {
		t.Error("an interface that is there does not exist, or one that is not does")
	}
	if _, err := mtu(never); !errors.Is(err, unix.ENODEV) {
		t.Errorf("MTU of no interface: %v", err)
	}
}

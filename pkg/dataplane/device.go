package dataplane

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// What a change of the plan needs to know of interfaces is asked by ioctl: netlink
// takes the lock under which the kernel makes and removes interfaces, which can take
// it a tenth of a second for each container that ends.

// mtu is an interface's, in bytes.
func mtu(ifindex int) (int, error) {
	name, err := deviceName(ifindex)
	if err != nil {
		return 0, err
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if err := ioctl(unix.SIOCGIFMTU, request); err != nil {
		return 0, fmt.Errorf("read the MTU of %s: %w", name, err)
	}
	return int(request.Uint32()), nil
}

// exists reports whether there is an interface of that index.
func exists(ifindex int) bool {
	_, err := deviceName(ifindex)
	return !errors.Is(err, unix.ENODEV)
}

func deviceName(ifindex int) (string, error) {
	request, err := unix.NewIfreq("")
	if err != nil {
		return "", err
	}
	request.SetUint32(uint32(ifindex))
	if err := ioctl(unix.SIOCGIFNAME, request); err != nil {
		return "", fmt.Errorf("find interface %d: %w", ifindex, err)
	}
	return request.Name(), nil
}

func ioctl(what uint, request *unix.Ifreq) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.IoctlIfreq(fd, what, request)
}

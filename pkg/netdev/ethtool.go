package netdev

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of linux/ethtool.h that x/sys/unix has no call for.
const (
	ethtoolSetTxChecksum = 0x00000017 // ETHTOOL_STXCSUM
	ethtoolSetGRO        = 0x0000002c // ETHTOOL_SGRO
)

// SetGRO turns generic receive offload of a device in the calling thread's
// namespace on or off. On a veth this also makes it receive through NAPI,
// without which frames that an XDP program redirects to its peer are lost.
func SetGRO(device string, on bool) error {
	return setOffload(device, "gro", ethtoolSetGRO, on)
}

// SetTxChecksum turns checksum offload on transmit on or off. With it on, a
// packet crosses a veth with its checksum unfinished, which an XDP program
// that sends the frame on cannot know.
func SetTxChecksum(device string, on bool) error {
	return setOffload(device, "tx checksum", ethtoolSetTxChecksum, on)
}

type ethtoolValue struct {
	cmd  uint32
	data uint32
}

type ifreqData struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

func setOffload(device, feature string, cmd uint32, on bool) error {
	value := ethtoolValue{cmd: cmd}
	if on {
		value.data = 1
	}
	request := ifreqData{data: unsafe.Pointer(&value)}
	if len(device) >= len(request.name) {
		return fmt.Errorf("set %s of %s: %w", feature, device, unix.EINVAL)
	}
	copy(request.name[:], device)

	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set %s of %s: socket: %w", feature, device, err)
	}
	defer unix.Close(fd)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(&value)
	if errno != 0 {
		return fmt.Errorf("set %s of %s: %w", feature, device, errno)
	}
	return nil
}

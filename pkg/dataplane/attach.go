package dataplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// An attachment is a pin under links, named after what it is for and the
// interface: uplink_xdp_2, uplink_tc_2, task_17. A file is a pinned link; a
// directory marks a clsact filter, which the kernel keeps by itself.
const (
	uplinkXDP = "uplink_xdp"
	uplinkTC  = "uplink_tc"
	loopback  = "loopback"
	taskTC    = "task"
	tunnelTC  = "tunnel"

	loopbackIndex = 1 // in every network namespace
)

func attachmentName(purpose string, ifindex int) string {
	return purpose + "_" + strconv.Itoa(ifindex)
}

func splitAttachment(name string) (purpose string, ifindex int, ok bool) {
	i := strings.LastIndexByte(name, '_')
	if i < 0 {
		return "", 0, false
	}
	ifindex, err := strconv.Atoi(name[i+1:])
	return name[:i], ifindex, err == nil
}

// attach makes prog the one that runs for a purpose on an interface: an
// attachment that exists is switched to it, without a moment in between.
func attach(dir, purpose string, ifindex int, prog *ebpf.Program) error {
	path := filepath.Join(dir, attachmentName(purpose, ifindex))
	switch info, err := os.Stat(path); {
	case err == nil && info.IsDir():
		return attachClsact(path, ifindex, prog)
	case err == nil:
		switched, err := switchLink(path, ifindex, prog)
		if switched || err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove stale link: %w", err)
		}
	case !errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("look up link: %w", err)
	}
	return attachNew(path, purpose, ifindex, prog)
}

// switchLink updates a pinned link; false if its interface is gone.
func switchLink(path string, ifindex int, prog *ebpf.Program) (bool, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return false, fmt.Errorf("load link %s: %w", path, err)
	}
	defer l.Close()
	if linkIndex(l) != ifindex {
		return false, nil
	}
	if err := l.Update(prog); err != nil {
		return false, fmt.Errorf("switch link %s: %w", path, err)
	}
	return true, nil
}

// linkIndex is the interface of a link, 0 when that is gone.
func linkIndex(l link.Link) int {
	info, err := l.Info()
	if err != nil {
		return 0
	}
	if tcx := info.TCX(); tcx != nil {
		return int(tcx.Ifindex)
	}
	if xdp := info.XDP(); xdp != nil {
		return int(xdp.Ifindex)
	}
	return 0
}

func attachNew(path, purpose string, ifindex int, prog *ebpf.Program) error {
	var l link.Link
	var err error
	if purpose == uplinkXDP {
		l, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifindex, Flags: link.XDPDriverMode})
	} else {
		l, err = link.AttachTCX(link.TCXOptions{Program: prog, Interface: ifindex, Attach: ebpf.AttachTCXIngress})
		if errors.Is(err, ebpf.ErrNotSupported) {
			return attachClsact(path, ifindex, prog)
		}
	}
	if err != nil {
		return fmt.Errorf("attach %s to interface %d: %w", purpose, ifindex, err)
	}
	defer l.Close()
	if err := l.Pin(path); err != nil {
		return fmt.Errorf("pin %s: %w", path, err)
	}
	return nil
}

// detach ends an attachment, whoever else may hold it open.
func detach(path string) error {
	_, ifindex, ok := splitAttachment(filepath.Base(path))
	if !ok {
		return fmt.Errorf("detach %s: not a name of ours", path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	if info.IsDir() {
		return detachClsact(path, ifindex)
	}
	if !exists(ifindex) { // it has taken the attachment with it
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("detach: %w", err)
		}
		return nil
	}
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return fmt.Errorf("load link %s: %w", path, err)
	}
	defer l.Close()
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("detach: %w", err)
	}
	if linkIndex(l) == 0 {
		return nil
	}
	if err := l.Detach(); err != nil && !errors.Is(err, ebpf.ErrNotSupported) {
		return fmt.Errorf("detach %s: %w", path, err)
	}
	return nil
}

// Purge removes every pin under pinDir and every attachment made from it. It
// runs in the node's network namespace, with no daemon on pinDir.
func Purge(pinDir string) error {
	if _, err := os.Stat(pinDir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	links := filepath.Join(pinDir, linksDir)
	pins, err := names(links)
	for _, name := range pins {
		err = errors.Join(err, detach(filepath.Join(links, name)))
	}
	maps := filepath.Join(pinDir, mapsDir)
	pins, listErr := names(maps)
	err = errors.Join(err, listErr)
	for _, name := range pins {
		err = errors.Join(err, os.Remove(filepath.Join(maps, name)))
	}
	err = errors.Join(err, unmountOwn(pinDir))
	for _, dir := range []string{links, maps, pinDir} {
		if rmErr := os.Remove(dir); rmErr != nil && !errors.Is(rmErr, os.ErrNotExist) {
			err = errors.Join(err, rmErr)
		}
	}
	if err != nil {
		return fmt.Errorf("purge %s: %w", pinDir, err)
	}
	return nil
}

package sysctl

import (
	"errors"
	"fmt"
	"slices"
)

const (
	portRange     = "net/ipv4/ip_local_port_range"
	reservedPorts = "net/ipv4/ip_local_reserved_ports"
)

// LocalPorts are the first and the last port that the kernel gives to a connection
// which asks for none, and the ranges that it leaves out of these.
func LocalPorts() (given [2]uint16, reserved [][2]uint16, err error) {
	if given, err = givenPorts(); err != nil {
		return given, nil, err
	}
	list, err := readPorts()
	return given, list.ranges(), err
}

// ReservePorts adds to the ports that the kernel gives to no connection of its own
// accord, beside those that others keep there. Ports that it would not give anyway
// are passed over.
func (j *Journal) ReservePorts(ports []uint16) error {
	return j.setPorts(func(ours, others, wanted portSet) portSet { return ours.or(wanted).less(others) }, ports)
}

// ReleasePorts ends the reservation of those that were reserved so, also by another
// process, but of these.
func (j *Journal) ReleasePorts(but []uint16) error {
	return j.setPorts(func(ours, _, wanted portSet) portSet { return ours.and(wanted) }, but)
}

// setPorts makes of our ports in the list what next says.
func (j *Journal) setPorts(next func(ours, others, wanted portSet) portSet, ports []uint16) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	given, err := givenPorts()
	if err != nil {
		return err
	}
	now, err := readPorts()
	if err != nil {
		return err
	}
	notes, err := j.read()
	if err != nil {
		return err
	}
	i := find(notes, reservedPorts)
	var ours portSet
	if i >= 0 {
		if ours, err = notes[i].ports(now); err != nil {
			return err
		}
	}
	var wanted portSet
	for _, port := range ports {
		if port >= given[0] && port <= given[1] {
			wanted.add(port, port)
		}
	}
	others := now.less(ours)
	ours = next(ours, others, wanted)
	set := others.or(ours)
	fresh := withPorts(notes, others, ours)
	if !slices.Equal(fresh, notes) {
		if err := j.write(fresh); err != nil {
			return err
		}
	}
	if set == now {
		return nil
	}
	if err := write(reservedPorts, set.String()); err != nil {
		return errors.Join(err, j.write(notes))
	}
	return nil
}

// withPorts are the notes with what is in the list of reserved ports beside ours, and
// with ours. Where there is none of ours there is nothing to put back.
func withPorts(notes []note, others, ours portSet) []note {
	fresh := slices.Clone(notes)
	n := note{Key: reservedPorts, Was: others.String(), Set: others.or(ours).String()}
	switch i := find(notes, reservedPorts); {
	case ours == portSet{} && i >= 0:
		return slices.Delete(fresh, i, i+1)
	case ours == portSet{}:
		return fresh
	case i >= 0:
		fresh[i] = n
		return fresh
	}
	return append(fresh, n)
}

// ports are ours of those in the list. Who adds to it, or takes from what was there,
// leaves ours in it. Where one of ours is lacking somebody has written it anew, and
// all that is in it is theirs: to reserve a port for too long costs nothing.
func (n note) ports(now portSet) (portSet, error) {
	was, err := parsePorts(n.Was)
	if err != nil {
		return portSet{}, err
	}
	set, err := parsePorts(n.Set)
	if err != nil {
		return portSet{}, err
	}
	ours := set.less(was)
	if ours.less(now) != (portSet{}) {
		return portSet{}, nil
	}
	return ours, nil
}

// restorePorts takes ours out of the list.
func (n note) restorePorts() error {
	now, err := readPorts()
	if err != nil {
		return err
	}
	ours, err := n.ports(now)
	if err != nil || ours == (portSet{}) {
		return err
	}
	return write(reservedPorts, now.less(ours).String())
}

func givenPorts() (given [2]uint16, err error) {
	text, err := read(portRange)
	if err != nil {
		return given, fmt.Errorf("read sysctl %s: %w", portRange, err)
	}
	if _, err := fmt.Sscan(text, &given[0], &given[1]); err != nil {
		return given, fmt.Errorf("read sysctl %s: %q: %w", portRange, text, err)
	}
	return given, nil
}

func readPorts() (portSet, error) {
	text, err := read(reservedPorts)
	if err != nil {
		return portSet{}, fmt.Errorf("read sysctl %s: %w", reservedPorts, err)
	}
	return parsePorts(text)
}

package sysctl

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// portSet has a bit for each port.
type portSet [1 << 16 / 64]uint64

// parsePorts reads what the kernel writes, and lets be written: "8080,9000-9100".
func parsePorts(text string) (portSet, error) {
	var s portSet
	if text == "" {
		return s, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, err := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err := errors.Join(err, err2); err != nil {
			return s, fmt.Errorf("read a list of ports: %w", err)
		}
		s.add(uint16(first), uint16(last))
	}
	return s, nil
}

// String is the list as the kernel writes it: ascending, each range as long as it can be.
func (s portSet) String() string {
	var text []byte
	for _, r := range s.ranges() {
		if len(text) > 0 {
			text = append(text, ',')
		}
		text = strconv.AppendUint(text, uint64(r[0]), 10)
		if r[1] > r[0] {
			text = strconv.AppendUint(append(text, '-'), uint64(r[1]), 10)
		}
	}
	return string(text)
}

func (s portSet) ranges() (list [][2]uint16) {
	for w, word := range s {
		for ; word != 0; word &= word - 1 {
			port := uint16(w*64 + bits.TrailingZeros64(word))
			if n := len(list); n > 0 && list[n-1][1]+1 == port {
				list[n-1][1] = port
			} else {
				list = append(list, [2]uint16{port, port})
			}
		}
	}
	return list
}

func (s *portSet) add(first, last uint16) {
	for port := int(first); port <= int(last); port++ {
		s[port/64] |= 1 << (port % 64)
	}
}

func (s portSet) or(t portSet) portSet {
	for i := range s {
		s[i] |= t[i]
	}
	return s
}

func (s portSet) and(t portSet) portSet {
	for i := range s {
		s[i] &= t[i]
	}
	return s
}

// less is s without what is in t.
func (s portSet) less(t portSet) portSet {
	for i := range s {
		s[i] &^= t[i]
	}
	return s
}

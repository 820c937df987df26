package api

import (
	"io"
	"math/big"
	"strings"
)

// IDLength is the number of characters of an identifier.
const IDLength = 25

// IsID reports whether s has the form of an identifier.
func IsID(s string) bool {
	return len(s) == IDLength && strings.Trim(s, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}

// NewID reads 16 bytes from r, which must be a source of randomness that does
// not fail (crypto/rand.Reader), and returns them as an identifier.
func NewID(r io.Reader) string {
	var b [16]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		panic("read randomness: " + err.Error())
	}
	s := new(big.Int).SetBytes(b[:]).Text(36)
	return strings.Repeat("0", IDLength-len(s)) + s
}

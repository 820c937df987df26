package dataplane

import "github.com/cilium/ebpf"

// UseSpec has Open take programs and maps from load, until the function that it
// returns is called.
func UseSpec(load func() (*ebpf.CollectionSpec, error)) (restore func()) {
	own := loadSpec
	loadSpec = load
	return func() { loadSpec = own }
}

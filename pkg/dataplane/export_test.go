package dataplane

import "github.com/cilium/ebpf"

// UseSpec has Open take programs and maps from load, until the function that it
// returns is called.
func UseSpec(load func() (*ebpf.CollectionSpec, error)) (restore func()) {
	own := loadSpec
	loadSpec = load
	return func() { loadSpec = own }
}

// BeginSweep begins what Run does little by little, and returns the rest of it.
func (d *Dataplane) BeginSweep() (rest func() (swept int, err error), err error) {
	passes, err := d.passes()
	return func() (int, error) { return finish(passes) }, err
}

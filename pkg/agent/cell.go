package agent

import "sync"

// cell holds a value that changes and that others wait to see change.
type cell[T any] struct {
	mu      sync.Mutex
	value   T
	changed chan struct{}
}

// Get returns the value and a channel that is closed when it is set next.
func (c *cell[T]) Get() (T, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed == nil {
		c.changed = make(chan struct{})
	}
	return c.value, c.changed
}

func (c *cell[T]) Set(v T) { c.Update(func(T) T { return v }) }

// Update sets what fn makes of the value. fn must not change what the value
// refers to: others read it.
func (c *cell[T]) Update(fn func(T) T) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.value = fn(c.value)
	if c.changed != nil {
		close(c.changed)
	}
	c.changed = make(chan struct{})
}

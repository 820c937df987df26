package api

import "time"

// FenceLease is for how long after it sent a report that the leader has accepted
// a node may run the tasks of singletons. It is longer than the lease, so that
// singletons outlive a change of leader.
func (c *Cluster) FenceLease() time.Duration { return 3 * c.LeaseTimeout }

// FenceWait is how long after the last report of a node, or after a new leader
// began, it is taken for certain that no singleton runs there any more: the
// report was sent before it was received, so the node's lease ended earlier by
// any clock. The rest is for clocks that do not run at the same speed (1 %) and
// for the time that it takes to kill.
func (c *Cluster) FenceWait() time.Duration {
	longest := max(c.LeaseTimeout, c.LongLease)
	lease := 3 * longest
	return lease + lease/100 + max(longest/2, time.Second)
}

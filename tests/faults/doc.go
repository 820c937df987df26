// Package faults tests what the control plane promises while machines fail:
// real daemons on the nodes of a lab, killed, stopped, cut off and robbed of
// their disks, one or two of three at a time, under clients that write and read
// all the time. What the clients saw is then checked to be linearizable. It needs
// root, an engine and ext4 on loop devices.
//
// `make test` runs a short form; ORCH_FAULTS=1h (`make test-faults`) goes on for
// that long. Each run prints its seed; ORCH_SEED=N repeats its choices.
package faults

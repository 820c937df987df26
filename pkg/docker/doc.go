// Package docker drives the containers of one node's tasks through a Docker
// Engine. It is the only package that speaks to the engine.
//
// A task is two containers. The sandbox holds the task's network namespace,
// empty but for the loopback interface, and does nothing else; its one process
// waits for ever. The application joins that namespace, so its eth0 is there
// before its first instruction runs, and so the namespace outlives a restart of
// the node's daemon or a crash of the application.
//
// Everything is found by labels: containers that do not carry the cluster's and
// the node's are never looked at. Several nodes may therefore share one engine,
// and every state is read from the engine itself: an Engine made after a
// restart finds what the one before it left.
//
// The engine mounts /etc/hostname of the sandbox into the application and gives
// the application's own UTS namespace the sandbox's host name, which is why the
// host name is set on the sandbox (it is refused on the application). It does
// not do that for resolv.conf and hosts when the sandbox has networking
// disabled, so these two are files under Config.RunDir, mounted by this
// package.
package docker

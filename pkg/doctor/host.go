package doctor

import (
	"fmt"
	"time"

	"github.com/orch-dev/orch/pkg/api"
)

func forwarding(f *api.NodeFacts) []Finding {
	switch {
	case !f.Forwarding:
		return []Finding{bad(Fail, "sysctl -w net.ipv4.ip_forward=1, and see what turned it off", "net.ipv4.ip_forward is 0: tasks reach nothing outside the cluster")}
	case f.FirewallDrop != "":
		return []Finding{bad(Warn, "accept the cluster's pool in that chain, or run the Docker Engine's own firewall", "the chain %s drops what the node forwards: tasks reach nothing outside the cluster", f.FirewallDrop)}
	}
	return []Finding{ok("on, and no firewall drops it")}
}

// uplink judges whether clients from far away come in by the device that answers
// on published ports: by the one that the default route leaves by, most likely.
func uplink(f *api.NodeFacts) []Finding {
	switch f.DefaultDevice {
	case "":
		return []Finding{ok("%s, by the node's address; no one default route to compare it with", f.Uplink)}
	case f.Uplink:
		return []Finding{ok("%s, by the node's address and by the default route", f.Uplink)}
	}
	return []Finding{bad(Warn, fmt.Sprintf("if clients come in by %s, and the nodes reach each other by it, restart orch daemon with --advertise-addr and its address", f.DefaultDevice),
		"the default route leaves by %s, the node's address is on %s: published ports answer on %[2]s only, and what tasks send by %[1]s keeps their addresses", f.DefaultDevice, f.Uplink)}
}

// Clocks: nothing in the cluster is decided by comparing two nodes' clocks, but
// logs are read side by side, and certificates begin and end.
const (
	clockWarn = time.Second
	clockFail = time.Minute
)

func clock(f *api.NodeFacts) []Finding {
	if f.Clock == nil {
		return []Finding{ok("not compared")}
	}
	ahead := f.Clock.Ahead
	word := "ahead of"
	if ahead < 0 {
		ahead, word = -ahead, "behind"
	}
	off := max(0, ahead-f.Clock.Within)
	var level Level
	switch {
	case off >= clockFail:
		level = Fail
	case off >= clockWarn:
		level = Warn
	default:
		return []Finding{ok("%v %s the manager's, give or take %v", ahead.Round(time.Millisecond), word, f.Clock.Within.Round(time.Millisecond))}
	}
	return []Finding{bad(level, "run a time service (chrony, systemd-timesyncd) on every node", "%v %s the manager's", ahead.Round(time.Millisecond), word)}
}

func engine(f *api.NodeFacts) []Finding {
	if f.EngineError != "" {
		return []Finding{bad(Fail, "start it (systemctl start docker), or give its socket with --docker-host", "the Docker Engine does not answer: %s", f.EngineError)}
	}
	return []Finding{ok("Docker Engine %s answers", f.Info.EngineVersion)}
}

// fsyncFail is what is too slow on any node, whatever the managers' timers are.
const fsyncFail = time.Second

// disk judges a manager's by what an election has to write within its timeout.
func disk(f *api.NodeFacts) []Finding {
	const do = "put --state-dir on a faster disk, or find out who else writes there"
	write := f.Fsync.Round(10 * time.Microsecond)
	slow, enough := api.DiskTooSlow(f.Fsync, f.Info.ElectionTimeout)
	switch {
	case f.FsyncError != "":
		return []Finding{bad(Fail, "see that the state directory's disk is there and has room", "cannot write to the state directory: %s", f.FsyncError)}
	case f.Fsync >= fsyncFail:
		return []Finding{bad(Fail, do, "a synchronous write of 4 KB took %v", write)}
	case f.Info.ElectionTimeout > 0 && slow:
		return []Finding{bad(Warn, fmt.Sprintf("%s, or `orch cluster update --election-timeout %v`", do, enough),
			"a synchronous write of 4 KB took %v: the managers may not choose a leader within the election timeout of %v", write, f.Info.ElectionTimeout)}
	}
	return []Finding{ok("a synchronous write of 4 KB takes %v", write)}
}

package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/orch-dev/orch/pkg/api"
)

// kernel judges by what was tried, not by the version, which distributions
// patch.
func kernel(f *api.NodeFacts) []Finding {
	var have []string
	var out []Finding
	for _, feature := range f.Features {
		switch {
		case feature.Have:
			have = append(have, feature.Name)
		case feature.Required:
			out = append(out, bad(Fail, "boot a newer kernel (Linux 5.10 or later)", "%s has no %s: %s", f.Info.Kernel, feature.Name, feature.Without))
		default:
			out = append(out, bad(Warn, "nothing, or boot a newer kernel", "%s has no %s: %s", f.Info.Kernel, feature.Name, feature.Without))
		}
	}
	if len(out) == 0 {
		out = append(out, ok("%s has %s", f.Info.Kernel, strings.Join(have, ", ")))
	}
	return out
}

func bpffs(f *api.NodeFacts) []Finding {
	if f.PinsInBPFFS {
		return []Finding{ok("programs and maps are pinned at %s", f.PinDir)}
	}
	return []Finding{bad(Fail, "mount it (mount -t bpf bpf /sys/fs/bpf), and restart orch daemon",
		"%s is in no BPF file system: traffic ends with the daemon", f.PinDir)}
}

// attachments tells one line for each device, tasks' devices taken together.
func attachments(f *api.NodeFacts) []Finding {
	var out []Finding
	for _, a := range DescribeAttachments(f.Attachments) {
		out = append(out, ok("%s: %s", a.Devices, a.Programs))
	}
	have := make(map[string]bool)
	var bare []string
	for _, a := range f.Attachments {
		if a.How == "none" && (a.Program == "task" || a.Program == "tunnel") {
			bare = append(bare, a.Device)
		}
		have[a.Program] = have[a.Program] || a.How != "none"
	}
	for _, program := range []string{"uplink_tc", "loopback"} {
		if !have[program] {
			out = append(out, bad(Fail, "restart orch daemon, and see its log", "%s is not attached", program))
		}
	}
	if len(bare) > 0 {
		out = append(out, bad(Fail, "find out what removes filters of tc there, and restart orch daemon",
			"nothing is attached to %s: what comes from there goes past the data plane", enumerate(bare)))
	}
	return out
}

// Attached is what is attached to a device, or to those of tasks together, in
// words: how, and why in that way.
type Attached struct{ Devices, Programs string }

// DescribeAttachments puts attachments into words, in the order of the devices,
// those of tasks last.
func DescribeAttachments(list []api.Attachment) []Attached {
	var lines []Attached
	tasks := make(map[string]int)
	for _, a := range list {
		why := ""
		if a.Why != "" {
			why = " (" + a.Why + ")"
		}
		if a.Program == "task" {
			how := "by " + a.How
			if a.How == "none" {
				how = "nothing"
			}
			tasks[how+why]++
			continue
		}
		text := a.Program + " by " + a.How + why
		if a.How == "none" {
			text = "no " + a.Program + why
		}
		if i := slices.IndexFunc(lines, func(l Attached) bool { return l.Devices == a.Device }); i >= 0 {
			lines[i].Programs += ", " + text
		} else {
			lines = append(lines, Attached{a.Device, text})
		}
	}
	for _, how := range api.SortedKeys(tasks) {
		lines = append(lines, Attached{plural(tasks[how], "device") + " of tasks", how})
	}
	return lines
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

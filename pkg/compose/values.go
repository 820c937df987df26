package compose

import (
	"errors"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/format"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/distribution/reference"
	"github.com/orch-dev/orch/pkg/api"
	"go.yaml.in/yaml/v4"
)

// finding is what a check says about a value; the zero finding is that it is fine.
type finding struct {
	verdict       verdict
	message, hint string
}

func refuse(message, hint string) finding { return finding{refused, message, hint} }

// checks look at single values, variables filled in, where they stand in the
// file. What needs more than the value is left to the conversion.
var checks = map[string]func(value string) finding{
	"services.*.image":                                  checkImage,
	"services.*.command":                                checkNotEmpty,
	"services.*.entrypoint":                             checkNotEmpty,
	"services.*.environment.*":                          checkTemplate,
	"services.*.environment.[]":                         checkTemplate,
	"services.*.hostname":                               checkTemplate,
	"services.*.ipc":                                    checkHostMode("host", "private", "shareable", "none"),
	"services.*.pid":                                    checkHostMode("host"),
	"services.*.cgroup":                                 checkHostMode("host", "private"),
	"services.*.userns_mode":                            checkHostMode("host"),
	"services.*.container_name":                         checkName,
	"services.*.ports.[]":                               checkPort,
	"services.*.ports.[].host_ip":                       checkHostIP,
	"services.*.ports.[].mode":                          checkPortMode,
	"services.*.pull_policy":                            checkPullPolicy,
	"services.*.volumes.[]":                             checkTemplate,
	"services.*.volumes.[].source":                      checkTemplate,
	"services.*.volumes.[].type":                        checkMountType,
	"services.*.deploy.endpoint_mode":                   checkEndpointMode,
	"services.*.deploy.mode":                            checkMode,
	"services.*.deploy.placement.constraints.[]":        checkConstraint,
	"services.*.deploy.placement.preferences.[].spread": checkPreference,
	"services.*.configs.[].mode":                        checkFileMode,
	"services.*.secrets.[].mode":                        checkFileMode,
	"networks.*.driver":                                 checkNetworkDriver,
	"networks.*.driver_opts.encrypted":                  checkEncrypted,
}

// checkEncrypted refuses what could be meant as a way to encrypt.
func checkEncrypted(value string) finding {
	if _, err := strconv.ParseBool(value); value != "" && err != nil {
		return refuse(fmt.Sprintf("%q is neither true nor false", value), "an empty value encrypts, too")
	}
	return finding{}
}

func (s *scan) check(n *yaml.Node, value, at, pattern string) {
	check, ok := checks[pattern]
	if !ok {
		return
	}
	f := check(value)
	if f.hint == "" && n.Kind == yaml.ScalarNode && n.Value != value {
		f.hint = fmt.Sprintf("it comes from %q", n.Value)
	}
	switch f.verdict {
	case warned:
		s.warn(n, at, f.message, f.hint)
	case refused:
		s.fail(n, at, f.message, f.hint)
	}
}

// identities say what an item of a list is about. Two items about one thing are
// a mistake within one list, while compose-go takes the later one, as it should
// between files.
var identities = map[string]func(item string) string{
	"services.*.environment":   beforeEquals,
	"services.*.labels":        beforeEquals,
	"services.*.deploy.labels": beforeEquals,
	"services.*.volumes":       mountTarget,
}

func beforeEquals(item string) string {
	key, _, _ := strings.Cut(item, "=")
	return key
}

func mountTarget(item string) string {
	volume, err := format.ParseVolume(item)
	if err != nil {
		return ""
	}
	return path.Clean(volume.Target)
}

// unique refuses two items of the list n that are about one thing.
func (s *scan) unique(n *yaml.Node, at, pattern string) {
	identity, ok := identities[pattern]
	if !ok {
		return
	}
	lines := map[string]int{}
	for i, item := range n.Content {
		id := ""
		switch item.Kind {
		case yaml.ScalarNode:
			id = identity(item.Value)
		case yaml.MappingNode: // the long form of a mount
			for k := 0; k+1 < len(item.Content); k += 2 {
				if item.Content[k].Value == "target" {
					id = path.Clean(item.Content[k+1].Value)
				}
			}
		}
		switch first := lines[id]; {
		case id == "":
		case first > 0:
			s.fail(item, fmt.Sprintf("%s[%d]", at, i), fmt.Sprintf("%s is given twice, first on line %d", id, first), "")
		default:
			lines[id] = item.Line
		}
	}
}

func checkImage(value string) finding {
	if _, err := reference.ParseNormalizedNamed(value); err != nil {
		return refuse(fmt.Sprintf("%q is not the name of an image: %s", value, strings.TrimPrefix(err.Error(), "invalid reference format: ")), "")
	}
	return finding{}
}

func checkNotEmpty(value string) finding {
	if value == "" {
		return refuse("the image's own cannot be taken away yet", "leave the key out, or write a command")
	}
	return finding{}
}

func checkTemplate(value string) finding {
	if unknown := api.UnknownPlaceholders(value); len(unknown) > 0 {
		return finding{warned, "nothing fills in " + unknown[0] + "; the text is used as it is",
			"known are {{." + strings.Join(api.Placeholders(), "}}, {{.") + "}}"}
	}
	return finding{}
}

func checkName(value string) finding {
	if !hostName.MatchString(value) || len(value) > 253 {
		return refuse(fmt.Sprintf("%q is not a name of a host", value), "")
	}
	return finding{}
}

func checkPort(value string) finding {
	ports, err := types.ParsePortConfig(value)
	if err != nil {
		return refuse(fmt.Sprintf("%q is not a port: %v", value, err), "write it like 8080:80, 8000-8002:8000-8002/udp or 127.0.0.1:8080:80")
	}
	for _, p := range ports {
		if strings.Contains(p.Published, "-") {
			return refuse(fmt.Sprintf("%q gives one port a choice of published ports", value), "name one, or leave it out and one is chosen")
		}
	}
	return finding{}
}

func checkHostIP(value string) finding {
	if _, err := netip.ParseAddr(value); err != nil {
		return refuse(fmt.Sprintf("%q is not an IP address", value), "")
	}
	return finding{}
}

// portOfHost is the mode of a port that only the nodes of tasks have.
const portOfHost = "host"

func checkPortMode(value string) finding {
	switch value {
	case "ingress", portOfHost:
		return finding{}
	}
	return refuse(fmt.Sprintf("%q is not a mode of a port", value), "use ingress, which is all nodes, or host, which is those of the tasks")
}

func checkPullPolicy(value string) finding {
	if value == types.PullPolicyMissing || value == types.PullPolicyIfNotPresent {
		return finding{}
	}
	return finding{warned, notYet, "an image is pulled where it is missing"}
}

func checkMountType(value string) finding {
	if slices.Contains([]string{types.VolumeTypeVolume, types.VolumeTypeBind, types.VolumeTypeTmpfs}, value) {
		return finding{}
	}
	return refuse(fmt.Sprintf("mounts of type %q are not supported", value), "use volume, bind or tmpfs")
}

func checkEndpointMode(value string) finding {
	switch value {
	case string(api.EndpointVIP), string(api.EndpointDNSRR):
		return finding{}
	}
	return refuse(fmt.Sprintf("%q is not an endpoint mode", value), "use vip or dnsrr")
}

func checkMode(value string) finding {
	switch value {
	case string(api.ModeReplicated), string(api.ModeGlobal), string(api.ModeReplicatedJob), string(api.ModeGlobalJob):
		return finding{}
	}
	return refuse(fmt.Sprintf("%q is not a mode", value), "use replicated, global, replicated-job or global-job")
}

func checkNetworkDriver(value string) finding {
	switch value {
	case "overlay", "":
		return finding{}
	case "bridge":
		return finding{warned, "the network spans all nodes, it is not a bridge", "leave driver out"}
	}
	return refuse(fmt.Sprintf("there is no network driver %q", value), "leave driver out")
}

// nodeAttributes are the keys of constraints, apart from labels.
var nodeAttributes = []string{"node.id", "node.hostname", "node.ip", "node.role", "node.platform.os", "node.platform.arch"}

const constraintForm = "write it like node.role==worker or node.labels.disk!=slow"

func checkConstraint(value string) finding {
	_, f := parseConstraint(value)
	return f
}

// parseConstraint reads KEY==VALUE or KEY!=VALUE. KEY=VALUE is read too, with a
// warning: people write it, meaning ==.
func parseConstraint(text string) (api.Constraint, finding) {
	i := strings.IndexAny(text, "=!")
	if i < 0 {
		return api.Constraint{}, refuse(fmt.Sprintf("%q is not a constraint", text), constraintForm)
	}
	var f finding
	c := api.Constraint{Key: strings.TrimSpace(text[:i])}
	switch rest := text[i:]; {
	case strings.HasPrefix(rest, string(api.OpEqual)):
		c.Op, c.Value = api.OpEqual, strings.TrimSpace(rest[2:])
	case strings.HasPrefix(rest, string(api.OpNotEqual)):
		c.Op, c.Value = api.OpNotEqual, strings.TrimSpace(rest[2:])
	case rest[0] == '=':
		c.Op, c.Value = api.OpEqual, strings.TrimSpace(rest[1:])
		f = finding{warned, fmt.Sprintf("%q is taken as %q", text, c), "write == in constraints"}
	}
	if c.Op == "" || c.Key == "" || c.Value == "" || strings.ContainsAny(c.Key, " \t") || strings.ContainsAny(c.Value, "=!\n") {
		return c, refuse(fmt.Sprintf("%q is not a constraint", text), constraintForm)
	}
	if problem := checkAttribute(c); problem.verdict != honoured {
		return c, problem
	}
	return c, f
}

func checkAttribute(c api.Constraint) finding {
	switch {
	case isLabel(c.Key):
		return finding{}
	case !slices.Contains(nodeAttributes, c.Key):
		return refuse(fmt.Sprintf("a node has no %q", c.Key), "a constraint is about "+strings.Join(nodeAttributes, ", ")+", node.labels.NAME or engine.labels.NAME")
	case c.Key == "node.role" && c.Value != string(api.RoleManager) && c.Value != string(api.RoleWorker):
		return refuse(fmt.Sprintf("%q is not a role", c.Value), "use manager or worker")
	case c.Key == "node.ip":
		_, addrErr := netip.ParseAddr(c.Value)
		_, prefixErr := netip.ParsePrefix(c.Value)
		if addrErr != nil && prefixErr != nil {
			return refuse(fmt.Sprintf("%q is neither an address nor a CIDR", c.Value), "")
		}
	}
	return finding{}
}

// isLabel reports whether a key names a label of a node or of its engine.
func isLabel(key string) bool {
	for _, prefix := range []string{"node.labels.", "engine.labels."} {
		if name, ok := strings.CutPrefix(key, prefix); ok && name != "" {
			return true
		}
	}
	return false
}

// checkPreference takes what constraints are about: tasks can be spread over any
// attribute.
func checkPreference(value string) finding {
	if isLabel(value) || slices.Contains(nodeAttributes, value) {
		return finding{}
	}
	return refuse(fmt.Sprintf("tasks cannot be spread over %q", value), "give a label: node.labels.NAME or engine.labels.NAME")
}

// ParseConstraint reads a placement constraint, KEY==VALUE or KEY!=VALUE.
func ParseConstraint(text string) (api.Constraint, error) {
	c, f := parseConstraint(text)
	if f.verdict != refused {
		return c, nil
	}
	if f.hint == "" {
		return c, errors.New(f.message)
	}
	return c, fmt.Errorf("%s (%s)", f.message, f.hint)
}

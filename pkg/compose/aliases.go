package compose

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$`)

// aliases are the further names of a service, by the network's name: those it is
// given there, its container_name, and those that other services' links give it on
// the networks they share.
func (c *converter) aliases(at, name string, in types.ServiceConfig) map[string][]string {
	out := map[string][]string{}
	add := func(network, alias string) {
		if n := c.model.Networks[network].Name; alias != name && !slices.Contains(out[n], alias) {
			out[n] = append(out[n], alias)
		}
	}
	links := c.linked(name)
	for _, network := range slices.Sorted(maps.Keys(in.Networks)) {
		if in.Networks[network] != nil {
			for i, alias := range in.Networks[network].Aliases {
				if checkName(alias).verdict == refused {
					c.failAt(fmt.Sprintf("%s.networks.%s.aliases[%d]", at, network, i), checkName(alias).message, "")
				}
				add(network, alias)
			}
		}
		if in.ContainerName != "" {
			add(network, in.ContainerName)
		}
		for _, l := range links {
			if _, shared := l.by.Networks[network]; shared {
				add(network, l.alias)
			}
		}
	}
	return out
}

// link is a name that a service has for another.
type link struct {
	by    types.ServiceConfig
	alias string
}

// linked are the links to a service that have a name of their own for it.
func (c *converter) linked(name string) []link {
	var out []link
	for _, key := range slices.Sorted(maps.Keys(c.model.Services)) {
		for _, text := range c.model.Services[key].Links {
			if to, alias, ok := strings.Cut(text, ":"); ok && to == name {
				out = append(out, link{c.model.Services[key], alias})
			}
		}
	}
	return out
}

// links checks those of a service.
func (c *converter) links(at string, in types.ServiceConfig) {
	for i, text := range in.Links {
		at := fmt.Sprintf("%s.links[%d]", at, i)
		to, alias, _ := strings.Cut(text, ":")
		if _, known := c.model.Services[to]; !known {
			c.failAt(at, fmt.Sprintf("there is no service %q", to), c.nearestService(to))
		}
		if alias != "" && checkName(alias).verdict == refused {
			c.failAt(at, checkName(alias).message, "")
		}
	}
}

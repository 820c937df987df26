package compose

import (
	"fmt"
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/orch-dev/orch/pkg/api"
)

const buildKit = "it needs BuildKit, which orch does not use; build the image yourself and name it with image"

var buildRules = []rule{
	{"services.*.build", honoured, ""},
	{"services.*.build.additional_contexts", refused, buildKit},
	{"services.*.build.args", honoured, ""},
	{"services.*.build.args.*", honoured, ""},
	{"services.*.build.cache_from", honoured, ""},
	{"services.*.build.cache_to", warned, "the cache stays with the engine that builds"},
	{"services.*.build.context", honoured, ""},
	{"services.*.build.dockerfile", honoured, ""},
	{"services.*.build.dockerfile_inline", honoured, ""},
	{"services.*.build.entitlements", refused, buildKit},
	{"services.*.build.extra_hosts", honoured, ""},
	{"services.*.build.extra_hosts.*", honoured, ""},
	{"services.*.build.isolation", refused, "it belongs to Windows containers; orch runs Linux containers"},
	{"services.*.build.labels", honoured, ""},
	{"services.*.build.labels.*", honoured, ""},
	{"services.*.build.network", honoured, ""},
	{"services.*.build.no_cache", honoured, ""},
	{"services.*.build.no_cache_filter", warned, "use no_cache"},
	{"services.*.build.platforms", honoured, ""},
	{"services.*.build.privileged", refused, buildKit},
	{"services.*.build.provenance", warned, "no attestation is made"},
	{"services.*.build.pull", honoured, ""},
	{"services.*.build.sbom", warned, "no attestation is made"},
	{"services.*.build.secrets", refused, buildKit},
	{"services.*.build.shm_size", honoured, ""},
	{"services.*.build.ssh", refused, buildKit},
	{"services.*.build.tags", honoured, ""},
	{"services.*.build.target", honoured, ""},
	{"services.*.build.ulimits", warned, "the engine's default limits are used"},
}

// build says how a service's image is made, if it is, and what it is called.
func (c *converter) build(at, service string, in types.ServiceConfig) (image string) {
	b := in.Build
	if b == nil {
		if in.Image == "" {
			c.failAt(at, "no image is named", "")
		}
		return in.Image
	}
	out := api.ImageBuild{
		Name:       in.Image,
		Tags:       b.Tags,
		Context:    b.Context,
		Dockerfile: b.Dockerfile,
		Inline:     b.DockerfileInline,
		Args:       map[string]*string(b.Args),
		Labels:     plain(b.Labels),
		Target:     b.Target,
		CacheFrom:  b.CacheFrom,
		NoCache:    b.NoCache,
		Pull:       b.Pull,
		Network:    b.Network,
		ShmBytes:   int64(b.ShmSize),
	}
	if out.Name == "" {
		out.Name = c.stack + "-" + service // as docker compose calls it
	}
	if b.Dockerfile != "" && b.DockerfileInline != "" {
		c.failAt(at+".build.dockerfile_inline", "dockerfile and dockerfile_inline cannot both be given", "")
	}
	if len(b.Platforms) > 1 {
		c.failAt(at+".build.platforms", fmt.Sprintf("%d platforms are given: one image can be built for one", len(b.Platforms)), "")
	} else if len(b.Platforms) == 1 {
		out.Platform = b.Platforms[0]
	}
	for _, host := range slices.Sorted(maps.Keys(b.ExtraHosts)) {
		for _, addr := range b.ExtraHosts[host] {
			out.ExtraHosts = append(out.ExtraHosts, host+":"+addr)
		}
	}
	c.project.Builds = append(c.project.Builds, Build{Service: c.stack + "_" + service, ImageBuild: out})
	return out.Name
}

package compose

import (
	"slices"
	"strings"
)

// verdict is what becomes of a key.
type verdict int

const (
	honoured verdict = iota
	// differs: it is honoured, but for what is said in the docs.
	differs
	// warned: the service does its work without it, and the user is told.
	warned
	// refused: the service would not work, or would be less safe, without it.
	refused
)

// rule is one row of the table: what becomes of the key at path. In a path, *
// stands for any key and [] for the items of a list. What is below a key that
// is warned about or refused needs no rows of its own. Where it depends on the
// value, the key is honoured here and values.go has the rest.
type rule struct {
	path    string
	verdict verdict
	// say tells a user what that means and what to do instead.
	say string
}

const notYet = "not acted on yet"

// rules has a row for every key of the compose specification.
var rules = join(topLevelRules, serviceRules, buildRules, deployRules, networkRules, volumeRules, fileRules)

var topLevelRules = []rule{
	{"name", differs, "the name of the stack, if the command line gives none"},
	{"version", warned, "not needed any more; remove it"},
	{"services", honoured, ""},
	{"services.*", honoured, ""},
	{"networks", honoured, ""},
	{"networks.*", honoured, ""},
	{"volumes", honoured, ""},
	{"volumes.*", honoured, ""},
	{"include", honoured, ""},
	{"include.[].env_file", honoured, ""},
	{"include.[].path", honoured, ""},
	{"include.[].project_directory", honoured, ""},
	{"jobs", refused, "jobs are not supported"},
	{"models", refused, "models are not supported"},
}

var serviceRules = []rule{
	{"services.*.annotations", differs, "needs Docker 24 on the nodes; an older engine leaves them out"},
	{"services.*.annotations.*", honoured, ""},
	{"services.*.attach", warned, "nothing is attached to on deploy; use orch service logs"},
	{"services.*.blkio_config", warned, notYet + "; disk access is not limited"},
	{"services.*.cap_add", honoured, ""},
	{"services.*.cap_drop", honoured, ""},
	{"services.*.cgroup", honoured, ""},
	{"services.*.cgroup_parent", warned, notYet + "; orch keeps tasks in a group of its own"},
	{"services.*.command", honoured, ""},
	{"services.*.container_name", differs, "a name more of the service on its networks; containers are named after tasks"},
	{"services.*.cpu_count", warned, notYet + "; use deploy.resources.limits.cpus"},
	{"services.*.cpu_percent", warned, notYet + "; use deploy.resources.limits.cpus"},
	{"services.*.cpu_period", warned, notYet + "; use deploy.resources.limits.cpus"},
	{"services.*.cpu_quota", warned, notYet + "; use deploy.resources.limits.cpus"},
	{"services.*.cpu_rt_period", warned, notYet},
	{"services.*.cpu_rt_runtime", warned, notYet},
	{"services.*.cpu_shares", honoured, ""},
	{"services.*.cpus", honoured, ""},
	{"services.*.cpuset", honoured, ""},
	{"services.*.credential_spec", refused, "it belongs to Windows containers; orch runs Linux containers"},
	{"services.*.depends_on", honoured, ""},
	{"services.*.depends_on.*", honoured, ""},
	{"services.*.depends_on.*.condition", honoured, ""},
	{"services.*.depends_on.*.required", honoured, ""},
	{"services.*.depends_on.*.restart", warned, notYet + "; a service is not restarted because one it depends on was"},
	{"services.*.deploy", honoured, ""},
	{"services.*.develop", warned, "it is for developing on one machine and has no part in a deploy"},
	{"services.*.device_cgroup_rules", honoured, ""},
	{"services.*.devices", honoured, ""},
	{"services.*.devices.[].permissions", honoured, ""},
	{"services.*.devices.[].source", honoured, ""},
	{"services.*.devices.[].target", honoured, ""},
	{"services.*.dns", honoured, ""},
	{"services.*.dns_opt", honoured, ""},
	{"services.*.dns_search", honoured, ""},
	{"services.*.domainname", honoured, ""},
	{"services.*.entrypoint", honoured, ""},
	{"services.*.env_file", honoured, ""},
	{"services.*.env_file.[].format", honoured, ""},
	{"services.*.env_file.[].path", honoured, ""},
	{"services.*.env_file.[].required", honoured, ""},
	{"services.*.environment", honoured, ""},
	{"services.*.environment.*", honoured, ""},
	{"services.*.expose", warned, "not needed: every port of a task is open to the tasks it shares a network with"},
	{"services.*.extends", honoured, ""},
	{"services.*.extends.file", honoured, ""},
	{"services.*.extends.service", honoured, ""},
	{"services.*.external_links", refused, "share a network with the other stack and use the service's full name, STACK_SERVICE"},
	{"services.*.extra_hosts", differs, "host-gateway is refused: tasks have no way to their node by a name"},
	{"services.*.extra_hosts.*", honoured, ""},
	{"services.*.gpus", honoured, ""},
	{"services.*.gpus.[].capabilities", honoured, ""},
	{"services.*.gpus.[].count", honoured, ""},
	{"services.*.gpus.[].device_ids", honoured, ""},
	{"services.*.gpus.[].driver", honoured, ""},
	{"services.*.gpus.[].options", honoured, ""},
	{"services.*.gpus.[].options.*", honoured, ""},
	{"services.*.group_add", honoured, ""},
	{"services.*.healthcheck", honoured, ""},
	{"services.*.healthcheck.disable", honoured, ""},
	{"services.*.healthcheck.interval", honoured, ""},
	{"services.*.healthcheck.retries", honoured, ""},
	{"services.*.healthcheck.start_interval", differs, "needs Docker 25 on the nodes; an older engine uses interval from the start"},
	{"services.*.healthcheck.start_period", honoured, ""},
	{"services.*.healthcheck.test", honoured, ""},
	{"services.*.healthcheck.timeout", honoured, ""},
	{"services.*.hostname", honoured, ""},
	{"services.*.image", honoured, ""},
	{"services.*.init", honoured, ""},
	{"services.*.ipc", differs, "host, private, shareable or none; another container's is refused"},
	{"services.*.isolation", refused, "it belongs to Windows containers; orch runs Linux containers"},
	{"services.*.label_file", honoured, ""},
	{"services.*.labels", honoured, ""},
	{"services.*.labels.*", honoured, ""},
	{"services.*.links", honoured, ""},
	{"services.*.logging", honoured, ""},
	{"services.*.logging.driver", honoured, ""},
	{"services.*.logging.options", honoured, ""},
	{"services.*.logging.options.*", honoured, ""},
	{"services.*.mac_address", warned, "a task's hardware address follows from its IP address"},
	{"services.*.mem_limit", honoured, ""},
	{"services.*.mem_reservation", honoured, ""},
	{"services.*.mem_swappiness", warned, "cgroups of version 2 have no such thing; use memswap_limit"},
	{"services.*.memswap_limit", honoured, ""},
	{"services.*.models", refused, "models are not supported"},
	{"services.*.network_mode", refused, "orch makes the network of every task; use networks"},
	{"services.*.networks", honoured, ""},
	{"services.*.networks.*", honoured, ""},
	{"services.*.networks.*.aliases", honoured, ""},
	{"services.*.networks.*.driver_opts", warned, "a task has one interface for all its networks"},
	{"services.*.networks.*.gw_priority", warned, "a task has one interface for all its networks"},
	{"services.*.networks.*.interface_name", warned, "a task has one interface for all its networks, eth0"},
	{"services.*.networks.*.ipv4_address", refused, "addresses come from the cluster's pool; use the name of the service"},
	{"services.*.networks.*.ipv6_address", refused, "addresses come from the cluster's pool; use the name of the service"},
	{"services.*.networks.*.link_local_ips", warned, "a task has one address"},
	{"services.*.networks.*.mac_address", warned, "a task's hardware address follows from its IP address"},
	{"services.*.networks.*.priority", warned, "a task has one interface for all its networks"},
	{"services.*.networks.*.use_service_name_alias", warned, "the name of a service resolves on all its networks"},
	{"services.*.oom_kill_disable", warned, "cgroups of version 2 have no such thing; raise the limit of memory"},
	{"services.*.oom_score_adj", honoured, ""},
	{"services.*.pid", differs, "host; another container's is refused"},
	{"services.*.pids_limit", honoured, ""},
	{"services.*.platform", differs, "tasks run on nodes of that platform; a variant of it, such as v8, is not looked at"},
	{"services.*.ports", honoured, ""},
	{"services.*.ports.[].app_protocol", warned, "orch forwards packets and does not look into them"},
	{"services.*.ports.[].host_ip", honoured, ""},
	{"services.*.ports.[].mode", honoured, ""},
	{"services.*.ports.[].name", warned, "the name of a port is not used"},
	{"services.*.ports.[].protocol", honoured, ""},
	{"services.*.ports.[].published", honoured, ""},
	{"services.*.ports.[].target", honoured, ""},
	{"services.*.post_start", refused, "hooks are not supported yet; do it in the entrypoint"},
	{"services.*.pre_start", refused, "hooks are not supported yet; do it in the entrypoint"},
	{"services.*.pre_stop", refused, "hooks are not supported yet; do it on the stop signal"},
	{"services.*.privileged", honoured, ""},
	{"services.*.profiles", honoured, ""},
	{"services.*.provider", refused, "providers are not supported; a service is an image"},
	{"services.*.pull_policy", honoured, ""},
	{"services.*.pull_refresh_after", warned, notYet + "; an image is pulled where it is missing"},
	{"services.*.read_only", honoured, ""},
	{"services.*.restart", honoured, ""},
	{"services.*.runtime", honoured, ""},
	{"services.*.scale", honoured, ""},
	{"services.*.security_opt", differs, "of no-new-privileges, label, apparmor and seccomp; the file of a seccomp profile is read on deploy"},
	{"services.*.shm_size", honoured, ""},
	{"services.*.stdin_open", honoured, ""},
	{"services.*.stop_grace_period", honoured, ""},
	{"services.*.stop_signal", honoured, ""},
	{"services.*.storage_opt", honoured, ""},
	{"services.*.sysctls", honoured, ""},
	{"services.*.sysctls.*", honoured, ""},
	{"services.*.tmpfs", honoured, ""},
	{"services.*.tty", honoured, ""},
	{"services.*.ulimits", honoured, ""},
	{"services.*.ulimits.*", honoured, ""},
	{"services.*.ulimits.*.hard", honoured, ""},
	{"services.*.ulimits.*.soft", honoured, ""},
	{"services.*.umask", warned, notYet + "; the image's is used"},
	{"services.*.use_api_socket", refused, "the engine's socket is not given to tasks"},
	{"services.*.user", honoured, ""},
	{"services.*.userns_mode", honoured, ""},
	{"services.*.uts", refused, "a task has a UTS namespace of its own"},
	{"services.*.volumes", honoured, ""},
	{"services.*.volumes.[].bind", honoured, ""},
	{"services.*.volumes.[].bind.create_host_path", warned, notYet + "; the path has to exist on the node"},
	{"services.*.volumes.[].bind.propagation", honoured, ""},
	{"services.*.volumes.[].bind.recursive", warned, notYet + "; the engine's default is used"},
	{"services.*.volumes.[].bind.selinux", warned, notYet},
	{"services.*.volumes.[].consistency", warned, "it has no meaning on Linux"},
	{"services.*.volumes.[].image", refused, "images cannot be mounted yet"},
	{"services.*.volumes.[].read_only", honoured, ""},
	{"services.*.volumes.[].source", honoured, ""},
	{"services.*.volumes.[].target", honoured, ""},
	{"services.*.volumes.[].tmpfs", honoured, ""},
	{"services.*.volumes.[].tmpfs.mode", honoured, ""},
	{"services.*.volumes.[].tmpfs.size", honoured, ""},
	{"services.*.volumes.[].type", honoured, ""},
	{"services.*.volumes.[].volume", honoured, ""},
	{"services.*.volumes.[].volume.labels", warned, "labels are not set on volumes"},
	{"services.*.volumes.[].volume.nocopy", honoured, ""},
	{"services.*.volumes.[].volume.subpath", honoured, ""},
	{"services.*.volumes_from", refused, "tasks may be on different nodes; name the volume in both services"},
	{"services.*.working_dir", honoured, ""},
	{"services.*.x-orch", honoured, ""},
	{"services.*.x-orch.progress_deadline", honoured, ""},
	{"services.*.x-orch.max_concurrent", honoured, ""},
	{"services.*.x-orch.singleton", honoured, ""},
	{"services.*.x-orch.affinity", honoured, ""},
	{"services.*.x-orch.prefer", honoured, ""},
	{"services.*.x-orch.return", honoured, ""},
}

var deployRules = []rule{
	{"services.*.deploy.endpoint_mode", honoured, ""},
	{"services.*.deploy.labels", honoured, ""},
	{"services.*.deploy.labels.*", honoured, ""},
	{"services.*.deploy.mode", honoured, ""},
	{"services.*.deploy.placement", honoured, ""},
	{"services.*.deploy.placement.constraints", honoured, ""},
	{"services.*.deploy.placement.max_replicas_per_node", honoured, ""},
	{"services.*.deploy.placement.preferences", honoured, ""},
	{"services.*.deploy.placement.preferences.[].spread", honoured, ""},
	{"services.*.deploy.replicas", honoured, ""},
	{"services.*.deploy.resources", honoured, ""},
	{"services.*.deploy.resources.limits", honoured, ""},
	{"services.*.deploy.resources.limits.cpus", honoured, ""},
	{"services.*.deploy.resources.limits.memory", honoured, ""},
	{"services.*.deploy.resources.limits.pids", honoured, ""},
	{"services.*.deploy.resources.reservations", honoured, ""},
	{"services.*.deploy.resources.reservations.cpus", honoured, ""},
	{"services.*.deploy.resources.reservations.devices", honoured, ""},
	{"services.*.deploy.resources.reservations.devices.[].capabilities", honoured, ""},
	{"services.*.deploy.resources.reservations.devices.[].count", honoured, ""},
	{"services.*.deploy.resources.reservations.devices.[].device_ids", honoured, ""},
	{"services.*.deploy.resources.reservations.devices.[].driver", honoured, ""},
	{"services.*.deploy.resources.reservations.devices.[].options", honoured, ""},
	{"services.*.deploy.resources.reservations.devices.[].options.*", honoured, ""},
	{"services.*.deploy.resources.reservations.generic_resources", honoured, ""},
	{"services.*.deploy.resources.reservations.generic_resources.[].discrete_resource_spec", honoured, ""},
	{"services.*.deploy.resources.reservations.generic_resources.[].discrete_resource_spec.kind", honoured, ""},
	{"services.*.deploy.resources.reservations.generic_resources.[].discrete_resource_spec.value", honoured, ""},
	{"services.*.deploy.resources.reservations.memory", honoured, ""},
	{"services.*.deploy.restart_policy", honoured, ""},
	{"services.*.deploy.restart_policy.condition", honoured, ""},
	{"services.*.deploy.restart_policy.delay", honoured, ""},
	{"services.*.deploy.restart_policy.max_attempts", honoured, ""},
	{"services.*.deploy.restart_policy.window", honoured, ""},
	{"services.*.deploy.rollback_config", honoured, ""},
	{"services.*.deploy.rollback_config.delay", honoured, ""},
	{"services.*.deploy.rollback_config.failure_action", honoured, ""},
	{"services.*.deploy.rollback_config.max_failure_ratio", honoured, ""},
	{"services.*.deploy.rollback_config.monitor", honoured, ""},
	{"services.*.deploy.rollback_config.order", honoured, ""},
	{"services.*.deploy.rollback_config.parallelism", honoured, ""},
	{"services.*.deploy.update_config", honoured, ""},
	{"services.*.deploy.update_config.delay", honoured, ""},
	{"services.*.deploy.update_config.failure_action", honoured, ""},
	{"services.*.deploy.update_config.max_failure_ratio", honoured, ""},
	{"services.*.deploy.update_config.monitor", honoured, ""},
	{"services.*.deploy.update_config.order", honoured, ""},
	{"services.*.deploy.update_config.parallelism", honoured, ""},
}

var networkRules = []rule{
	{"networks.*.attachable", warned, "only tasks can join a network"},
	{"networks.*.driver", honoured, ""},
	{"networks.*.driver_opts", honoured, ""},
	{"networks.*.driver_opts.*", warned, notYet},
	{"networks.*.driver_opts.encrypted", differs, "by WireGuard, of which every node that may run a task on it, or forward to it, has to be capable; see encryption.md"},
	{"networks.*.enable_ipv4", warned, "every task has an IPv4 and an IPv6 address"},
	{"networks.*.enable_ipv6", differs, "every task has an IPv6 address beside its IPv4 address, whatever this says"},
	{"networks.*.external", honoured, ""},
	{"networks.*.external.name", honoured, ""},
	{"networks.*.internal", honoured, ""},
	{"networks.*.ipam", warned, "addresses come from the cluster's pool, which is set by orch init"},
	{"networks.*.labels", warned, "labels are not set on networks"},
	{"networks.*.name", honoured, ""},
}

var volumeRules = []rule{
	{"volumes.*.driver", honoured, ""},
	{"volumes.*.driver_opts", honoured, ""},
	{"volumes.*.driver_opts.*", honoured, ""},
	{"volumes.*.external", honoured, ""},
	{"volumes.*.external.name", honoured, ""},
	{"volumes.*.labels", honoured, ""},
	{"volumes.*.labels.*", honoured, ""},
	{"volumes.*.name", honoured, ""},
}

func join(groups ...[]rule) map[string]rule {
	all := map[string]rule{}
	for _, group := range groups {
		for _, r := range group {
			all[r.path] = r
		}
	}
	return all
}

// below are, for each key of the table that has keys below it, those keys. A *
// among them lets any key stand there.
var below = func() map[string][]string {
	m := map[string][]string{}
	for path := range rules {
		parent, name := "", path
		if i := strings.LastIndexByte(path, '.'); i >= 0 {
			parent, name = path[:i], path[i+1:]
		}
		m[parent] = append(m[parent], name)
	}
	for _, names := range m {
		slices.Sort(names)
	}
	return m
}()

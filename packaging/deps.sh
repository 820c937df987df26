#!/bin/sh
# Installs what is missing on this machine, by its own package manager, and
# starts the Docker Engine if none is running. It can be run any number of times,
# without a terminal, and after a run that was killed half way; when nothing is
# missing it does nothing, in well under a second.
#
#   packaging/deps.sh engine   what a node needs, and an engine that answers
#   packaging/deps.sh test     that, and what the tests use
#   packaging/deps.sh dev      that, and what regenerates the eBPF programs
#   packaging/deps.sh bench    engine, and what the benchmarks compare with
#   packaging/deps.sh kernels  what boots other kernels
set -eu
PATH=$PATH:/usr/sbin:/sbin

say() { echo "deps: $*" >&2; }
die() { say "$*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

case ${1:-} in
engine | test | dev | bench | kernels) ;;
*) die "usage: $0 engine|test|dev|bench|kernels" ;;
esac

# --- packages -----------------------------------------------------------------

# Prints the package that has a program: Debian's name, Fedora's, Alpine's.
package_of() {
	case $1 in
	dockerd)        names="docker.io moby-engine docker" ;;
	docker)         names="docker-cli moby-engine docker-cli" ;;
	ip)             names="iproute2 iproute iproute2" ;;
	nft)            names="nftables nftables nftables" ;;
	iptables)       names="iptables iptables-nft iptables" ;;
	clang)          names="clang clang clang" ;;
	llvm-strip)     names="llvm llvm llvm" ;;
	bpf/bpf_helpers.h) names="libbpf-dev libbpf-devel libbpf-dev" ;;
	redis-server)   names="redis-server redis redis" ;;
	ethtool)        names="ethtool ethtool ethtool" ;;
	mkfs.ext4)      names="e2fsprogs e2fsprogs e2fsprogs" ;;
	haproxy)        names="haproxy haproxy haproxy" ;;
	nginx)          names="nginx-light nginx nginx" ;;
	wrk)            names="wrk wrk wrk" ;;
	qemu-system-x86_64) names="qemu-system-x86 qemu-system-x86-core qemu-system-x86_64" ;;
	xz)             names="xz-utils xz xz" ;;
	iperf3)         names="iperf3 iperf3 iperf3" ;;
	*)              die "no package is known for $1" ;;
	esac
	# shellcheck disable=SC2086
	set -- $names
	case $manager in
	apt) echo "$1" ;;
	dnf) echo "$2" ;;
	apk) echo "$3" ;;
	esac
}

find_manager() {
	if have apt-get; then manager=apt
	elif have dnf; then manager=dnf
	elif have apk; then manager=apk
	else manager=none
	fi
}

present() {
	case $1 in
	*.h) [ -e "/usr/include/$1" ] ;;
	*) have "$1" ;;
	esac
}

# Installs the packages of the programs given that are not there.
need() {
	missing=
	for program; do
		present "$program" || missing="$missing $program"
	done
	[ -n "$missing" ] || return 0
	find_manager
	[ "$manager" != none ] || die "this machine needs$missing, and has none of apt-get, dnf, apk to install them with"
	[ "$(id -u)" = 0 ] || die "this machine needs$missing: run again as root to install them"
	packages=
	for program in $missing; do
		packages="$packages $(package_of "$program")"
	done
	say "installing$packages"
	# shellcheck disable=SC2086
	install_"$manager" $packages >&2 9>&- || die "could not install$packages"
	for program in $missing; do
		present "$program" || die "installed$packages, but there is still no $program"
	done
}

install_apt() {
	export DEBIAN_FRONTEND=noninteractive
	# RUNLEVEL=1: without systemd, what is installed does not start to serve by
	# itself. The engine is started below.
	apt() { RUNLEVEL=1 apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" </dev/null; }
	dpkg --configure -a </dev/null || true # of an installation that was killed
	apt install --no-install-recommends "$@" && return
	apt update && apt install --no-install-recommends "$@"
}
install_dnf() { dnf -q -y install --setopt=install_weak_deps=False "$@" </dev/null; }
install_apk() { apk add --quiet "$@" </dev/null; }

# --- the Docker Engine ---------------------------------------------------------

# The distribution's client first: another one in PATH may be set up for a
# different engine.
docker_client() {
	if [ -x /usr/bin/docker ]; then echo /usr/bin/docker; else command -v docker; fi
}

engine_answers() {
	client=$(docker_client) || return 1
	"$client" -H "${DOCKER_HOST:-unix:///var/run/docker.sock}" version >/dev/null 2>&1
}

# Removes a pid file that names no live process of that program: after a crash
# the number may be another process's, and the engine would refuse to start.
drop_stale_pid() {
	[ -e "$1" ] || return 0
	pid=$(cat "$1" 2>/dev/null || true)
	if [ -z "$pid" ] || [ "$(cat "/proc/$pid/comm" 2>/dev/null || true)" != "$2" ]; then
		say "removing stale $1"
		rm -f "$1"
	fi
}

engine_runs() { # whether or not it answers yet
	pid=$(cat /var/run/docker.pid 2>/dev/null || true)
	[ -n "$pid" ] && [ "$(cat "/proc/$pid/comm" 2>/dev/null || true)" = dockerd ]
}

start_engine() {
	engine_answers && return 0
	[ -z "${DOCKER_HOST:-}" ] || die "no Docker Engine answers at DOCKER_HOST=$DOCKER_HOST"
	[ "$(id -u)" = 0 ] || die "the Docker Engine does not answer: run again as root to start it"
	log=/var/log/orch-dockerd.log
	if [ "$(cat /proc/1/comm)" = systemd ] && have systemctl; then
		say "starting the Docker Engine by systemd"
		log="journalctl -u docker"
		systemctl start docker </dev/null || die "systemd could not start docker: see $log"
	elif ! engine_runs; then
		drop_stale_pid /var/run/docker.pid dockerd
		drop_stale_pid /var/run/docker/containerd/containerd.pid containerd
		say "starting the Docker Engine, log in $log"
		# Descriptor 9 is the lock, which must not outlive this script.
		setsid dockerd >>"$log" 2>&1 </dev/null 9>&- &
		started=$!
	fi
	tries=0
	until engine_answers; do
		tries=$((tries + 1))
		if [ "$tries" -gt 300 ] || { [ -n "${started:-}" ] && ! kill -0 "$started" 2>/dev/null; }; then
			[ ! -f "$log" ] || tail -n 15 "$log" >&2
			die "the Docker Engine did not start: see $log"
		fi
		sleep 0.2
	done
}

mount_bpf() {
	! grep -q ' /sys/fs/bpf bpf ' /proc/mounts || return 0
	[ "$(id -u)" = 0 ] || die "/sys/fs/bpf is not mounted: run again as root"
	mount -t bpf bpf /sys/fs/bpf
}

# --- what was asked for ---------------------------------------------------------

main() {
	if [ "$1" = kernels ]; then
		need ip ethtool xz qemu-system-x86_64
		return
	fi
	need dockerd docker iptables ip nft
	case $1 in
	test) need redis-server ethtool mkfs.ext4 ;;
	dev) need redis-server ethtool mkfs.ext4 clang llvm-strip bpf/bpf_helpers.h ;;
	bench) need haproxy nginx wrk iperf3 ;;
	esac
	mount_bpf
	start_engine
}

# One at a time, where the machine can say so.
if [ "$(id -u)" = 0 ] && have flock; then
	exec 9>/run/orch-deps.lock
	flock 9
fi
main "$1"

#!/bin/sh
# Shows orch on this machine: a cluster of three nodes, the blog deployed on it,
# and its page fetched through every node. `make demo` runs it once orch is built
# and a Docker Engine is there. It starts afresh each time, also after a run that
# was ended half way, and leaves the cluster up.
#
# ORCH is the program (bin/orch), LAB the lab's name (lab).
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
repo=$(CDPATH= cd -- "$here/../.." && pwd)
cd "$repo"
ORCH=${ORCH:-bin/orch}
LAB=${LAB:-lab}

if [ "$LAB" = lab ]; then named=; else named=" --name $LAB"; fi
bold= plain=
if [ -t 1 ]; then
	bold=$(printf '\033[1m') plain=$(printf '\033[0m')
fi

heading() { printf '\n%s== %s%s\n\n' "$bold" "$*" "$plain"; }

# lab and on show the command as one would type it, then run it.
lab() {
	echo "\$ $ORCH lab$named $*"
	"$ORCH" lab --name "$LAB" "$@"
}

on() {
	node=$1
	shift
	echo "\$ $ORCH lab$named exec $node -- $*"
	"$ORCH" lab --name "$LAB" exec "$node" -- "$@"
}

client() { "$ORCH" lab --name "$LAB" exec client -- "$@"; }

die() {
	echo "demo: $*" >&2
	exit 1
}

[ "$(id -u)" = 0 ] || die "the nodes are network namespaces, which needs root: use sudo"
[ -x "$ORCH" ] || die "$ORCH is not there; build it with make build"
if ! command -v curl >/dev/null 2>&1; then
	for install in 'apt-get install -qq -y curl' 'dnf install -q -y curl' 'apk add -q curl' 'pacman -S -q --noconfirm curl'; do
		! command -v "${install%% *}" >/dev/null 2>&1 || $install >/dev/null 2>&1 || true
	done
	command -v curl >/dev/null 2>&1 || die "install curl, then run this again"
fi

heading "The images, built here: no registry is needed"
"$here/images.sh"

heading "A cluster of three nodes on this machine"
# What an earlier run left behind, whole or not, is in the way.
"$ORCH" lab --name "$LAB" down >/dev/null
lab up

heading "The blog, deployed from its compose file"
on n1 orch deploy -c examples/blog/compose.yaml blog
echo
on n1 orch node ls
echo
on n1 orch service ls
echo
on n1 orch stack ps blog

heading "Every node answers, and the program sees who asks"
nodes=$("$ORCH" lab --name "$LAB" ls | awk '$2 ~ /^n[0-9]+$/ { print $2 "=" $3 }')
self=$("$ORCH" lab --name "$LAB" ls | awk '$2 == "client" { print $3 }')
field() { printf '%s' "$1" | sed -n "s/.*\"$2\":\"\([^\"]*\)\".*/\1/p"; }
echo "The client, outside the cluster, has the address $self."
for n in $nodes; do
	addr=${n#*=}
	answer=$(client curl -sS --fail --max-time 10 "http://$addr:8080/whoami") || die "no answer through ${n%%=*}"
	seen=$(field "$answer" client)
	printf '  through %s (%s): replica %s, version %s, asked by %s\n' \
		"${n%%=*}" "$addr" "$(field "$answer" replica)" "$(field "$answer" version)" "$seen"
	[ "$seen" = "$self" ] || die "the program saw $seen, not the client's address"
done

echo
echo "Of ten requests through each, on a new connection every time:"
answers=
for n in $nodes; do
	ten=$(client curl -sS --fail --max-time 30 -H 'Connection: close' "http://${n#*=}:8080/whoami?[1-10]") ||
		die "a request through ${n%%=*} was not answered"
	answers="$answers$ten
"
done
printf '%s' "$answers" | sed 's/.*"replica":"\([^"]*\)".*/\1/' | sort | uniq -c |
	while read -r count replica; do echo "  $count by replica $replica"; done

heading "A post made through one node is read through another"
first=${nodes%%
*}
last=${nodes##*
}
client curl -sS --fail --max-time 10 -o /dev/null -d 'title=Hello from the demo' -d 'text=Three replicas, one database.' \
	"http://${first#*=}:8080/posts" || die "the post was not taken through ${first%%=*}"
client curl -sS --fail --max-time 10 "http://${last#*=}:8080/" | grep -q 'Hello from the demo' ||
	die "the post does not show through ${last%%=*}"
echo "Posted through ${first%%=*}, read through ${last%%=*}."

heading "The cluster is up. What to try next"
cat <<EOF
  $ORCH lab$named exec n1 -- orch service scale blog_web=6
  $ORCH lab$named exec client -- curl -s http://${last#*=}:8080/whoami
  VERSION=2 $ORCH lab$named exec n1 -- orch deploy -c examples/blog/compose.yaml blog
  $ORCH lab$named kill ${last%%=*}
  $ORCH lab$named exec n1 -- orch stack ps blog

Take it down with:

  $ORCH lab$named down
EOF

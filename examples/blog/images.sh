#!/bin/sh
# Builds the images of the example on this machine's Docker Engine, without a
# registry: blog-web:1 and blog-web:2 from the Go program in web/, and blog-db:1
# from the distribution's own Redis. An image whose contents are already there
# is left alone, so it can be run any number of times.
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
repo=$(CDPATH= cd -- "$here/../.." && pwd)
# One place, emptied first: a run that was killed leaves nothing that grows. One
# run at a time uses it.
work=$repo/.cache/blog-images
mkdir -p "$repo/.cache"
exec 9>"$work.lock"
flock 9
rm -rf "$work"
mkdir "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

die() {
	echo "images: $*" >&2
	exit 1
}

# The first client that reaches an engine: a machine may have one in its PATH
# that does not.
docker=
for candidate in docker /usr/bin/docker /usr/local/bin/docker; do
	if "$candidate" version --format '{{.Server.Version}}' >/dev/null 2>&1; then
		docker=$candidate
		break
	fi
done
[ -n "$docker" ] || die "no Docker Engine answers; is it running?"

# build NAME CONTEXT: an image from the files of CONTEXT, its Dockerfile among
# them, unless NAME has been made of just these files.
build() {
	content=$(cd "$2" && find . | LC_ALL=C sort | while read -r f; do
		stat -c '%n %a' "$f"
		[ -d "$f" ] || sha256sum "$f"
	done | sha256sum | cut -d' ' -f1)
	label=dev.orch.example.content
	old=$("$docker" image inspect -f '{{.Id}}' "$1" 2>/dev/null) || old=
	if [ "$("$docker" image inspect -f "{{index .Config.Labels \"$label\"}}" "$1" 2>/dev/null)" = "$content" ]; then
		echo "$1: up to date"
		return
	fi
	tar -C "$2" -c . | DOCKER_BUILDKIT=0 "$docker" build --quiet --label "$label=$content" --tag "$1" - >"$work/log" 2>&1 || {
		cat "$work/log" >&2
		die "cannot build $1"
	}
	# What had the name is of no use any more, unless a container runs it.
	[ -z "$old" ] || "$docker" image rm "$old" >/dev/null 2>&1 || true
	echo "$1: built"
}

# blog-web: one static program and nothing else. The versions differ in what
# they call themselves.
mkdir "$work/web"
(cd "$repo" && CGO_ENABLED=0 go build -buildvcs=false -trimpath -ldflags='-s -w' -o "$work/web/web" ./examples/blog/web)
for version in 1 2; do
	cat >"$work/web/Dockerfile" <<-EOF
		FROM scratch
		COPY web /web
		ENV VERSION=$version
		USER 65534:65534
		EXPOSE 8080
		ENTRYPOINT ["/web"]
	EOF
	build "blog-web:$version" "$work/web"
done

# Redis as the distribution has it. Where it is not installed it is unpacked
# beside the system, since installing it would start a service.
root=/
if ! command -v redis-server >/dev/null 2>&1 || ! command -v redis-cli >/dev/null 2>&1; then
	if command -v apt-get >/dev/null 2>&1; then
		mkdir -p "$work/debs/partial" "$work/unpacked"
		fetch() { apt-get install -qq -y --no-install-recommends --download-only -o "Dir::Cache::archives=$work/debs" redis-server redis-tools; }
		fetch >"$work/log" 2>&1 || { apt-get update -qq && fetch; } >"$work/log" 2>&1 || {
			cat "$work/log" >&2
			die "cannot download Redis"
		}
		for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/unpacked"; done
		root=$work/unpacked
	elif command -v dnf >/dev/null 2>&1; then
		dnf install -y -q redis >"$work/log" 2>&1 || { cat "$work/log" >&2; die "cannot install Redis"; }
	else
		die "install Redis (redis-server and redis-cli), then run this again"
	fi
fi

# blog-db: the two programs, the shared libraries that they need, nothing else.
libraries=$(find "$root/lib" "$root/usr/lib" -maxdepth 1 -type d -name '*-linux-gnu*' 2>/dev/null | paste -sd: -)
mkdir -p "$work/db/root/usr/bin" "$work/db/data"
for program in redis-server redis-cli; do
	if [ "$root" = / ]; then found=$(command -v "$program"); else found=$root/usr/bin/$program; fi
	cp -L "$found" "$work/db/root/usr/bin/$program"
	if [ "$root" = / ]; then linked=$(ldd "$found"); else linked=$(LD_LIBRARY_PATH=$libraries ldd "$found"); fi
	case $linked in *"not found"*) die "$program lacks libraries: $linked" ;; esac
	echo "$linked" | grep -o '/[^ ]*' | while read -r library; do
		target=$work/db/root${library#"$work/unpacked"}
		[ -e "$target" ] || { mkdir -p "$(dirname "$target")" && cp -L "$library" "$target"; }
	done
done
cat >"$work/db/Dockerfile" <<'EOF'
FROM scratch
COPY root /
COPY --chown=999:999 data /data
USER 999:999
WORKDIR /data
VOLUME /data
EXPOSE 6379
# Protected mode lets only the own machine in; here the network is the fence.
CMD ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data", "--appendonly", "yes"]
EOF
build blog-db:1 "$work/db"

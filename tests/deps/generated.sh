#!/bin/sh
# Regenerates what `make generate` generates into a temporary directory, and fails if
# it differs from what is committed. Nothing in the tree is touched.
set -eu
cd "$(dirname "$0")/../.."

if ! command -v clang >/dev/null || ! command -v llvm-strip >/dev/null; then
	echo "generated: no clang here, so not compared (packaging/deps.sh dev installs it)" >&2
	exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
trap 'exit 1' HUP INT TERM

# Only the same compiler gives the same object, but any gives the same bindings.
pinned=14
have=$(clang -dumpversion | cut -d. -f1)
status=0

# compare NEW OLD
compare() {
	case $1 in
	*.o) [ "$have" = "$pinned" ] || { echo "generated: $2 is built with clang $pinned, here is $have: not compared" >&2; return; } ;;
	esac
	if ! cmp -s "$1" "$2"; then
		echo "generated: $2 is not what its sources give: run make generate" >&2
		status=1
	fi
}

for package in bpf tests/bench/least; do
	mkdir -p "$out/$package"
	sed -n -e 's/^\/\/go:generate go tool bpf2go /go tool bpf2go -output-dir "$new" /p' \
		-e 's/^\/\/go:generate \(clang .*\)-o .*\/other.o$/\1-o "$new\/other.o"/p' \
		-e 's/^\/\/go:generate llvm-strip -g .*/llvm-strip -g "$new\/other.o"/p' "$package"/*.go >"$out/commands"
	[ -s "$out/commands" ] || { echo "generated: no go:generate line in $package" >&2; exit 1; }
	(
		cd "$package"
		export GOPACKAGE="${package##*/}" new="$out/$package"
		. "$out/commands"
	)
	for new in "$out/$package"/*; do
		case $new in
		*/other.o) compare "$new" pkg/dataplane/testdata/other.o ;;
		*) compare "$new" "$package/${new##*/}" ;;
		esac
	done
done
exit $status

#!/bin/sh
# Regenerates what `go generate ./bpf` generates into a temporary directory, and
# fails if it differs from what is committed. Nothing in the tree is touched.
set -eu
cd "$(dirname "$0")/../../bpf"

if ! command -v clang >/dev/null || ! command -v llvm-strip >/dev/null; then
	echo "generated: no clang here, so not compared (packaging/deps.sh dev installs it)" >&2
	exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
trap 'exit 1' HUP INT TERM

sed -n 's/^\/\/go:generate go tool bpf2go /go tool bpf2go -output-dir "$out" /p' ./*.go >"$out/commands"
sed -n -e 's/^\/\/go:generate \(clang .*\)-o .*\/other.o$/\1-o "$out\/other.o"/p' \
	-e 's/^\/\/go:generate llvm-strip -g .*/llvm-strip -g "$out\/other.o"/p' ./*.go >>"$out/commands"
[ -s "$out/commands" ] || { echo "generated: no go:generate line in bpf" >&2; exit 1; }
export GOPACKAGE=bpf
. "$out/commands"
rm "$out/commands"

# Only the same compiler gives the same object, but any gives the same bindings.
pinned=14
have=$(clang -dumpversion | cut -d. -f1)
status=0
for new in "$out"/*; do
	name=$(basename "$new")
	case $name in
	*.o) [ "$have" = "$pinned" ] || { echo "generated: $name is built with clang $pinned, here is $have: not compared" >&2; continue; } ;;
	esac
	case $name in
	other.o) old=../pkg/dataplane/testdata/$name ;;
	*) old=$name ;;
	esac
	if ! cmp -s "$new" "$old"; then
		echo "generated: bpf/$old is not what its sources give: run make generate" >&2
		status=1
	fi
done
exit $status

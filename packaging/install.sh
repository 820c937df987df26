#!/bin/sh
# Installs orch and its systemd unit, or upgrades them. A daemon that runs is
# restarted, which neither containers nor their connections notice.
#
#   packaging/install.sh PATH-OF-ORCH
set -eu
[ $# = 1 ] || { echo "usage: $0 PATH-OF-ORCH" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "install: needs root" >&2; exit 1; }
here=$(cd "$(dirname "$0")" && pwd)

# By a rename: a program that runs cannot be written to, and one that is started
# at this moment must be whole.
install -D -m 0755 "$1" /usr/local/bin/.orch.new
mv -f /usr/local/bin/.orch.new /usr/local/bin/orch

if [ "$(cat /proc/1/comm)" != systemd ]; then
	echo "install: /usr/local/bin/orch is there; no systemd here, start \`orch daemon\` your own way"
	exit 0
fi
install -D -m 0644 "$here/orch.service" /etc/systemd/system/orch.service
systemctl daemon-reload
systemctl enable orch.service
systemctl restart orch.service
echo "install: the daemon runs; next: orch init, or orch join TOKEN@HOST:PORT"

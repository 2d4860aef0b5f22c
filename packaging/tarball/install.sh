#!/bin/sh
# Installs runner-agent from the unpacked archive in which this script is, or removes it again. Nothing is downloaded.
#
#   ./install.sh [--prefix DIRECTORY] [--root DIRECTORY] [--no-systemd]
#   ./install.sh --uninstall [the same options]
#
# --prefix      where bin and share go (default: /usr/local)
# --root        installs into the root of another system, such as an image; no service is touched
# --no-systemd  without the unit
#
# All files are compared with SHA256SUMS before the first one is written. The unit is enabled, and starts once there is
# an /etc/runner-agent/agent.toml. A running service is restarted, which keeps all registrations. Settings, state and
# config.toml are never touched; --uninstall keeps them too.
set -eu
umask 022

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

prefix=/usr/local root='' systemd=yes action=install
while [ $# -gt 0 ]; do
    case $1 in
    --prefix | --root)
        [ $# -ge 2 ] || fail "$1 needs a directory"
        case $2 in
        *[!A-Za-z0-9/._+-]*) fail "$1 needs a path of letters, digits and /._+-, not $2" ;;
        /*) ;;
        *) fail "$1 needs an absolute path, not $2" ;;
        esac
        if [ "$1" = --prefix ]; then prefix=${2%/}; else root=${2%/}; fi
        shift
        ;;
    --no-systemd) systemd= ;;
    --uninstall) action=uninstall ;;
    --help)
        sed -n '2,/^set/ { /^set/d; s/^# \{0,1\}//; p; }' "$0"
        exit
        ;;
    *) fail "unknown argument $1; see --help" ;;
    esac
    shift
done
cd "$(dirname "$0")"

binary=$prefix/bin/runner-agent
unit=/etc/systemd/system/runner-agent.service
tmpfile=/etc/tmpfiles.d/runner-agent.conf
[ -n "$systemd" ] && [ -d "$root/etc/systemd" ] || systemd=
# Services are those of this machine, not of an image.
is_live=
if [ -n "$systemd" ] && [ -z "$root" ] && [ -d /run/systemd/system ]; then is_live=yes; fi

# place SOURCE TARGET MODE: replaces a file at once, so that a running program keeps its own.
place() {
    mkdir -p "$(dirname "$root$2")"
    cp "$1" "$root$2.new"
    chmod "$3" "$root$2.new"
    mv -f "$root$2.new" "$root$2"
}

installed_files() {
    find share -type f | while read -r file; do echo "$prefix/$file"; done
    echo "$binary"
}

if [ "$action" = uninstall ]; then
    if [ -n "$is_live" ] && systemctl is-active --quiet runner-agent; then
        fail "the service is running. 'systemctl stop runner-agent' unregisters runners according to agent.toml; 'systemctl kill --signal=QUIT runner-agent' keeps them all"
    fi
    if [ -n "$is_live" ]; then systemctl --quiet disable runner-agent || true; fi
    installed_files | while read -r file; do rm -f "$root$file"; done
    rm -f "$root$unit" "$root$tmpfile" "$root/etc/systemd/system/multi-user.target.wants/runner-agent.service"
    rm -rf "$root$prefix/share/doc/runner-agent"
    if [ -n "$is_live" ]; then systemctl daemon-reload; fi
    echo "removed; /etc/runner-agent and /var/lib/runner-agent are kept"
    exit
fi

command -v sha256sum >/dev/null || fail 'sha256sum is missing'
compared=$(sha256sum -c SHA256SUMS 2>&1) || {
    echo "$compared" | grep -v ': OK$' >&2
    fail 'a file of this archive is not as it was packed: nothing is installed'
}
[ "$(find . -type f ! -name SHA256SUMS | wc -l)" -eq "$(wc -l <SHA256SUMS)" ] ||
    fail 'this archive has files that were not packed: nothing is installed'
if [ -z "$root" ] && [ -e /usr/bin/runner-agent ] && [ "$prefix" != /usr ] && [ -n "$systemd" ]; then
    fail '/usr/bin/runner-agent exists, of a package: remove the package first, or use --no-systemd'
fi
if [ -z "$root" ]; then
    bin/runner-agent --version >/dev/null || fail 'the binary of this archive does not run on this machine'
fi

find share -type f | while read -r file; do place "$file" "$prefix/$file" 644; done
place bin/runner-agent "$binary" 755
if [ -n "$systemd" ]; then
    work=$(mktemp)
    trap 'rm -f "$work"' EXIT
    sed "s|/usr/bin/runner-agent|$binary|" systemd/runner-agent.service >"$work"
    place "$work" "$unit" 644
    place systemd/runner-agent.tmpfile "$tmpfile" 644
    [ -d "$root/etc/runner-agent" ] || mkdir -m 700 "$root/etc/runner-agent"
    if [ -n "$is_live" ]; then
        systemctl daemon-reload
        systemctl --quiet enable runner-agent
        systemctl try-restart runner-agent
    else
        mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
        ln -sfn "$unit" "$root/etc/systemd/system/multi-user.target.wants/runner-agent.service"
    fi
fi
echo "installed $root$binary"

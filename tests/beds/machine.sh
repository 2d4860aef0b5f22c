# A Debian 12 that systemd has booted, in a container of its own; sourced after common.sh. The test GitLab is
# on its network. Its disk lasts as long as the bed.
# shellcheck shell=bash disable=SC2154,SC2119,SC2120

machine=runner-agent-bed-$$
machine_log=$work/machine.log

# The Debian that every bed begins with, made once and kept.
debian() {
    local root=target/beds/bookworm
    if [[ ! -e $root.complete ]]; then
        rm -rf "$root"
        mkdir -p target/beds
        mmdebstrap --quiet --variant=minbase \
            --include=systemd,systemd-sysv,dbus,libnss-systemd,procps,ca-certificates \
            --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' bookworm "$root"
        # What the bed installs is installed whole.
        rm "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
        touch "$root.complete"
    fi
    echo "$root"
}

# make_machine: its disk and its network.
make_machine() {
    cp -a --reflink=auto "$(debian)" "$work/root"
    ip netns add "$machine"
    undo+=(drop_network drop_machine)
    ip -n "$machine" link set lo up
}

drop_network() { ip netns delete "$machine"; }

# boot OPTION…: with further options for systemd-nspawn; returns when systemd says that it is up.
boot() {
    # In a mount namespace with cgroups v2 alone, and in a cgroup of its own.
    # shellcheck disable=SC2016
    setsid unshare --mount --propagation private bash -c '
        umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup
        mkdir -p "/sys/fs/cgroup/$1" && echo $$ >"/sys/fs/cgroup/$1/cgroup.procs"
        exec systemd-nspawn --quiet --boot --directory="$0" --machine="$1" --bind-ro="$2:/packages" \
            --network-namespace-path="/run/netns/$1" --register=no --keep-unit --console=pipe --link-journal=no "${@:3}"' \
        "$work/root" "$machine" "$PWD/dist" "$@" </dev/null >>"$machine_log" 2>&1 &
    container=$!
    eventually is_up
}

# The container's own number of processes begins anew with every boot: the first is systemd.
inside() {
    nsenter -t "$(pgrep -P "$container" -x systemd)" --all \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"
}

is_up() {
    local state
    state=$(inside systemctl is-system-running 2>/dev/null) || true
    [[ $state == running || $state == degraded ]]
}

# reboot: as `systemctl reboot` does it. Such a container ends with 133, and has to be booted anew.
reboot() {
    local code=0
    inside systemctl reboot || true
    wait "$container" || code=$?
    container=
    ((code == 133)) || { echo "the machine ended with $code"; return 1; }
    boot
}

# power_off: as `systemctl poweroff` does it.
power_off() {
    inside systemctl poweroff || true
    wait "$container" || true
    container=
}

drop_machine() {
    if [[ -n ${container:-} ]]; then
        kill -TERM "$container" 2>/dev/null || true
        wait "$container" || true
        container=
    fi
    drop_cgroup
}

drop_cgroup() {
    # shellcheck disable=SC2016
    unshare --mount --propagation private bash -c '
        umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup
        find "/sys/fs/cgroup/$0" -depth -type d -exec rmdir {} +' "$machine" 2>/dev/null || true
}

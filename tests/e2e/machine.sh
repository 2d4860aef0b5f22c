# A Debian 12 container booted by systemd, on the network of the test GitLab; sourced after common.sh. The script
# deletes its disk at the end.
# shellcheck shell=bash disable=SC2154,SC2119,SC2120

machine=runner-agent-e2e-$$
machine_log=$work/machine.log

# make_machine [ROOT]: creates disk and network; the disk is a copy of this root or of that of most scripts.
make_machine() {
    undo+=(drop_network drop_machine)
    cp -a --reflink=auto "${1:-$(tests/e2e/debian)}" "$work/root"
    ip netns add "$machine"
    ip -n "$machine" link set lo up
}

drop_network() { ip netns delete "$machine" 2>/dev/null; }

# boot OPTION…: boots with further options for systemd-nspawn; returns once systemd is up.
boot() {
    # In a mount namespace with only cgroups v2, and in its own cgroup.
    # shellcheck disable=SC2016
    setsid unshare --mount --propagation private bash -c '
        umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup
        mkdir -p "/sys/fs/cgroup/$1" && echo $$ >"/sys/fs/cgroup/$1/cgroup.procs"
        exec systemd-nspawn --quiet --boot --directory="$0" --machine="$1" --bind-ro="$2:/packages" \
            --network-namespace-path="/run/netns/$1" --register=no --keep-unit --console=pipe --link-journal=no "${@:3}"' \
        "$work/root" "$machine" "$work/packages" "$@" </dev/null >>"$machine_log" 2>&1 &
    container=$!
    eventually is_up
}

# Every boot starts a new process namespace, whose first process is systemd.
inside() {
    nsenter -t "$(pgrep -P "$container" -x systemd)" --all \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"
}

is_up() {
    local state
    state=$(inside systemctl is-system-running 2>/dev/null) || true
    [[ $state == running || $state == degraded ]]
}

# reboot: runs `systemctl reboot`. The container exits with 133 and is booted again.
reboot() {
    local code=0
    inside systemctl reboot || true
    wait "$container" || code=$?
    container=
    ((code == 133)) || { echo "the machine ended with $code"; return 1; }
    boot
}

# power_off: runs `systemctl poweroff`.
power_off() {
    inside systemctl poweroff || true
    wait "$container" || true
    container=
}

drop_machine() {
    local process
    [[ -z ${container:-} ]] || end "$container"
    container=
    stop_gitlab
    for process in $(ip netns pids "$machine" 2>/dev/null); do
        kill -KILL "$process" 2>/dev/null || true
    done
    drop_cgroup
}

# A cgroup can be removed once its last process is gone.
drop_cgroup() {
    # shellcheck disable=SC2016
    timeout --signal KILL 10 unshare --mount --propagation private bash -c '
        umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup
        cd /sys/fs/cgroup
        while [[ -d $0 ]] && ! find "$0" -depth -type d -exec rmdir {} +; do sleep 0.2; done' "$machine" 2>/dev/null || true
}

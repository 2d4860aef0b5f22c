# podman in its own namespaces, which keeps cgroups, networks and images of the machine unchanged; sourced after
# common.sh. Its containers share the loopback network of the test GitLab.
# shellcheck shell=bash disable=SC2154

# make_podman: keeps the namespaces open until the script ends.
make_podman() {
    settings >"$work/containers.conf"
    printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/images"\nrunroot = "/run/images"\n' "$work" >"$work/storage.conf"
    mkdir "$work/images"
    # shellcheck disable=SC2016
    unshare --mount --net --propagation private bash -c '
        umount -R /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup
        mount -t tmpfs tmpfs /run && mkdir -p /run/lock /run/netns && ip link set lo up
        touch "$0" && exec sleep infinity' "$work/ready" &
    namespaces=$!
    undo+=(drop_containers)
    eventually test -e "$work/ready"
}

settings() {
    cat <<-'END'
	[containers]
	cgroups = "disabled"
	default_ulimits = ["nofile=20000:20000", "nproc=1000:1000"]
	[engine]
	cgroup_manager = "cgroupfs"
	events_logger = "file"
	runtime = "crun"
	END
}

# there COMMAND…: runs a command in those namespaces.
there() {
    nsenter --target "$namespaces" --mount --net \
        env --chdir="$PWD" CONTAINERS_CONF="$work/containers.conf" CONTAINERS_STORAGE_CONF="$work/storage.conf" "$@"
}

drop_containers() {
    there timeout --signal KILL 20 podman rm --all --force --time 0 --volumes >/dev/null 2>&1 || true
    stop_gitlab
    clear_network "$namespaces"
    there umount --lazy "$work/images/overlay" >/dev/null 2>&1 || true
    end "$namespaces"
}

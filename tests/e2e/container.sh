#!/usr/bin/env bash
# The container image under podman, with strict restrictions and the test GitLab on its network.
# shellcheck source-path=SCRIPTDIR
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" container
# shellcheck source=podman.sh
. tests/e2e/podman.sh

cargo build --locked --quiet --example gitlab
make_podman
# The files of the image do not depend on the umask.
(umask 077 && there packaging/build-image --quiet) >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }

explain() { there podman logs --tail 20 agent; }

# --- Operations on the container -------------------------------------------------------------------------------

# run NAME OPTION…: runs the image as uid 65534 with minimal privileges.
run() {
    local hostname=$1
    shift
    there podman run --detach --name agent --hostname "$hostname" --network host --read-only --read-only-tmpfs=false \
        --cap-drop all --security-opt no-new-privileges --user 65534 \
        --env CI_SERVER_URL="$gitlab_url" "$@" runner-agent
}

by_registration_token() {
    run "$@" --volume "$work/token:/run/secrets/token:ro" --env REGISTRATION_TOKEN_FILE=/run/secrets/token
}

by_own_token() {
    run one --volume "$work/own-token:/run/secrets/token:ro" --env CI_SERVER_TOKEN_FILE=/run/secrets/token "$@"
}

agent() { there podman exec agent /runner-agent "$@"; }
log() { there podman logs agent 2>&1; }
healthy() { there podman healthcheck run agent; }
id() { agent list --output json | grep -o '"id": *[0-9]*'; }
is_well() { agent status --wait ready --timeout 2m >/dev/null; }
is_running() { [[ $(there podman inspect --format '{{.State.Running}}' agent) == true ]]; }
has_ended() { ! is_running; }
remove() { there podman rm --force --time 0 agent >/dev/null 2>&1; }
pid() { there podman inspect --format '{{.State.Pid}}' agent; }

# secret NAME TOKEN: writes a file that uid 65534 and group 0 can read.
secret() { install -m 640 -o 65534 -g 0 /dev/stdin "$work/$1" <<<"$2"; }

# --- Checks, one per function -----------------------------------------------------------------------------------

at_most() { (($1 <= $2)) || { echo "$1 is more than $2"; return 1; }; }
image_bytes() { there podman image inspect --format '{{.Size}}' runner-agent; }
resident_kib() { sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$(pid)/status"; }

has_no_shell() { fails there podman run --rm --network none --entrypoint /bin/sh runner-agent -c true && equal "$(files)" "$1"; }
files() { there find "$(there podman image mount runner-agent)" -type f -printf '%P\n' | sort | xargs; }

registers() { by_registration_token one --volume data:/data && is_well && equal "$(registrations)" 1 && id=$(id); }

survives_a_kill() {
    there podman kill --signal KILL agent && eventually has_ended && there podman start agent && is_well &&
        equal "$(id)" "$id" && equal "$(registrations)" 1
}

survives_a_new_container() {
    there podman kill --signal KILL agent && remove && by_registration_token another --volume data:/data && is_well &&
        equal "$(id)" "$id" && equal "$(registrations)" 1 && has "$(agent list)" '^one '
}

health_fails_when_it_hangs() {
    there podman kill --signal STOP agent && fails healthy
    there podman kill --signal CONT agent && eventually healthy
}

not_ready_without_gitlab() {
    remove && stop_gitlab && by_registration_token one --volume data:/data && eventually healthy && fails agent health --ready
}

stop_unregisters() {
    # podman kills the container after ten seconds.
    there podman stop agent && equal "$(there podman inspect --format '{{.State.ExitCode}}' agent)" 0 &&
        equal "$(unregistrations)" "$1"
}

comes_back_under_its_name() {
    remove && by_registration_token a-third --volume data:/data && is_well && has "$(agent list)" '^one ' && stop_unregisters 2
}

# lacks_tokens: environment, command line and log contain neither the registration token nor the runner's own.
lacks_tokens() {
    local places token
    token=$(sed -n 's/^ *token = "\(.*\)"/\1/p' "/proc/$(pid)/root/data/config.toml")
    places=$(tr '\0' '\n' <"/proc/$(pid)/environ" && tr '\0' '\n' <"/proc/$(pid)/cmdline" && log) || return
    [[ -n $token ]] && has "$places" registered && lacks "$places" "$registration_token" && lacks "$places" "$token"
}

# The process loses the variable; podman itself still knows it.
hands_over() {
    remove && run one --volume over:/data --env REGISTRATION_TOKEN="$registration_token" && is_well && lacks_tokens
}

warns_about_memory() {
    by_own_token --tmpfs /data:rw,mode=1777 && is_well && has "$(log)" 'mount a volume'
}

warns_without_a_volume() {
    remove && by_own_token --read-only=false && is_well && has "$(log)" 'mount a volume' &&
        grep -q token "/proc/$(pid)/root/data/config.toml"
}

does_not_warn_with_a_volume() {
    remove && by_own_token --volume own:/data && is_well && lacks "$(log)" 'mount a volume'
}

takes_any_user() {
    remove && by_registration_token one --volume any:/data --user 1234567:0 && is_well
}

# ends_with_2 WORDS OPTION…: the container ends with exit code 2 and says these words.
ends_with_2() {
    local words=$1
    shift
    remove
    there podman run --detach --name agent --network host "$@" runner-agent
    eventually has_ended && equal "$(there podman inspect --format '{{.State.ExitCode}}' agent)" 2 && has "$(log)" "$words"
}

waits_for_config() {
    remove && there podman run --detach --name agent --network host --env WAIT_FOR_CONFIG=true runner-agent &&
        eventually healthy && has "$(log)" 'waiting for another process'
}

# --- The first hour of a new user --------------------------------------------------------------------------------

# What README.md says, on the network of the test GitLab.
starts_as_documented() {
    remove && mkdir -p "$work/user" && install -m 400 -o 65534 "$work/own-token" "$work/user/runner-token"
    block sh 'podman run' | sed 's|podman run|podman run --network host|' | there sh -euc "cd '$work/user' && . /dev/stdin" &&
        has "$(there podman exec runner-agent /runner-agent list)" active
    local result=$?
    there podman rm --force --time 40 runner-agent
    return "$result"
}

# ends CODE WORDS OPTION…: the container ends with this code and says all words, separated by `|`.
ends() {
    local code=$1 words=$2
    shift 2
    says "$code" "$words" there timeout 60 podman run --rm --network host --env CI_SERVER_URL="$gitlab_url" "$@" runner-agent
}

# logs WORDS OPTION…: the container says these words and goes on.
logs() {
    local words=$1
    shift
    remove && run one "$@" && eventually has_logged "$words" && is_running
}
has_logged() { says 0 "$1" log; }

# of_another_user NAME MODE: a file with the registration token that belongs to user 1000.
of_another_user() { install -m "$2" -o 1000 -g 1000 /dev/stdin "$work/$1" <<<"$registration_token"; }
by_file() { printf '%s\n' --volume "$work/$1:/run/secrets/token:ro" --env REGISTRATION_TOKEN_FILE=/run/secrets/token; }

# --- Checks -----------------------------------------------------------------------------------------------------------

chmod 711 "$work"
secret token "$registration_token"
start_gitlab nsenter --target "$namespaces" --net

printf '  %s: the image has %s bytes\n' "$e2e" "$(image_bytes)"
check 'the image is at most 22 MiB'                                at_most "$(image_bytes)" $((22 * 1024 * 1024))
check 'it holds the agent and the authorities, and no shell'       has_no_shell 'etc/ssl/certs/ca-certificates.crt runner-agent'
check 'an address and a token file are enough to register'         registers
printf '  %s: the agent has %s KiB resident\n' "$e2e" "$(resident_kib)"
check 'the agent has at most 12 MiB resident'                      at_most "$(resident_kib)" $((12 * 1024))
check 'it runs as uid 65534, without capabilities'                 has "$(cat "/proc/$(pid)/status")" '^CapEff:.*0000000000000000'
check 'the health check passes'                                    healthy
check 'no token is in its environment or its log'                  lacks_tokens
check 'it survives a kill as the same runner'                      survives_a_kill
check 'a new container of another name on its volume does too'     survives_a_new_container
check 'the health check fails while the agent hangs'               health_fails_when_it_hangs
check 'a stop unregisters within its ten seconds'                  stop_unregisters 1
check 'the next container registers it by the name it had'         comes_back_under_its_name
check 'with GitLab down it is healthy but not ready'               not_ready_without_gitlab
remove
start_gitlab nsenter --target "$namespaces" --net
secret own-token "$(created_token nsenter --target "$namespaces" --net)"
check 'a given token whose state is in memory causes a warning'    warns_about_memory
check 'a given token without a volume causes a warning'            warns_without_a_volume
check 'a given token with a volume causes no warning'              does_not_warn_with_a_volume
check 'any other user in group 0 works'                            takes_any_user
check 'a token of the environment does not stay in the process'    hands_over
check 'without settings it says what is missing'                   ends_with_2 'set CI_SERVER_URL and one of'
check 'an address alone is not enough, and it says so'             ends_with_2 'CI_SERVER_URL is set: add one of' --env CI_SERVER_URL="$gitlab_url"
check 'a sidecar waits for its config.toml'                        waits_for_config
check 'README.md: the runner is ready'                             starts_as_documented
of_another_user open 644
of_another_user closed 600
install -m 400 -o 65534 /dev/stdin "$work/access" <<<glpat-abcdefghij1234567890
install -d -m 755 -o 1000 -g 1000 "$work/theirs"
mapfile -t open < <(by_file open)
mapfile -t closed < <(by_file closed)
mapfile -t access < <(by_file access)
check "a token file that all users can read: the owner that works" logs 'mode 0644|chown 65534|chmod 0400' "${open[@]}" --volume readable:/data
check "a token file of another user: the owner that works"         logs 'Permission denied|chown 65534|chmod 0400' "${closed[@]}" --volume closed:/data
check 'an access token is no registration token'                   logs 'access token (glpat-)|registration token|is needed here' "${access[@]}" --volume class:/data
remove
check 'a bind mount of another user: the owner that works'         ends 4 'chown 65534:0 /data|:U|--user 1000' "${open[@]}" --volume "$work/theirs:/data"
check 'a volume that is read-only'                                 ends 4 'read-only|as a writable volume' "${open[@]}" --volume ro:/data:ro
check 'a volume that is full'                                      ends 4 'No space left|df -h /data' "${open[@]}" --tmpfs /data:rw,size=4k,mode=1777
remove

verdict

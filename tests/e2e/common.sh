# Shared functions of the e2e scripts. Each script sets up a real system, checks one sentence after the other, and
# fails at its end if a check failed. It works in $work, which it deletes afterwards together with all its processes.
#
# Sourced as `. common.sh NAME`.
# shellcheck shell=bash disable=SC2034
set -euo pipefail
e2e=$1
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

work=$(mktemp -d)
failures=0
undo=()

# Stops all processes and undoes the setup, newest first; also after Ctrl-C or a timeout of the stage.
clean_up() {
    local index
    # Neither a failure nor a second signal may interrupt this. Children would inherit an ignored signal, so it is trapped.
    set +e
    trap : INT TERM HUP
    for ((index = ${#undo[@]} - 1; index >= 0; index--)); do
        "${undo[index]}"
    done
    # shellcheck disable=SC2046
    end $(jobs -pr)
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# end PROCESS…: terminates children, even stopped ones, and kills the remaining ones after ten seconds.
end() {
    local until=$((SECONDS + 10)) process
    for process; do
        kill -TERM "$process" 2>/dev/null || true
        kill -CONT "$process" 2>/dev/null || true
    done
    for process; do
        while kill -0 "$process" 2>/dev/null && ((SECONDS < until)); do sleep 0.1; done
        kill -KILL "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
}

# clear_network PROCESS: kills all other processes in the network namespace of this process.
clear_network() {
    local network process
    network=$(readlink "/proc/$1/ns/net") || return 0
    [[ $network != "$(readlink /proc/self/ns/net)" ]] || return 0
    for process in /proc/[0-9]*; do
        [[ ${process#/proc/} != "$1" && $(readlink "$process/ns/net" 2>/dev/null) == "$network" ]] || continue
        kill -KILL "${process#/proc/}" 2>/dev/null || true
    done
}

# check SENTENCE COMMAND…: prints whether the command succeeds, and its output if not.
check() {
    local sentence=$1 result=ok
    shift
    if ! "$@" >"$work/said" 2>&1; then
        result=FAILED
        failures=$((failures + 1))
    fi
    printf '  %s: %-6s %s\n' "$e2e" "$result" "$sentence"
    if [[ $result == FAILED ]]; then
        sed 's/^/      /' "$work/said" | tail -n 40
        if declare -F explain >/dev/null; then explain 2>&1 | sed 's/^/      | /' || true; fi
    fi
    return 0
}

# The result of the whole script.
verdict() {
    ((failures == 0)) || { printf '  %s: %d checks failed\n' "$e2e" "$failures"; exit 1; }
}

# eventually COMMAND…: repeats the command until it succeeds, for at most two minutes.
eventually() {
    local until=$((SECONDS + 120))
    until "$@"; do
        ((SECONDS < until)) || { echo "still not after two minutes: $*"; return 1; }
        sleep 0.2
    done
}

fails() { ! "$@"; }
equal() { [[ $1 == "$2" ]] || { printf 'is      %s\nand not %s\n' "$1" "$2"; return 1; }; }
has() { grep -q -e "$2" <<<"$1" || { printf '%s\ndoes not have %s\n' "$1" "$2"; return 1; }; }
lacks() { ! has "$1" "$2" >/dev/null || { printf '%s\nhas %s\n' "$1" "$2"; return 1; }; }

# says CODE WORDS COMMAND…: the command ends with this code and says all words, separated by `|`.
says() {
    local wanted=$1 words=$2 code=0 word said
    shift 2
    said=$("$@" 2>&1 </dev/null) || code=$?
    echo "$said"
    equal "$code" "$wanted" || return
    while read -r word; do
        grep -q -i -F -e "$word" <<<"$said" || { echo "it does not say: $word"; return 1; }
    done < <(tr '|' '\n' <<<"$words")
}

# block LANGUAGE WORDS: the block of README.md's shortest path that has these words, for the test GitLab.
block() {
    awk -v fence="\`\`\`$1" -v words="$2" '
        /^## / { here = ($0 == "## The shortest path") }
        here && $0 == fence { on = 1; text = ""; next }
        on && /^```$/ { on = 0; if (index(text, words)) { printf "%s", text; exit } }
        on { text = text $0 "\n" }' README.md | sed "s|https://gitlab.example.com|$gitlab_url|"
}

registration_token='e2e-registration-token'
gitlab_url=http://127.0.0.1:8080

# start_gitlab PREFIX…: starts the test GitLab behind a prefix such as `ip netns exec NAME`, on an address
# of that network only. `gitlab_options` has more options of it.
gitlab_options=()
start_gitlab() {
    "$@" "${CARGO_TARGET_DIR:-target}/debug/examples/gitlab" --port 8080 --token-life 2h \
        --registration-token "$registration_token" "${gitlab_options[@]}" >"$work/gitlab.log" 2>&1 &
    gitlab=$!
    eventually grep -q '^access token' "$work/gitlab.log"
}

stop_gitlab() {
    [[ -z ${gitlab:-} ]] || end "$gitlab"
    gitlab=
}

# created_token PREFIX…: creates a runner as GitLab's user interface does, and prints its token.
created_token() {
    local access_token
    access_token=$(sed -n 's/^access token: //p' "$work/gitlab.log")
    "$@" curl --silent --fail --header "PRIVATE-TOKEN: $access_token" --data runner_type=instance_type \
        "$gitlab_url/api/v4/user/runners" | sed 's/.*"token": *"\([^"]*\)".*/\1/'
}

# requests METHOD PATH STATUS: counts the requests that the test GitLab answered with this status.
requests() { grep -c "^$1 /api/v4$2 $3" "$work/gitlab.log" || true; }
touch "$work/gitlab.log"
registrations() { requests POST /runners 201; }
unregistrations() { requests DELETE /runners 204; }
verifications() { requests POST /runners/verify 200; }

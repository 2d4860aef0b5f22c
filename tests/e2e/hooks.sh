#!/usr/bin/env bash
# Hooks under a booted systemd, in the unit of the package: what its sandbox allows, what it refuses, and what the
# drop-in of the page about hooks adds.
# shellcheck source-path=SCRIPTDIR
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" hooks
# shellcheck source=machine.sh
. tests/e2e/machine.sh

cargo build --locked --quiet --example gitlab
mkdir "$work/packages"
DIST=$work/packages packaging/build-deb --quiet >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }

explain() { inside journalctl --unit runner-agent --output cat --no-pager --lines 30; }

# --- Operations on the machine --------------------------------------------------------------------------------------

agent() { inside runner-agent "$@"; }
unit() { inside systemctl "$@" runner-agent.service; }
is_well() { agent status --wait ready --timeout 2m >/dev/null; }
journal() { inside journalctl --output cat --no-pager "$@"; }
log_has() { has "$(journal --unit runner-agent)" "$1" >/dev/null; }
token() { inside sed -n 's/^ *token = "\(.*\)"/\1/p' /etc/gitlab-runner/config.toml; }

# rotates: the runner's token is replaced, and every token is kept for a search.
rotates() {
    agent rotate --name e2e && token >>"$work/tokens"
}
rotations() { requests POST /runners/reset_authentication_token 201; }

# drop_in NAME: writes stdin as a drop-in.
drop_in() {
    inside mkdir -p /etc/systemd/system/runner-agent.service.d
    inside tee "/etc/systemd/system/runner-agent.service.d/$1.conf" >/dev/null
    inside systemctl daemon-reload
}

# documented: the drop-in of the page.
documented() { sed -n "/^\`\`\`ini\$/,/^\`\`\`\$/ { /^\`\`\`/d; p }" packaging/docs/hooks.md; }

# program NAME USER: a service that notes its signals in the journal, with its number in a file of root's.
program() {
    printf '%s\n' '[Service]' "User=$2" 'ExecStart=/usr/local/bin/program' "ExecStartPost=+/bin/sh -c 'echo \$MAINPID >/run/$1.pid'" |
        inside tee "/etc/systemd/system/$1.service" >/dev/null
    inside systemctl daemon-reload && inside systemctl start "$1"
}
signals() { journal --unit "$1" | grep -c '^signal$' || true; }
has_signals() { (($(signals "$1") >= $2)); }

# hook NAME LINE…: a hook of agent.toml.
hook() { printf '%s\n' '[[hook]]' "name = \"$1\"" "${@:2}"; }
# shell NAME SCRIPT LINE…: a hook that runs a script.
shell() { hook "$1" "command = [\"/bin/sh\", \"-c\", '''$2''']" "${@:3}"; }

# settings: agent.toml with one runner and the hooks of stdin.
settings() {
    { printf '%s\n' '[[enroll]]' 'name = "e2e"' "url = \"$gitlab_url\"" 'registration_token = { credential = "runner-registration-token" }' && cat; } |
        inside tee /etc/runner-agent/agent.toml >/dev/null
}

# start_receiver: a web server that notes the event, its id, and whether the signature is right.
start_receiver() {
    ip netns exec "$machine" python3 -c '
import hashlib, hmac, http.server, json, sys
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        expected = "sha256=" + hmac.new(sys.argv[1].encode(), body, hashlib.sha256).hexdigest()
        event = json.loads(body)
        is_right = self.headers["X-Runner-Agent-Signature"] == expected and self.headers["X-Runner-Agent-Event-Id"] == event["event_id"]
        print(event["event"], event["event_id"], "signed" if is_right else "forged", flush=True)
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", 9999), Receiver).serve_forever()' "$hook_secret" >"$work/received" 2>/dev/null &
    receiver=$!
    eventually ip netns exec "$machine" bash -c ': <>/dev/tcp/127.0.0.1/9999' 2>/dev/null
}

# --- Checks -----------------------------------------------------------------------------------------------------------

# signals_each PROGRAM: a signal after each of two rotations.
signals_each() {
    local before
    before=$(signals "$1")
    rotates && eventually has_signals "$1" $((before + 1)) && rotates && eventually has_signals "$1" $((before + 2))
}

# sends_by_pid_file: the unit of that user has two hooks then.
sends_by_pid_file() {
    local before
    before=$(sent)
    rotates && eventually more_sent "$before"
}
sent() { journal --unit runner-agent | grep -c 'a hook has run hook="\?pid-of-builder' || true; }
more_sent() { (($(sent) > $1)); }

# fails_with HOOK WORDS: the log has a failed attempt of the hook with these words.
fails_with() { eventually has_failed "$1" "$2" || { journal --unit runner-agent | grep "$1"; return 1; }; }
has_failed() { has "$(journal --unit runner-agent | grep "has failed.*hook=\"\\?$1\\b")" "$2" >/dev/null; }

# gets_the_token HOOK: its command prints the digest of the present token.
gets_the_token() { eventually log_has "hook=\"\\?$1\\b.*$(token | sha256sum | cut -c1-64)"; }

logs_events() { eventually has_event registered && eventually has_event rotated; }
has_event() { has "$(journal --identifier hook-events)" "\"event\":\"$1\"" >/dev/null; }

receives_webhooks() { eventually grep -q '^registered [^ ]* signed$' "$work/received" && eventually grep -q '^rotated [^ ]* signed$' "$work/received" && fails grep forged "$work/received"; }

# keeps_file: the file has the present token, with its mode and owner.
keeps_file() { eventually has_file || { inside ls -l /run/my-runner; return 1; }; }
keeps_file_after_a_rotation() { rotates && keeps_file && rotates && keeps_file; }
has_file() {
    [[ "$(inside cat /run/my-runner/token)" == "$(token)" ]] &&
        [[ "$(inside stat --format '%U:%G %a' /run/my-runner/token)" == 'root:root 644' ]] &&
        [[ "$(inside cat /run/my-runner/owned)" == "$(token)" ]] &&
        [[ "$(inside stat --format '%U:%G %a' /run/my-runner/owned)" == 'builder:builder 640' ]]
} 2>/dev/null

# keeps_run_read_only: by the mounts that the process sees. ProtectSystem= of systemd 252 leaves /run out.
keeps_run_read_only() { inside grep ' /run tmpfs ro,' "/proc/$(unit show --property MainPID --value)/mounts"; }

loses_its_file_and_writes_it_again() {
    unit stop && inside rm /run/my-runner/token && unit start && is_well && keeps_file
}

# Without the directory the unit must start all the same: it has more runners than this one.
starts_without_the_directory() {
    unit stop && inside rm -r /run/my-runner && unit start && is_well && inside systemd-tmpfiles --create my-runner.conf
}

comes_back() { reboot && is_well && keeps_file; }

# interrupted COMMAND…: ends the agent by this command while a hook runs, which then runs again for the same event.
interrupted() {
    local begun
    begun=$(slow begins | wc -l)
    rotates && eventually has_begun $((begun + 1)) && "$@" && is_well && eventually has_ended "$(slow begins | tail -n 1)"
}
slow() { journal --identifier hook-slow | sed -n "s/ $1\$//p"; }
has_begun() { (($(slow begins | wc -l) >= $1)); }
has_ended() { has "$(slow ends)" "^$1\$"; }
repeats() { interrupted "$@" && (($(slow begins | grep -cx "$(slow begins | tail -n 1)") >= 2)); }

# Every event has come, in order, and under one id of its own.
has_all_in_order() {
    local firsts expected
    firsts=$(slow begins | awk '!seen[$0]++')
    expected=$(printf 'registered\n'; for ((n = $(rotations); n > 0; n--)); do echo rotated; done)
    equal "$(cut -d ' ' -f 1 <<<"$firsts")" "$expected" && equal "$(uniq <<<"$(slow begins)")" "$firsts"
}

shows_no_token() {
    local places secret
    places=$(inside sh -c 'cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr "\0" "\n"; journalctl --no-pager --output export; systemctl status --no-pager --full --lines 1000 runner-agent')
    [[ -s $work/tokens ]] || return
    while read -r secret; do
        lacks "$places" "$secret" || return
    done < <(cat "$work/tokens" && echo "$hook_secret" && echo "$registration_token")
}

# A command that has the token is running meanwhile.
shows_no_token_to_others() {
    local begun
    begun=$(slow begins | wc -l)
    rotates && eventually has_begun $((begun + 1)) && shows_no_token
}

# --- Programs ---------------------------------------------------------------------------------------------------------

make_machine
mkdir -p "$work/root/var/log/journal"
boot
inside apt-get install -y --no-install-recommends "/packages/$(basename "$work"/packages/*.deb)" >"$work/install.log" 2>&1

hook_secret='e2e-hook-secret'
inside useradd --system --user-group builder
inside install -D -m 600 /dev/stdin /etc/credstore/runner-registration-token <<<"$registration_token"
inside install -m 600 /dev/stdin /etc/runner-agent/hook-secret <<<"$hook_secret"
printf '[Service]\nLoadCredential=hook-secret:/etc/runner-agent/hook-secret\n' | drop_in credential
echo 'd /run/my-runner 0755 root root' | inside tee /etc/tmpfiles.d/my-runner.conf >/dev/null
inside systemd-tmpfiles --create
printf '%s\n' '#!/bin/bash' 'trap "echo signal" HUP' 'while :; do sleep 1000 & wait $!; kill $!; done' |
    inside install -m 755 /dev/stdin /usr/local/bin/program
program gitlab-runner root
program of-root root
program of-builder builder
start_gitlab ip netns exec "$machine"
start_receiver

# shellcheck disable=SC2016
{
    hook gitlab-runner 'signal = { unit = "gitlab-runner.service" }'
    hook unit-of-builder 'signal = { unit = "of-builder.service" }'
    hook unit-missing 'signal = { unit = "missing.service" }' 'retries = 0'
    hook unit-stopped 'signal = { unit = "systemd-halt.service" }' 'retries = 0'
    hook pid-of-root 'signal = { pid_file = "/run/of-root.pid" }'
    hook pid-of-builder 'signal = { pid_file = "/run/of-builder.pid" }'
    hook own-file 'runner = "e2e"' 'write_token = { path = "/run/my-runner/token", mode = "0644" }'
    hook owned-in-run 'runner = "e2e"' 'write_token = { path = "/run/my-runner/owned", mode = "0640", owner = "builder" }'
    hook owned-file 'runner = "e2e"' 'write_token = { path = "/etc/gitlab-runner/token-of-builder", owner = "builder" }'
    hook events 'command = ["/usr/bin/logger", "-t", "hook-events"]'
    shell descriptor 'sha256sum <&3' 'token = "fd:3"'
    shell stdin 'sha256sum' 'token = "stdin"'
    shell in-file 'sha256sum <"$RUNNER_AGENT_TOKEN_FILE"' 'token = "file"'
    shell writes 'echo 1 >/var/lib/mine' 'retries = 0'
    hook web 'webhook = "http://127.0.0.1:9999/events"' 'secret = { credential = "hook-secret" }'
    shell slow 'logger -t hook-slow "$RUNNER_AGENT_EVENT $RUNNER_AGENT_EVENT_ID begins"; sleep 1; logger -t hook-slow "$RUNNER_AGENT_EVENT $RUNNER_AGENT_EVENT_ID ends"' 'token = "fd:3"'
} | settings

# --- In the package's unit --------------------------------------------------------------------------------------------

unit start
check 'the runner is registered, with hooks'                       is_well
token >"$work/tokens"
check 'gitlab-runner gets a signal after each rotation'            signals_each gitlab-runner
check 'the unit of another user gets one, by systemd'              signals_each of-builder
check 'a unit that does not exist is named'                        fails_with unit-missing 'missing.service'
check 'a unit that does not run is named'                          fails_with unit-stopped 'systemd-halt.service'
check 'a process of root gets a signal by its pid file'            signals_each of-root
check 'that of another user does not, with a hint at the drop-in'  fails_with pid-of-builder 'see the drop-in for signals in hooks.md'
check 'a file in /run is not written: it is read-only'             fails_with own-file 'ReadWritePaths='
check 'a file gets no other owner, with a hint at the capability'  fails_with owned-file 'CAP_CHOWN; see hooks.md'
check 'no other directory in /run can be written to'               keeps_run_read_only
check 'a command gets the token as its descriptor 3'               gets_the_token descriptor
check 'a command gets it as its stdin'                             gets_the_token stdin
check 'a command gets it in a file'                                gets_the_token in-file
check 'the example of the page logs events'                        logs_events
check 'a command cannot write elsewhere'                           fails_with writes 'Read-only file system'
check 'a webhook is signed with a credential'                      receives_webhooks
check 'root tries a hook by hand'                                  says 0 'has got the signal HUP' agent hook test gitlab-runner
check 'a failure by hand is exit code 1'                           says 1 'missing.service' agent hook test unit-missing

# --- Across the end of the agent --------------------------------------------------------------------------------------

check 'a restart lets a hook end'                                  interrupted unit restart
check 'after kill -9 a hook runs again for the same event'         repeats unit kill --kill-whom main --signal KILL
check 'every event has come, in order'                             has_all_in_order
check 'no process, no journal and no status has a token'           shows_no_token_to_others

# --- With the drop-in of the page -------------------------------------------------------------------------------------

documented | drop_in hooks
unit restart
check 'with the drop-in the file has the token'                    keeps_file
check 'after a rotation it has the new one'                        keeps_file_after_a_rotation
check 'a process of another user gets a signal by its pid file'    sends_by_pid_file
check 'the file comes back at a start'                             loses_its_file_and_writes_it_again
check 'the unit starts without the directory of the file'          starts_without_the_directory
check 'the file comes back after a reboot'                         comes_back
check 'no journal has a token'                                     shows_no_token

end "$receiver"
verdict

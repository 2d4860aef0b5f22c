#!/usr/bin/env bash
# The Ansible role on a Debian that is booted by systemd, with the test GitLab on its network. BINARY is what is packed;
# without it an optimized binary that is there, or an unoptimized one.
# shellcheck source-path=SCRIPTDIR
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" ansible
# shellcheck source=machine.sh
. tests/e2e/machine.sh

cargo build --locked --quiet --example gitlab
binary=${BINARY:-${CARGO_TARGET_DIR:-target}/release/runner-agent}
if [[ ! -x $binary ]]; then
    cargo build --locked --quiet --bin runner-agent
    binary=${CARGO_TARGET_DIR:-target}/debug/runner-agent
fi
strip -o "$work/binary" "$binary"
mkdir "$work/packages"
BINARY=$work/binary DIST=$work/packages packaging/build-deb --quiet >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
package=$(echo "$work"/packages/*.deb)
package_sum=$(sha256sum "$package" | cut -d ' ' -f 1)
no_sum=$(printf '0%.0s' {1..64})

explain() { grep -A 3 'fatal:' "$work/play.log"; inside journalctl --unit runner-agent --output cat --no-pager --lines 20; }

# --- Ansible -------------------------------------------------------------------------------------------------------

# Ansible reaches the machine through this command instead of ssh, which writes down what it is given.
connect=$work/connect
make_connection() {
    # shellcheck disable=SC2016
    printf '#!/bin/bash\nprintf "%%s\\n" "$*" >>%q\nexec nsenter -t %q --all env -i PATH=%q HOME=/root LC_ALL=C.UTF-8 sh -c "${@: -1}"\n' \
        "$work/commands" "$(pgrep -P "$container" -x systemd)" /usr/sbin:/usr/bin:/sbin:/bin |
        install -m 755 /dev/stdin "$connect"
    printf '%s\n' '[runners]' "build-1 ansible_python_interpreter=/usr/bin/python3" >"$work/inventory"
    printf '%s\n' '[defaults]' 'nocows = true' '[connection]' 'pipelining = true' \
        '[ssh_connection]' "ssh_executable = $connect" 'ssh_args =' 'transfer_method = piped' >"$work/ansible.cfg"
}
export ANSIBLE_CONFIG=$work/ansible.cfg ANSIBLE_HOME=$work/.ansible ANSIBLE_LOCAL_TEMP=$work/.ansible/tmp NO_COLOR=1 ANSIBLE_NOCOLOR=1

# settings NAME: writes stdin as further variables of the plays, which replace earlier ones of this name.
settings() { cat >"$work/$1.json"; }

# start_server: serves the package on the machine's network. download SHA256: lets the play get it from there.
start_server() {
    ip netns exec "$machine" python3 -m http.server --bind 127.0.0.1 --directory "$work/packages" 8090 >/dev/null 2>&1 &
    server=$!
    eventually ip netns exec "$machine" curl --silent --fail --output /dev/null http://127.0.0.1:8090
}
download() {
    settings 5 <<<"{\"runner_agent_package_file\": \"\", \"runner_agent_package_sha256\": \"$1\",
        \"runner_agent_package_url\": \"http://127.0.0.1:8090/$(basename "$package")\"}"
}

# play OPTION…: runs the example with all variables, and prints the summary of the machine.
play() {
    local variables=() file code=0
    for file in "$work"/*.json; do variables+=(--extra-vars "@$file"); done
    ansible-playbook -vv --inventory "$work/inventory" "${variables[@]}" "$@" packaging/ansible/playbook.yml >"$work/play.log" 2>&1 </dev/null || code=$?
    cat "$work/play.log" >>"$work/plays.log"
    grep '^build-1 .*ok=' "$work/play.log" || true
    return "$code"
}
# changes COUNT PLAY-OPTION…: the play succeeds and changes this number of things.
changes() {
    local summary
    summary=$(play "${@:2}") && has "$summary" "changed=$1 "
}
fails_with() { fails play && has "$(cat "$work/play.log")" "$1"; }
# refuses WORDS: the play fails, says so, and leaves agent.toml.
refuses() {
    local before
    before=$(settings_sum)
    fails_with "$1" && equal "$(settings_sum)" "$before" &&
        equal "$(inside find /etc/runner-agent -name '.*' -type f)" ''
}
settings_sum() { inside sha256sum /etc/runner-agent/agent.toml; }

# --- The machine ---------------------------------------------------------------------------------------------------

agent() { inside runner-agent "$@"; }
property() { inside systemctl show --property "$1" --value runner-agent.service; }
described() {
    ip netns exec "$machine" curl --silent --fail --header "PRIVATE-TOKEN: $(sed -n 's/^access token: //p' "$work/gitlab.log")" \
        "$gitlab_url/api/v4/runners/1"
}
id() { agent list --output json | grep -o '"id": *[0-9]*' | sort; }
files() { inside find /etc /usr /var/lib /var/cache -xdev -type f -newer /root/began ! -path '/var/lib/systemd/*' -print; }
is_clean() { equal "$(files)" ''; }
is_private() { equal "$(inside stat --format '%a %U' /etc/credstore /etc/credstore/runner-registration-token /etc/runner-agent/agent.toml | paste -sd ' ')" '700 root 600 root 600 root'; }
is_in_force() { agent health --ready && equal "$(inside systemctl is-enabled runner-agent)" enabled; }
# keeps PROCESS COMMAND…: afterwards the runner is the same, and the process is the `same` or `another`.
keeps() {
    local process registered made process_kept=another
    process=$(property MainPID) registered=$(id) made=$(registrations)
    "${@:2}" || return
    [[ $(property MainPID) != "$process" ]] || process_kept=same
    equal "$process_kept" "$1" && has "$(id)" "$registered" && equal "$(registrations) $(unregistrations)" "$made 0"
}
is_verified_again() {
    local before
    before=$(verifications)
    changes 2 && (($(verifications) > before))
}
shows_a_diff() {
    local before
    before=$(settings_sum)
    changes 1 --check --diff && has "$(cat "$work/play.log")" '^+at = "40%"' && equal "$(settings_sum)" "$before"
}
hides_tokens() {
    local token journal
    journal=$(inside journalctl --no-pager --output export)
    for token in "$registration_token" "$runner_token" "$(inside sed -n 's/^ *token = "\(.*\)"/\1/p' /etc/gitlab-runner/config.toml | head -n 1)"; do
        [[ -n $token ]] && lacks "$(cat "$work/plays.log" "$work/commands")$journal" "$token" || return
    done
    equal "$(inside find /root /tmp /var/tmp -type f -path '*ansible*')" ''
}

# --- Plays ---------------------------------------------------------------------------------------------------------

check 'ansible-lint finds nothing in the production profile'   env -C packaging/ansible ansible-lint --offline --nocolor --profile production playbook.yml roles
check 'the example has the syntax of a playbook'                   ansible-playbook --syntax-check --inventory localhost, packaging/ansible/playbook.yml

make_machine "$(tests/e2e/debian ansible python3 python3-apt sudo)"
start_gitlab ip netns exec "$machine"
boot
make_connection
inside touch /root/began

enrollment="{\"name\": \"build-1\", \"url\": \"$gitlab_url\", \"registration_token\": {\"credential\": \"runner-registration-token\"},
    \"description\": \"rack \\\"7\\\" \\\\ Zürich\", \"tag_list\": [\"linux\", \"docker\"], \"run_untagged\": false, \"limit\": 4,
    \"executor\": \"docker\", \"template\": \"docker.toml\"}"
settings 1 <<<"{\"runner_agent_package_file\": \"$package\", \"vault_registration_token\": \"$registration_token\",
    \"runner_agent_wait_timeout\": \"30s\", \"runner_agent_enroll\": [$enrollment]}"

settings 9 <<<"{\"runner_agent_package_sha256\": \"$no_sum\"}"
check 'a package with another checksum is refused'                 fails_with 'is not runner_agent_package_sha256'
settings 9 <<<"{\"runner_agent_package_sha256\": \"$package_sum\"}"
check 'check mode works before the package is installed'           play --check --diff
check 'it has changed nothing'                                     is_clean
check 'the first run installs the agent and waits for its runner'  play
check 'the runner is registered, and the settings are in force'    is_in_force
check 'the runner has its description'                             has "$(described)" 'rack \\"7\\" \\\\ Zürich'
check 'the settings and credentials are for root alone'            is_private
check 'the second run changes nothing'                             keeps same changes 0
settings 2 <<<'{"runner_agent_rotate": {"at": "40%"}}'
check '--check --diff shows a new setting and does not write it'   keeps same shows_a_diff
check 'a new setting is reloaded, and the runner is kept'          keeps same is_verified_again
settings 3 <<<"{\"runner_agent_enroll\": [{\"name\": \"build-1\", \"url\": \"$gitlab_url\", \"registration_token\": \"$registration_token\"}]}"
check 'a token in the settings is refused'                         refuses 'belongs to runner_agent_credentials'
runner_token=$(created_token ip netns exec "$machine")
settings 3 <<<"{\"runner_agent_credentials\": {\"runner-registration-token\": \"$registration_token\", \"build-2-token\": \"$runner_token\"},
    \"runner_agent_enroll\": [$enrollment, {\"name\": \"build-2\", \"url\": \"$gitlab_url\", \"token\": {\"credential\": \"build-2-token\"}, \"executor\": \"shell\"}]}"
settings 4 <<<'{"runner_agent_rotate": {"att": "40%"}}'
check 'wrong settings fail, and the file is not replaced'          keeps same refuses 'unknown key .att. in .rotate'
check 'the daemon has not noticed'                                 is_in_force
rm "$work/4.json"
check 'a credential of that run is passed to the unit by a restart' keeps another play
check 'both runners are ready'                                     is_in_force
rm "$work/9.json"
start_server
download "$no_sum"
check 'a downloaded package with another checksum is refused'      refuses 'checksum for .* did not match'
download "$package_sum"
settings 6 <<<'{"runner_agent_http": {"listen": ["127.0.0.1:9252"]}}'
check 'a package is downloaded, and a new address takes effect by a restart' keeps another play
end "$server"
check 'it is served'                                               ip netns exec "$machine" curl --silent --fail http://127.0.0.1:9252/healthz
settings 5 <<<'{"runner_agent_package_file": ""}'
check 'a package with this name that is there is left as it is'    keeps same changes 0
check 'no token is in an output, a command or the journal'         hides_tokens

power_off
stop_gitlab
verdict

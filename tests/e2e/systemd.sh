#!/usr/bin/env bash
# The package under a booted systemd, with the test GitLab on its network.
# shellcheck source-path=SCRIPTDIR
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" systemd
# shellcheck source=machine.sh
. tests/e2e/machine.sh

cargo build --locked --quiet --example gitlab
mkdir "$work/packages"
for revision in 1 2; do
    DIST=$work/packages packaging/build-deb --quiet --deb-revision "$revision" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
done
# passes_lintian: as strict as Debian's archive about errors.
passes_lintian() { lintian --fail-on error --tag-display-limit 0 "$work"/packages/runner-agent_*-1_*.deb; }
package() { echo "/packages/$(basename "$work"/packages/runner-agent_*-"$1"_*.deb)"; }

explain() { inside journalctl --unit runner-agent --output cat --no-pager --lines 30; }

# --- Operations on the machine ------------------------------------------------------------------------------

agent() { inside runner-agent "$@"; }
unit() { inside systemctl "$@" runner-agent.service; }
property() { unit show --property "$1" --value; }
id() { agent list --output json | grep -o '"id": *[0-9]*'; }
is_active() { [[ $(property ActiveState) == active ]]; }
is_well() { agent status --wait ready --timeout 2m >/dev/null; }
journal() { inside journalctl --unit runner-agent --output cat --no-pager; }

# keeps COMMAND…: runs a command, and asserts that the agent is ready afterwards with the same runner.
keeps() {
    local before deleted
    before=$(id)
    deleted=$(unregistrations)
    "$@" && is_well && equal "$(id)" "$before" && equal "$(unregistrations)" "$deleted"
}

# enroll SOURCE: writes agent.toml with one runner and this source of its registration token.
enroll() {
    printf '%s\n' '[[enroll]]' 'name = "e2e"' "url = \"$gitlab_url\"" "registration_token = $1" |
        inside tee /etc/runner-agent/agent.toml >/dev/null
}

# drop_in NAME LINE…: writes a drop-in for [Service].
drop_in() {
    local name=$1
    shift
    inside mkdir -p /etc/systemd/system/runner-agent.service.d
    printf '%s\n' '[Service]' "$@" | inside tee "/etc/systemd/system/runner-agent.service.d/$name.conf" >/dev/null
    inside systemctl daemon-reload
}

no_drop_in() { inside rm "/etc/systemd/system/runner-agent.service.d/$1.conf" && inside systemctl daemon-reload; }

# secret PATH: writes a file with the registration token that only root can read.
secret() {
    inside mkdir -p "$(dirname "$1")"
    inside install -m 600 /dev/stdin "$1" <<<"$registration_token"
}

# --- Checks, one per function ---------------------------------------------------------------------------------

hang() { unit kill --kill-who main --signal STOP; }

install_package() { inside apt-get install -y --no-install-recommends "$(package "$1")"; }

waits_for_settings() {
    unit start && equal "$(unit is-enabled) $(property ActiveState) $(property ConditionResult)" 'enabled inactive no' &&
        inside test -d /etc/runner-agent -a ! -e /etc/runner-agent/agent.toml
}

verify_unit() { equal "$(inside systemd-analyze verify --man=no runner-agent.service 2>&1)" ''; }

ready_without_gitlab() {
    eventually is_active && equal "$(registrations)" 0 && agent health && fails agent health --ready
}

shows_a_summary() { has "$(unit status --no-pager)" 'Status: "1 runner ready'; }

reloads() {
    local verified
    verified=$(verifications)
    unit reload && is_active && eventually more_verified "$verified"
}

reload_of_a_typo_fails() {
    inside cp /etc/runner-agent/agent.toml /etc/runner-agent/agent.toml.good &&
        inside sh -c 'echo nonsense >>/etc/runner-agent/agent.toml' && fails unit reload && is_active &&
        eventually has_status_not_in_force && inside mv /etc/runner-agent/agent.toml.good /etc/runner-agent/agent.toml &&
        unit reload && eventually fails has_status_not_in_force
}

has_status_not_in_force() { has "$(unit status --no-pager)" 'the settings on the disk are invalid'; }

more_verified() { (($(verifications) > $1)); }

is_restarted_by_the_watchdog() {
    local restarts
    restarts=$(property NRestarts)
    hang && eventually more_restarts "$restarts" && eventually is_active &&
        has "$(inside journalctl --no-pager --output cat)" 'runner-agent.service: Watchdog timeout'
}

more_restarts() { (($(property NRestarts) > $1)); }

hang_and() {
    hang && "$@"
}

stop_unregisters() {
    local deleted
    deleted=$(unregistrations)
    unit stop && equal "$(property Result)" success && equal "$(unregistrations)" $((deleted + 1)) &&
        lacks "$(inside cat /etc/gitlab-runner/config.toml)" runners
}

start_registers() {
    local made
    made=$(registrations)
    unit start && is_well && equal "$(registrations)" $((made + 1))
}

# boot_registers OPTION…
boot_registers() {
    local made
    made=$(registrations)
    boot "$@" && is_well && equal "$(registrations)" $((made + 1))
}

power_off_unregisters() {
    local deleted
    deleted=$(unregistrations)
    power_off
    equal "$(unregistrations)" $((deleted + 1))
}

upgrade_leaves_stopped() {
    unit stop && install_package 2 && fails is_active
}

# recipe LANGUAGE: prints the code block in this language of the guide about encrypted tokens.
recipe() { sed -n '/^## Encrypted credentials/,/^## The sandbox/p' packaging/docs/systemd.md | sed -n "/^\`\`\`$1\$/,/^\`\`\`\$/ { /^\`\`\`/d; p }"; }

# Runs that recipe as root, with the token from a file instead of a prompt.
encrypts() {
    # shellcheck disable=SC2016
    inside bash -euo pipefail -c 'sudo() { "$@"; }; systemd-ask-password() { cat /root/token; }; eval "$1"' - "$(recipe sh)" &&
        inside test -s /etc/credstore.encrypted/runner-registration-token
}

# The example of a unit that registers once, started while GitLab is down.
registers_once() {
    inside sed "s#https://gitlab.example.com#$gitlab_url#" /usr/share/doc/runner-agent/examples/register-once.service |
        inside tee /etc/systemd/system/runner-register.service >/dev/null
    stop_gitlab
    inside systemctl daemon-reload && inside systemctl start --no-block runner-register &&
        eventually has_failed_to_connect && equal "$(inside systemctl is-active runner-register)" activating &&
        start_gitlab ip netns exec "$machine" && eventually has_registered_once && equal "$(registrations)" 1 &&
        agent unregister --all-runners
}

has_failed_to_connect() { has "$(inside journalctl --unit runner-register --output cat --no-pager)" 'cannot connect'; }
has_registered_once() { inside systemctl --quiet is-active runner-register; }

stays_down_with_wrong_settings() {
    inside sh -c 'echo nonsense >>/etc/runner-agent/agent.toml'
    unit start && return 1
    equal "$(property ExecMainStatus)" 4 && equal "$(property ActiveState)" failed && equal "$(property NRestarts)" 0
}

keeps_the_token_to_itself() {
    local places
    places=$(inside sh -c 'cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr "\0" "\n"; journalctl --no-pager --output export')
    lacks "$places" "$registration_token" && lacks "$places" "$(inside sed -n 's/^ *token = "\(.*\)"/\1/p' /etc/gitlab-runner/config.toml)"
}

remove_unregisters() {
    local deleted
    deleted=$(unregistrations)
    inside apt-get remove -y runner-agent && equal "$(unregistrations)" $((deleted + 1)) &&
        inside test -e /var/lib/runner-agent -a -e /etc/runner-agent/agent.toml
}

comes_back() { install_package 1 && is_well; }

purge_leaves_nothing() {
    inside apt-get purge -y runner-agent && equal "$(registrations)" "$(unregistrations)" &&
        equal "$(inside find / -xdev -path /packages -prune -o -name '*runner-agent*' -print)" '' &&
        inside test -e /etc/gitlab-runner/config.toml -a -e /etc/gitlab-runner/.runner_system_id
}

# Changes the owner, as packages with a gitlab-runner user or group do.
belongs_to() {
    inside id gitlab-runner >/dev/null 2>&1 || inside useradd --system --user-group gitlab-runner
    inside chown -R "$1" /etc/gitlab-runner
    inside chmod 640 /etc/gitlab-runner/config.toml
}

group_gets_a_hint() {
    local made
    made=$(registrations)
    unit start && eventually journal_has 'cannot keep the owner 0:' && journal_has 'SupplementaryGroups=' && unit stop &&
        equal "$(registrations)" "$made"
}

user_gets_a_hint() {
    fails unit start && journal_has '/etc/gitlab-runner/config.toml: cannot read it' && journal_has 'CapabilityBoundingSet='
}

journal_has() { has "$(journal)" "$1" >/dev/null; }

# example EXPRESSION: installs the example drop-in for such files, changed by sed.
example() {
    inside sed "$1" /usr/share/doc/runner-agent/examples/config-of-another.conf |
        inside tee /etc/systemd/system/runner-agent.service.d/config-of-another.conf >/dev/null
    inside systemctl daemon-reload
}

keeps_owner() {
    start_registers && equal "$(owner)" "$1" && stop_unregisters && equal "$(owner)" "$1"
}

owner() { inside stat --format '%U:%G %a' /etc/gitlab-runner/config.toml; }

# Provisions the machine as cloud-init does.
is_provisioned() {
    secret /run/credstore/runner-registration-token
    inside mkdir -p /etc/runner-agent
    enroll '{ credential = "runner-registration-token" }'
    inside apt-get install -y -o Dpkg::Options::=--force-confold "$(package 1)" </dev/null && is_well
}

# --- Checks -------------------------------------------------------------------------------------------------------

make_machine
boot

check 'the package installs by apt'                                install_package 1
check 'lintian reports no error'                                   passes_lintian
check 'the unit is enabled, and does not run without settings'     waits_for_settings
check 'systemd-analyze verify reports no problem'                  verify_unit
check 'the exposure by systemd-analyze security is at most 1.8'    inside systemd-analyze security --threshold=18 runner-agent.service
check 'that of register-once.service too'                           inside systemd-analyze security --offline=yes --threshold=18 /usr/share/doc/runner-agent/examples/register-once.service
check 'manual and completions are there'                           inside test -e /usr/share/man/man1/runner-agent-register.1.gz -a -e /usr/share/man/man5/runner-agent.toml.5.gz -a -e /usr/share/bash-completion/completions/runner-agent -a -e /usr/share/zsh/vendor-completions/_runner-agent -a -e /usr/share/fish/vendor_completions.d/runner-agent.fish

secret /etc/credstore/runner-registration-token
enroll '{ credential = "runner-registration-token" }'
reboot
check 'after a boot with GitLab down the agent is up but not ready' ready_without_gitlab
start_gitlab ip netns exec "$machine"
check 'once GitLab is up the runner is registered and ready'       is_well
check 'the token comes from a credential without a drop-in'        equal "$(registrations)" 1
check 'systemctl status shows a summary'                           eventually shows_a_summary
check 'runner-agent status shows one active runner'                has "$(agent status)" 'e2e .* active'
check 'a reload reads the files again and verifies'                keeps reloads
check 'a reload of a typo fails, and status says so until it is gone' keeps reload_of_a_typo_fails
check 'a restart keeps the runner'                                 keeps unit restart
drop_in impatience WatchdogSec=5s TimeoutStopSec=3s TimeoutAbortSec=1s
check 'a restart with a changed unit keeps the runner'             keeps unit restart
check 'the watchdog restarts a hanging agent'                      keeps is_restarted_by_the_watchdog
check 'a restart of a hanging agent keeps the runner'              keeps hang_and unit restart
check 'an upgrade keeps the runner'                                keeps install_package 2
check 'an upgrade of a hanging agent keeps the runner'             keeps hang_and inside dpkg -i "$(package 1)"
no_drop_in impatience
check 'a reboot keeps the runner'                                  keeps reboot
check 'no process and no journal has a token'                      keeps_the_token_to_itself
check 'powering off the machine unregisters'                       power_off_unregisters
rm "$work/root/etc/credstore/runner-registration-token"
install -m 600 /dev/stdin "$work/token" <<<"$registration_token"
check 'the next boot registers with a credential of the machine'   boot_registers --load-credential="runner-registration-token:$work/token"
check 'a stop unregisters'                                         stop_unregisters
check 'an upgrade does not start a stopped agent'                  upgrade_leaves_stopped

secret /root/token
drop_in credential 'LoadCredential=runner-registration-token:/root/token'
check 'LoadCredential= with a path provides the token'             start_registers
check 'and a stop unregisters again'                               stop_unregisters
check 'the commands of the guide encrypt the token'                encrypts
inside rm /root/token
drop_in credential "$(recipe ini | sed '/^#/d; /^\[/d')"
check 'LoadCredentialEncrypted= provides the token'                start_registers
check 'and a stop unregisters once more'                           stop_unregisters
no_drop_in credential
inside rm /etc/credstore.encrypted/runner-registration-token

belongs_to root:gitlab-runner
check 'a config.toml of a group causes an error with a hint'       group_gets_a_hint
example ''
check 'with the example drop-in the group keeps config.toml'       keeps_owner 'root:gitlab-runner 640'
no_drop_in config-of-another
belongs_to gitlab-runner:gitlab-runner
check 'a directory of another user causes an error with a hint'    user_gets_a_hint
example 's/^#Cap/Cap/'
check 'with capabilities the user keeps config.toml'               keeps_owner 'gitlab-runner:gitlab-runner 640'
no_drop_in config-of-another
belongs_to root:root

check 'a unit registers once and waits for GitLab'                  registers_once
check 'invalid settings cause no restart loop'                     stays_down_with_wrong_settings
secret /etc/runner-agent/registration-token
enroll '{ file = "registration-token" }'
check 'a token file beside agent.toml is enough'                   start_registers
check 'removing the package unregisters'                           remove_unregisters
check 'installing it again restores everything'                    comes_back
check 'purging it unregisters and leaves only config.toml'         purge_leaves_nothing
check 'settings and token from before the installation are used'   is_provisioned

verdict

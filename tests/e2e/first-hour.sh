#!/usr/bin/env bash
# The first hour of a new user, from README.md alone: the shortest path on a minimal Debian, the usual mistakes with the
# words that help, and the commands that people look for first.
# shellcheck source-path=SCRIPTDIR
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" first-hour
# shellcheck source=machine.sh
. tests/e2e/machine.sh

cargo build --locked --quiet --example gitlab
mkdir "$work/packages"
DIST=$work/packages packaging/build-deb --quiet >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }

# --- What README.md says ----------------------------------------------------------------------------------------

# block LANGUAGE NUMBER: a block of the shortest path, for the test GitLab.
block() {
    awk -v fence="\`\`\`$1" -v wanted="$2" '
        /^## / { here = ($0 == "## The shortest path") }
        here && $0 == fence { number++; if (number == wanted) { on = 1; next } }
        on && /^```$/ { exit }
        on' README.md | sed "s|https://gitlab.example.com|$gitlab_url|"
}

# on_machine: runs commands from stdin as root in its home directory, as README.md does with sudo.
on_machine() { inside sh -euc 'cd /root && . /dev/stdin'; }

prepares_as_documented() {
    created_token ip netns exec "$machine" | inside install -m 600 /dev/stdin /root/runner-token
    inside sh -c 'cp /packages/*.deb /root'
    block sh 1 | tee /dev/stderr | grep "apt install" >/dev/null
    block sh 1 | on_machine
}

writes_five_lines() {
    (($(block toml 1 | wc -l) == 5)) && block toml 1 | inside tee /etc/runner-agent/agent.toml
}

starts_as_documented() {
    block sh 2 | tee /dev/stderr | grep "status --wait ready" >/dev/null
    block sh 2 | on_machine && has "$(agent list)" '^build-1 .*active'
}

# rotates: the runner's token, which lives two hours, is new.
rotates() {
    local before after
    before=$(inside cat /etc/gitlab-runner/config.toml)
    agent rotate --name build-1 && after=$(inside cat /etc/gitlab-runner/config.toml)
    fails equal "$before" "$after"
}

# --- Mistakes -------------------------------------------------------------------------------------------------------

agent() { inside runner-agent "$@"; }

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

# registers OPTION…: a registration that asks nothing, with a configuration of its own.
registers() {
    inside timeout 60 env ${proxy:+"$proxy"} ${no_proxy:+"$no_proxy"} runner-agent --config /tmp/try/config.toml --state-dir /tmp/try/state \
        register --non-interactive --name "try $SRANDOM" "$@"
}

# file NAME TEXT: writes /tmp/try/NAME for root.
file() { inside install -D -m 600 /dev/stdin "/tmp/try/$1" <<<"$2"; }
by_token() {
    [[ " $* " == *" --executor "* ]] || set -- --executor shell "$@"
    registers --registration-token-file /tmp/try/registration "$@"
}
through() { local proxy=$1; shift; "$@"; }
around() { local no_proxy=NO_PROXY=$1 proxy=HTTPS_PROXY=http://127.0.0.1:9; shift; "$@"; }

# start_tls PORT NAME: a TLS server with this certificate, which knows no address.
start_tls() {
    ip netns exec "$machine" python3 -c '
import http.server, ssl, sys
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.BaseHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2] + ".pem", sys.argv[2] + ".key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()' "$1" "$work/$2" 2>/dev/null &
    servers+=("$!")
    eventually listens "$1" 2>/dev/null
}

# start_proxy PORT STATUS: a proxy that answers every CONNECT with this status.
start_proxy() {
    ip netns exec "$machine" python3 -c '
import http.server, sys
class Proxy(http.server.BaseHTTPRequestHandler):
    def do_CONNECT(self): self.send_error(int(sys.argv[2]))
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Proxy).serve_forever()' "$1" "$2" &
    servers+=("$!")
    eventually listens "$1" 2>/dev/null
}

listens() { ip netns exec "$machine" bash -c ": <>/dev/tcp/127.0.0.1/$1"; }

servers=()
end_servers() { end ${servers[@]+"${servers[@]}"}; servers=(); }

make_certificates() {
    (
        cd "$work"
        openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=127.0.0.1 -keyout default.key -out default.pem
        openssl req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout v1.key -out v1.csr
        openssl x509 -req -days 30 -in v1.csr -signkey v1.key -out v1.pem
        openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 \
            -keyout own.key -out own.pem
    ) >"$work/certificates.log" 2>&1 || { cat "$work/certificates.log"; return 1; }
    local name
    for name in default v1 own; do inside install -D -m 644 /dev/stdin "/tmp/try/$name.pem" <"$work/$name.pem"; done
}

# --- Commands that people look for first -----------------------------------------------------------------------------

# edit EXPRESSION: changes agent.toml by sed.
edit() { inside sed -i "$1" /etc/runner-agent/agent.toml; }

shows_the_typo() { has "$(inside systemctl status --no-pager runner-agent)" 'Status: .*agent.toml' >/dev/null; }

# typo_is_found: in the file on the disk, by every command that tells of it; the daemon goes on.
typo_is_found() {
    edit 's/^executor/exekutor/'
    says 4 'exekutor|did you mean|/etc/runner-agent/agent.toml:5' agent check &&
        says 1 'failed' inside systemctl reload runner-agent &&
        says 0 'the settings on the disk are invalid|exekutor' agent status &&
        eventually shows_the_typo
    local result=$?
    edit 's/^exekutor/executor/'
    ((result == 0)) && inside systemctl reload runner-agent && lacks "$(agent status)" exekutor
}

plans() { says 0 'build-1' agent plan && says 0 'build-1' agent run --dry-run; }

has_no_secret_bundle() {
    local bundle token
    agent doctor --bundle /tmp/try/bundle.json >/dev/null || true
    bundle=$(inside cat /tmp/try/bundle.json)
    token=$(inside sed -n 's/^ *token = "\(.*\)"/\1/p' /etc/gitlab-runner/config.toml)
    [[ -n $token ]] && has "$bundle" build-1 && lacks "$bundle" "$token" && lacks "$bundle" "$registration_token"
}

inits() {
    says 0 'runner-agent check --agent-config' agent --agent-config /tmp/try/new.toml init --from-config && has "$(inside cat /tmp/try/new.toml)" build-1
}

list_of() { agent list --config "$1"; }

# --- Checks -----------------------------------------------------------------------------------------------------------

make_machine
# A user answers yes, and has sudo.
echo 'APT::Get::Assume-Yes "true";' >"$work/root/etc/apt/apt.conf.d/90yes"
# shellcheck disable=SC2016
install -m 755 /dev/stdin "$work/root/usr/bin/sudo" <<<$'#!/bin/sh\nexec "$@"'
boot
start_gitlab ip netns exec "$machine"

check 'README.md: the package and the token are installed'         prepares_as_documented
check 'README.md: agent.toml has five lines'                       writes_five_lines
check 'README.md: the runner is ready'                             starts_as_documented
check 'and its token is rotated'                                   rotates
check 'check finds nothing'                                        says 0 '' agent check
check 'doctor finds nothing wrong'                                 says 0 'build-1|errors: 0' agent doctor
check 'plan says what comes next, as a dry run does'               plans

file registration "$registration_token"
file access glpat-abcdefghij1234567890
file deploy gldt-abcdefghij1234567890
file job glcbt-64_abcdefghij1234567890
file trigger glptt-abcdefghij1234567890abcdefghij1234567890
file runner glrt-abcdefghij1234567890
file old GR1348941abcdefghij1234567
ip netns exec "$machine" "${CARGO_TARGET_DIR:-target}/debug/examples/gitlab" --port 8443 --tls-dir "$work/tls" --registration-token "$registration_token" --quiet >"$work/tls.log" 2>&1 &
servers+=("$!")
eventually listens 8443 2>/dev/null
inside install -m 644 /dev/stdin /tmp/try/ca.pem <"$work/tls/ca.pem"

check 'an address that ends in /api/v4 is corrected'               says 0 '/api/v4` is not part' by_token --url "$gitlab_url/api/v4"
check 'the page of a project is not the address of GitLab'         says 5 "GitLab answers at $gitlab_url|no registration was sent" by_token --url "$gitlab_url/group/project"
check 'https to a port of http'                                    says 5 'speaks http on this port|no registration was sent' by_token --url https://127.0.0.1:8080
check 'http to a port of https'                                    says 5 'speaks https on this port|no registration was sent' by_token --url http://127.0.0.1:8443
for class in access deploy job trigger; do
    check "the $class token is no registration token"              says 2 'registration token|is needed here' registers --url "$gitlab_url" --registration-token-file "/tmp/try/$class"
    check "the $class token is no runner token"                    says 2 'runner authentication token|is needed here' registers --url "$gitlab_url" --token-file "/tmp/try/$class"
done
check 'an unknown runner token'                                    says 3 'deleted|expired' registers --url "$gitlab_url" --token-file /tmp/try/runner
check 'a proxy that is down'                                       says 5 'proxy http://127.0.0.1:9 of HTTP_PROXY|refused' through HTTP_PROXY=http://user:secret@127.0.0.1:9 by_token --url http://gitlab.example.com
check 'a proxy whose name is wrong'                                says 5 'proxy http://proxy.invalid:3128 of HTTP_PROXY' through HTTP_PROXY=http://proxy.invalid:3128 by_token --url http://gitlab.example.com
check 'a proxy of another scheme'                                  says 4 'scheme other than http and https' through HTTP_PROXY=htp://127.0.0.1:9 by_token --url http://gitlab.example.com
for status in 403 407 502 503; do
    start_proxy "8$status" "$status"
    check "a proxy that answers $status"                           says 5 "proxy http://127.0.0.1:8$status of HTTPS_PROXY|$status" through "HTTPS_PROXY=http://127.0.0.1:8$status" by_token --url https://gitlab.example.com
done
for exception in '*' 127.0.0.1:8443 127.0.0.0/8; do
    check "NO_PROXY=$exception excludes 127.0.0.1"                 says 0 'registered' around "$exception" by_token --url https://127.0.0.1:8443 --tls-ca-file /tmp/try/ca.pem
done
make_certificates
for certificate in default v1 own; do start_tls "87${#certificate}0" "$certificate"; done
check 'a certificate as openssl makes it by default'                       says 5 'tls-ca-file' by_token --url https://127.0.0.1:8770
check 'a certificate of version 1'                                 says 5 'issue it again|subjectAltName|tls-ca-file' by_token --url https://127.0.0.1:8720
check 'an authority that is not known'                             says 5 'unknown issuer|tls-ca-file' by_token --url https://127.0.0.1:8730
check "tls-ca-file is the server's own certificate"                says 5 '127.0.0.1:8730' by_token --url https://127.0.0.1:8730 --tls-ca-file /tmp/try/own.pem
end_servers

check 'an executor with a typing error'                            says 2 'unknown executor|dcoker|did you mean' by_token --url "$gitlab_url" --executor dcoker
check 'a key with a typing error'                                  says 2 'docker.imgae|did you mean|docker.image' by_token --url "$gitlab_url" --set 'docker.imgae="x"'
check 'a configuration that does not exist'                        says 4 'does not exist' list_of /tmp/try/none.toml
check 'a token in the place of a name'                             says 2 'runner authentication token (glrt-), not a name' agent verify glrt-abcdefghij1234567890
check 'a command of the service manager'                           says 2 'systemctl restart runner-agent' agent restart
check 'version names what tells two builds apart'                  says 0 'commit|target|etcd, kubernetes' agent version
check 'help COMMAND shows the help of the command'                 says 0 'Usage: runner-agent verify' agent help verify
check 'a second daemon names the first one and its unit'           says 4 'runner-agent.service' agent run
check 'a typing error in agent.toml is said everywhere'            typo_is_found
check 'the bundle of doctor has no secret'                         has_no_secret_bundle
check 'init writes an agent.toml from config.toml'                 inits
inside systemctl kill --signal=QUIT runner-agent
eventually fails inside systemctl --quiet is-active runner-agent
check 'status names the unit that has stopped'                     says 5 'systemctl status runner-agent' agent status

power_off
stop_gitlab
verdict

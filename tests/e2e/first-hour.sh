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

# on_machine: runs commands from stdin as root in its home directory, as README.md does with sudo.
on_machine() { inside sh -euc 'cd /root && . /dev/stdin'; }

prepares_as_documented() {
    created_token ip netns exec "$machine" | inside install -m 600 /dev/stdin /root/runner-token
    inside sh -c 'cp /packages/*.deb /root'
    block sh 'apt install' | on_machine && inside test -s /etc/runner-agent/runner-token
}

writes_five_lines() {
    (($(block toml enroll | wc -l) == 5)) && block toml enroll | inside tee /etc/runner-agent/agent.toml
}

starts_as_documented() {
    block sh 'systemctl restart' | on_machine && has "$(agent list)" '^build-1 .*active'
}

# rotates: the runner's token, which lives two hours, is new.
rotates() {
    local before after
    before=$(inside cat /etc/gitlab-runner/config.toml)
    agent rotate --name build-1 && after=$(inside cat /etc/gitlab-runner/config.toml)
    fails equal "$before" "$after"
}

# offers_a_gitlab: the one of README.md has a runner whose token expires.
offers_a_gitlab() {
    local options
    # shellcheck disable=SC2016
    read -ra options < <(sed -n 's/.*cargo run --example gitlab -- \([^`]*\)`.*/\1/p' README.md)
    [[ " ${options[*]} " == *' --token-life '* ]] || return
    ip netns exec "$machine" "${CARGO_TARGET_DIR:-target}/debug/examples/gitlab" --port 8081 "${options[@]}" >"$work/readme.log" 2>&1 &
    servers+=("$!")
    eventually grep -q 'glrt-' "$work/readme.log"
}

# --- Mistakes -------------------------------------------------------------------------------------------------------

agent() { inside runner-agent "$@"; }

# registers OPTION…: a registration that asks nothing, with a configuration of its own.
registers() {
    inside timeout 60 env ${proxy:+"$proxy"} ${no_proxy:+"$no_proxy"} runner-agent --config /tmp/try/config.toml --state-dir /tmp/try/state \
        register --non-interactive "$@"
}

# file NAME TEXT: writes /tmp/try/NAME for root.
file() { inside install -D -m 600 /dev/stdin "/tmp/try/$1" <<<"$2"; }
by_token() {
    [[ " $* " == *" --executor "* ]] || set -- --executor shell "$@"
    registers --name "${name:-try $SRANDOM}" --registration-token-file /tmp/try/registration "$@"
}
through() { local proxy=$1; shift; "$@"; }
around() { local no_proxy=NO_PROXY=$1 proxy=HTTP_PROXY=http://127.0.0.1:9; shift; "$@"; }

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

# start_clock PORT: the test GitLab as seen by a machine whose clock is two years behind.
start_clock() {
    ip netns exec "$machine" python3 -c '
import email.utils, http.server, sys, time, urllib.error, urllib.request
class Later(http.server.BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        request = urllib.request.Request(sys.argv[2] + self.path, body or None, headers, method=self.command)
        try: reply = urllib.request.urlopen(request)
        except urllib.error.HTTPError as error: reply = error
        content = reply.read()
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            if name.lower() not in ("date", "content-length", "connection", "transfer-encoding"): self.send_header(name, value)
        self.send_header("Date", email.utils.formatdate(time.time() + 2 * 365 * 86400, usegmt=True))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
    do_GET = do_POST = do_DELETE = answer
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Later).serve_forever()' "$1" "$gitlab_url" &
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

# changes_tags: the same registration with other tags, which changes nothing.
changes_tags() {
    local name=tags
    says 0 registered by_token --url "$gitlab_url" --tag-list one &&
        says 0 'already|tag|fleet update|--force' by_token --url "$gitlab_url" --tag-list two
}

# by_user COMMAND…: as a user without rights.
by_user() { inside setpriv --reuid=65534 --regid=65534 --clear-groups runner-agent "$@"; }

shows_an_expired_entry() {
    file old.toml "[[runners]]
name = \"late\"
url = \"$gitlab_url\"
token = \"glrt-abcdefghij1234567890\"
token_expires_at = 2020-01-01T00:00:00Z
executor = \"shell\""
    has "$(list_of /tmp/try/old.toml)" '^late .*expired'
}

# hides_the_token: a token file in the home of root, which the sandbox of the unit hides.
hides_the_token() {
    local result=0
    inside cp /root/runner-token /root/hidden-token
    edit 's|/etc/runner-agent/runner-token|/root/hidden-token|'
    inside systemctl reload runner-agent || true
    eventually says_hidden >/dev/null || result=1
    says_hidden
    edit 's|/root/hidden-token|/etc/runner-agent/runner-token|'
    inside systemctl reload runner-agent && return "$result"
}
says_hidden() { has "$(inside journalctl --no-pager -u runner-agent)" 'hides /root (ProtectHome=).*LoadCredential='; }

# names_the_port: a second daemon on the port of the unit.
names_the_port() {
    inside tee -a /etc/runner-agent/agent.toml <<<$'[http]\nlisten = ["127.0.0.1:9252"]'
    file other-agent.toml "" && file other.toml "" && inside systemctl restart runner-agent && agent status --wait ready &&
        says 4 '127.0.0.1:9252|runner-agent.service' inside timeout 20 runner-agent run --config /tmp/try/other.toml \
            --agent-config /tmp/try/other-agent.toml --state-dir /tmp/try/other --socket /tmp/try/other.sock --listen-address 127.0.0.1:9252
}

# moves_gitlab: the same GitLab has another address, which config.toml and agent.toml name.
moves_gitlab() {
    local new=$named
    inside sed -i "s|$gitlab_url|$new|" /etc/gitlab-runner/config.toml /etc/runner-agent/agent.toml
    inside systemctl reload runner-agent && eventually names_the_command "$gitlab_url" "$new" &&
        says 0 'build-1|accepted' agent relocate "$gitlab_url" "$new" &&
        says 0 "$new" agent status && lacks "$(agent plan 2>&1)" 'relocate'
}
names_the_command() { has "$(inside journalctl --no-pager -u runner-agent)" "runner-agent relocate $1 $2"; }

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
check 'README.md: the GitLab to try it with has a token'           offers_a_gitlab

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
    check "the $class token is no registration token"              says 2 'registration token|is needed here' registers --name other --url "$gitlab_url" --registration-token-file "/tmp/try/$class"
    check "the $class token is no runner token"                    says 2 'runner authentication token|is needed here' registers --name other --url "$gitlab_url" --token-file "/tmp/try/$class"
done
check 'an unknown runner token'                                    says 3 'deleted|expired' registers --name other --url "$gitlab_url" --token-file /tmp/try/runner
check 'a proxy that is down'                                       says 5 'proxy http://127.0.0.1:9 of HTTP_PROXY|refused' through HTTP_PROXY=http://user:secret@127.0.0.1:9 by_token --url http://gitlab.example.com
check 'a proxy whose name is wrong'                                says 5 'proxy http://proxy.invalid:3128 of HTTP_PROXY' through HTTP_PROXY=http://proxy.invalid:3128 by_token --url http://gitlab.example.com
check 'a proxy of another scheme'                                  says 4 'has the scheme htp for' through HTTP_PROXY=htp://127.0.0.1:9 by_token --url http://gitlab.example.com
for status in 403 407 502 503; do
    start_proxy "8$status" "$status"
    check "a proxy that answers $status"                           says 5 "proxy http://127.0.0.1:8$status of HTTPS_PROXY|$status" through "HTTPS_PROXY=http://127.0.0.1:8$status" by_token --url https://gitlab.example.com
done
named=http://gitlab.moved.example:8080
inside tee -a /etc/hosts <<<'127.0.0.1 gitlab.moved.example' >"$work/said"
check 'a name that NO_PROXY does not have goes through the proxy'  says 5 'proxy http://127.0.0.1:9 of HTTP_PROXY' around other.example by_token --url "$named"
for exception in '*' gitlab.moved.example:8080 '*.moved.example' .example moved.example; do
    check "NO_PROXY=$exception excludes gitlab.moved.example"      says 0 'registered' around "$exception" by_token --url "$named"
done
check 'no proxy is used for loopback'                              says 0 'registered' around other.example by_token --url "$gitlab_url"
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
check 'verify NAME is verify --name NAME'                           says 0 'build-1|accepted' agent verify build-1
check '-o json is --output json'                                   says 0 '"name": "build-1"' agent list -o json
check 'validate is check'                                          says 0 '' agent validate
check 'version names what tells two builds apart'                  says 0 'commit|target|etcd, kubernetes' agent version
check 'help COMMAND shows the help of the command'                 says 0 'Usage: runner-agent verify' agent help verify
check 'a second daemon names the first one and its unit'           says 4 'runner-agent.service' agent run
check 'the same name with other tags says what differs'            changes_tags
check 'status without rights says sudo'                            says 5 'sudo' by_user status
check 'list without rights says sudo'                              says 4 'sudo' by_user list
check 'an entry that has expired says so'                          shows_an_expired_entry
start_clock 8099
file clock.toml "[[runners]]
name = \"late\"
url = \"http://127.0.0.1:8099\"
token = \"$(created_token ip netns exec "$machine")\"
executor = \"shell\""
check 'a clock that is two years off'                              says 0 'clock is|behind|timedatectl' agent doctor --config /tmp/try/clock.toml --state-dir /tmp/try/clock
end_servers
check "a token file that the unit's sandbox hides"                 hides_the_token
check 'a port in use names its unit'                               names_the_port
check 'a typing error in agent.toml is said everywhere'            typo_is_found
check 'the bundle of doctor has no secret'                         has_no_secret_bundle
check 'init writes an agent.toml from config.toml'                 inits
check 'GitLab has another address'                                 moves_gitlab
inside systemctl kill --signal=QUIT runner-agent
eventually fails inside systemctl --quiet is-active runner-agent
check 'status names the unit that has stopped'                     says 5 'systemctl status runner-agent' agent status

power_off
stop_gitlab
verdict

#!/usr/bin/env bash
# The page of the daemon in a headless Chromium. Pictures of it go to target/e2e.
# shellcheck source-path=SCRIPTDIR
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" page

cargo build --locked --quiet --bin runner-agent --example gitlab
pictures=${CARGO_TARGET_DIR:-target}/e2e
axe=target/axe/node_modules/axe-core/axe.min.js
mkdir -p "$pictures"

# Its own network: no address must be free on this machine, and the browser reaches no other one.
# shellcheck disable=SC2016
unshare --net sh -c 'ip link set lo up && touch "$0" && exec sleep infinity' "$work/ready" &
network=$!
eventually test -e "$work/ready"
there=(nsenter --target "$network" --net)
binary=${CARGO_TARGET_DIR:-target}/debug/runner-agent
agent=("${there[@]}" env RUNTIME_DIRECTORY="$work/run" "$binary")
browser() { HOME=$work "${there[@]}" python3 tests/e2e/page/browser.py "$work" "$@"; }

explain() {
    tail -n 5 "$work/agent.log" "$work/driver.log"
    browser shot "$pictures/page-failed.png" && echo "see $pictures/page-failed.png"
}

# --- The daemon ---------------------------------------------------------------------------------------------------

page=http://127.0.0.1:9252
created() { printf '[[runners]]\nname = "%s"\nurl = "%s"\ntoken = "%s"\nexecutor = "docker"\n' "$1" "$gitlab_url" "$2"; }
unknown() { created "$1" "glrt-unknown-to-gitlab-$2"; }

# start DIRECTORY: a daemon with the files there.
start() {
    "${agent[@]}" run --config "$1/config.toml" --agent-config "$1/agent.toml" --state-dir "$1/state" \
        >>"$work/agent.log" 2>&1 &
    daemon=$!
    eventually "${there[@]}" curl --silent --fail --output "$work/health" "$page/healthz"
}

url() { "${agent[@]}" open --config "$1/config.toml" 2>"$work/remark"; }
open_page() { local address; address=$(url "$1") && browser open "$address"; }
rows() { browser run 'document.querySelectorAll("#runners tr[id]").length'; }
runs_until() { browser wait "$1"; }

# Ten runners in different states.
few=$work/few
mkdir -p "$few"
start_gitlab "${there[@]}"
install -m 600 /dev/stdin "$few/access-token" <<<"$(sed -n 's/^access token: //p' "$work/gitlab.log")"
install -m 600 /dev/stdin "$few/registration-token" <<<"$registration_token"
install -m 600 /dev/stdin "$few/wrong-token" <<<'not-a-registration-token'
cat >"$few/agent.toml" <<END
[http]
listen = ["127.0.0.1:9252"]
[timing]
confirm_after = "1s"
floor = "1s"
[[server]]
url = "$gitlab_url"
access_token = { file = "access-token" }
[[enroll]]
name = "linux-docker-1"
url = "$gitlab_url"
registration_token = { file = "registration-token" }
[[enroll]]
name = "linux-docker-2"
url = "$gitlab_url"
registration_token = { file = "registration-token" }
[[enroll]]
name = "windows-builder"
url = "$gitlab_url"
registration_token = { file = "wrong-token" }
END
{
    for name in mac-mini-1 mac-mini-2 'rotated by hand' '<b>"escaped" & long: '"$(printf 'x%.0s' {1..60})"'</b>'; do
        created "${name//\"/\\\"}" "$(created_token "${there[@]}")"
    done
    unknown 'removed in GitLab' 1
    printf '[[runners]]\nname = "behind a firewall"\nurl = "http://127.0.0.1:9"\nid = 70\ntoken = "glrt-far-away-token-000"\n'
    printf '[[runners]]\nname = "expired meanwhile"\nurl = "http://127.0.0.1:9"\nid = 71\ntoken = "glrt-far-away-token-001"\n'
    printf 'token_obtained_at = 2026-01-01T00:00:00Z\ntoken_expires_at = 2026-01-31T00:00:00Z\n'
} >"$few/config.toml"
chmod 600 "$few/config.toml"

# --- Checks -------------------------------------------------------------------------------------------------------

facts() {
    local text
    text=$(browser text body)
    has "$text" 'Linux-docker\|linux-docker-1' && has "$text" 'of 10 runners ready' && has "$text" 'rejected' &&
        has "$text" 'registered as runner' && has "$text" 'expires in ' && has "$text" 'Access tokens' &&
        equal "$(rows)" 10
}
closed() { local text; text=$(browser text body); has "$text" 'runner-agent open' && lacks "$text" linux-docker; }
opens() { open_page "$few" && equal "$(browser run 'location.pathname + location.search')" / && facts; }
is_live() { runs_until 'document.getElementById("live").textContent === "live"'; }
is_text() { equal "$(browser run 'document.querySelectorAll("#runners b").length')" 0; }
no_errors() { equal "$(browser console)" ''; }
settled() { eventually has_states; }
has_states() { grep -q '"state": "rejected"' <<<"$("${agent[@]}" status --config "$few/config.toml" -o json)"; }
accessible() { equal "$(browser axe "$axe")" ''; }
dark_and_accessible() { browser scheme dark && browser shot "$pictures/page-dark.png" && accessible; }
narrow() {
    browser scheme light && browser size 400 900 && browser shot "$pictures/page-narrow.png" &&
        equal "$(browser run 'document.documentElement.scrollWidth <= 400')" true && browser size 1280 1000
}

# The page is neither loaded again nor touched.
follows() {
    browser run 'window.before = document.querySelectorAll("#events tr").length' >/dev/null
    "${agent[@]}" rotate --config "$few/config.toml" --agent-config "$few/agent.toml" --state-dir "$few/state" \
        --name 'rotated by hand' || return
    runs_until 'window.before && document.querySelector("#events tbody tr").innerText.includes("rotated by hand")'
}
searches() {
    browser run '(() => { const q = document.querySelector("[name=q]"); q.value = "mac-mini"; q.dispatchEvent(new Event("input", { bubbles: true })); q.focus(); })()' >/dev/null
    runs_until 'document.querySelectorAll("#runners tr[id]").length === 2 && location.search === "?q=mac-mini"' &&
        equal "$(browser run 'document.activeElement.name')" q
}
sorts_by_keyboard() {
    browser run 'document.getElementById("by-name").focus()' >/dev/null
    browser run 'document.activeElement.click()' >/dev/null
    runs_until 'document.querySelector("th[aria-sort] a").id === "by-name"' &&
        equal "$(browser run 'document.activeElement.id')" by-name
}
without_scripts() {
    local result=0
    browser scripts off && browser open "$page/?sort=name&state=rejected" || return
    has "$(browser text '#runners')" 'removed in GitLab' && has "$(browser text '#summary')" 'of 10 runners ready' || result=1
    browser scripts on
    return "$result"
}
another_code() { url "$few" >/dev/null && runs_until 'document.body.innerText.includes("runner-agent open")' && closed; }

"${there[@]}" env HOME="$work" chromedriver --port=9515 >"$work/driver.log" 2>&1 &
driver=$!
start "$few"
eventually browser start 9515
browser size 1280 1000

check 'the daemon knows the states of ten runners'                  settled
check 'without a code, the page shows the health alone'             browser open "$page/"
check '… and how to open it'                                        closed
check 'its address shows every fact'                                opens
check 'a name with markup is text'                                  is_text
check 'the page is live'                                            is_live
browser shot "$pictures/page-light.png"
if [[ -e $axe ]]; then
    check 'axe-core finds nothing'                                  accessible
    check 'axe-core finds nothing in dark colours'                  dark_and_accessible
else
    echo '  page: skipped axe-core, which is not installed'
fi
check 'it fits a narrow window'                                     narrow
check 'it follows a rotation'                                       follows
check 'a search changes the rows and keeps the focus'               searches
check 'a heading sorts, and keeps the focus'                        sorts_by_keyboard
check 'the console has no error'                                    no_errors
check 'it shows the facts without JavaScript'                       without_scripts
browser open "$page/"
check 'it can be printed'                                           browser print "$pictures/page.pdf"
check 'another code closes it'                                      another_code
kill -QUIT "$daemon"
wait "$daemon" || true

# Ten thousand runners, whose server does not answer.
many=$work/many
mkdir -p "$many"
printf '[http]\nlisten = ["127.0.0.1:9252"]\n' >"$many/agent.toml"
for ((number = 0; number < 10000; number++)); do unknown "runner-$number" "$number"; done >"$many/config.toml"
chmod 600 "$many/config.toml"
stop_gitlab

pages_through() {
    open_page "$many" && runs_until 'document.querySelectorAll("#runners tr[id]").length === 100' && has "$(browser text '#runners')" 'Page 1 of 100' &&
        browser run 'document.getElementById("next").click()' >/dev/null && runs_until 'location.search === "?page=2"' &&
        runs_until 'document.querySelector("nav").innerText.includes("Page 2 of 100")'
}
finds() {
    browser open "$page/?q=runner-777" && equal "$(rows)" 11 && has "$(browser text '#runners')" '11 of 10000 runners'
}

start "$many"
check 'ten thousand runners are pages of a hundred'                 pages_through
check 'one of ten thousand is found'                                finds
printf '  page: 100 of 10000 runners arrive after %s ms\n' "$(browser run 'performance.getEntriesByType("navigation")[0].duration')"
browser shot "$pictures/page-many.png"
kill -QUIT "$daemon"
end "$daemon" "$driver"

verdict

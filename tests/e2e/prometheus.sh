#!/usr/bin/env bash
# A real Prometheus scrapes /metrics.
# shellcheck source-path=SCRIPTDIR
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" prometheus

cargo build --locked --quiet --bin runner-agent --example gitlab

# Its own network, so no address must be free on this machine.
# shellcheck disable=SC2016
unshare --net sh -c 'ip link set lo up && touch "$0" && exec sleep infinity' "$work/ready" &
network=$!
eventually test -e "$work/ready"
there=(nsenter --target "$network" --net)
agent=("${there[@]}" env RUNTIME_DIRECTORY="$work/run" "${CARGO_TARGET_DIR:-target}/debug/runner-agent")

explain() { tail -n 20 "$work/agent.log" "$work/prometheus.log"; }

# --- Queries -----------------------------------------------------------------------------------------------------

metrics() { "${there[@]}" curl --silent --fail http://127.0.0.1:9252/metrics; }
scraped() { "${there[@]}" curl --silent --fail --get http://127.0.0.1:9090/api/v1/query --data-urlencode "query=$1"; }
has_scraped() { grep -q '"value"' <<<"$(scraped "$1")"; }
is_well() { "${agent[@]}" status --config "$work/config.toml" --wait ready --timeout 2m >/dev/null; }

has_verified() { has "$(metrics)" '^runner_agent_last_verify_timestamp_seconds{.*} [1-9]'; }
content() { equal "$(promtool check metrics <"$work/metrics" 2>&1)" ''; }
is_up() { eventually has_scraped 'up{job="runner-agent"} == 1'; }

has_all() {
    local name
    for name in token_expiry_timestamp_seconds token_expires_in_seconds last_verify_timestamp_seconds state \
        api_requests_total api_request_duration_seconds_count registrations_total config_writes_total \
        clock_skew_seconds build_info; do
        eventually has_scraped "runner_agent_$name" || return
    done
}

knows_the_runner() { eventually has_scraped 'runner_agent_state{name="e2e",host="127.0.0.1:8080",state="active"} == 1'; }
has_no_token() { lacks "$(cat "$work/metrics")" "$registration_token" && lacks "$(cat "$work/metrics")" "$(token)"; }
token() { sed -n 's/^ *token = "\(.*\)"/\1/p' "$work/config.toml"; }

# --- Checks -------------------------------------------------------------------------------------------------------

cat >"$work/agent.toml" <<END
[http]
listen = ["127.0.0.1:9252"]
[[enroll]]
name = "e2e"
url = "$gitlab_url"
registration_token = { file = "token" }
END
install -m 600 /dev/stdin "$work/token" <<<"$registration_token"
cat >"$work/prometheus.yml" <<'END'
global: { scrape_interval: 1s }
scrape_configs:
  - job_name: runner-agent
    static_configs: [{ targets: ["127.0.0.1:9252"] }]
END

start_gitlab "${there[@]}"
"${agent[@]}" run --config "$work/config.toml" --agent-config "$work/agent.toml" --state-dir "$work/state" \
    >"$work/agent.log" 2>&1 &
daemon=$!
"${there[@]}" prometheus --config.file "$work/prometheus.yml" --storage.tsdb.path "$work/tsdb" \
    --web.listen-address 127.0.0.1:9090 >"$work/prometheus.log" 2>&1 &

check 'the agent registers and is ready'                           is_well
kill -HUP "$daemon"
check '/metrics shows the time of a verification'                  eventually has_verified
metrics >"$work/metrics"
check 'promtool reports no problem in /metrics'                    content
# shellcheck disable=SC2016
sed -n '/^groups:/,/^```/ { /^```/d; p }' packaging/docs/metrics.md >"$work/rules.yml"
check 'promtool accepts the rules in metrics.md'                   promtool check rules "$work/rules.yml"
check 'a real Prometheus scrapes it'                               is_up
check 'it knows every metric'                                      has_all
check 'it sees the runner as active'                               knows_the_runner
check 'no metric has a token'                                      has_no_token
kill -STOP "$daemon"
check 'it sees a hanging agent'                                    eventually has_scraped 'up{job="runner-agent"} == 0'
kill -CONT "$daemon"
kill -QUIT "$daemon"

verdict

#!/usr/bin/env bash
# A real Prometheus scrapes /metrics, with the rules and the queries of packaging/prometheus.
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
knows_the_access_token() { has "$(metrics)" '^runner_agent_access_token_expiry_timestamp_seconds{'; }
content() { equal "$(promtool check metrics <"$work/metrics" 2>&1)" ''; }
is_up() { eventually has_scraped 'up{job="runner-agent"} == 1'; }

has_all() {
    local name
    for name in token_expiry_timestamp_seconds token_expires_in_seconds last_verify_timestamp_seconds state \
        api_requests_total api_request_duration_seconds_count registrations_total config_writes_total \
        clock_skew_seconds build_info token_obtained_timestamp_seconds next_rotation_timestamp_seconds \
        config_last_reload_successful disk_job_seconds_count access_token_expiry_timestamp_seconds \
        access_token_rotations_total hooks_total; do
        eventually has_scraped "runner_agent_$name" || return
    done
}

knows_the_runner() { eventually has_scraped 'runner_agent_state{name="e2e",host="127.0.0.1:8080",state="active"} == 1'; }
has_no_token() {
    local secret
    for secret in "$registration_token" "$(token)" "$(cat "$work/access-token")"; do
        lacks "$(cat "$work/metrics")" "$secret" || return
    done
}
token() { sed -n 's/^ *token = "\(.*\)"/\1/p' "$work/config.toml"; }

asked() { "${there[@]}" python3 tests/e2e/prometheus-queries.py "$1"; }
# A rate needs two samples.
has_two_samples() { eventually has_scraped 'count_over_time(runner_agent_build_info[1m]) > 3'; }
in_rules() (cd packaging/prometheus && promtool "$@")
is_reported() { eventually has_scraped 'ALERTS{alertname="RunnerAgentSettingsRejected", alertstate="pending"}'; }

# --- Checks -------------------------------------------------------------------------------------------------------

install -m 600 /dev/stdin "$work/token" <<<"$registration_token"
cat >"$work/prometheus.yml" <<'END'
global: { scrape_interval: 1s, evaluation_interval: 1s }
rule_files: [rules.yml]
scrape_configs:
  - job_name: runner-agent
    static_configs: [{ targets: ["127.0.0.1:9252"] }]
END

cp packaging/prometheus/rules.yml "$work"

check 'promtool accepts the rules'                                 in_rules check rules --lint=all rules.yml
check 'each alert fires when it should, and only then'             in_rules test rules rules_test.yml

start_gitlab "${there[@]}"
cat >"$work/agent.toml" <<END
[http]
listen = ["127.0.0.1:9252"]
[[enroll]]
name = "e2e"
url = "$gitlab_url"
registration_token = { file = "token" }
[[server]]
url = "$gitlab_url"
access_token = { file = "access-token", rotate = true }
[[hook]]
name = "e2e"
command = ["/bin/true"]
END
install -m 600 /dev/stdin "$work/access-token" < <(sed -n 's/^access token: //p' "$work/gitlab.log")
files=(--config "$work/config.toml" --agent-config "$work/agent.toml" --state-dir "$work/state")
"${agent[@]}" run "${files[@]}" >"$work/agent.log" 2>&1 &
daemon=$!
"${there[@]}" prometheus --config.file "$work/prometheus.yml" --storage.tsdb.path "$work/tsdb" \
    --web.listen-address 127.0.0.1:9090 >"$work/prometheus.log" 2>&1 &

check 'the agent registers and is ready'                           is_well
check 'its access token is replaced by one that expires'           "${agent[@]}" access-token rotate --life 90d "${files[@]}"
kill -HUP "$daemon"
check '/metrics shows the time of a verification'                  eventually has_verified
check '/metrics shows the expiry of the access token'              eventually knows_the_access_token
metrics >"$work/metrics"
check 'promtool reports no problem in /metrics'                    content
check 'a real Prometheus scrapes it'                               is_up
check 'it knows every metric'                                      has_all
check 'it sees the runner as active'                               knows_the_runner
check 'two scrapes are done'                                       has_two_samples
check 'each rule is evaluated and has its tests, and none fires'   asked rules
check 'each query of the dashboard finds data'                     asked dashboard
check 'each metric exists and is in metrics.md'                    asked names
check 'no metric has a token'                                      has_no_token
echo 'mistake' >>"$work/agent.toml"
kill -HUP "$daemon"
check 'invalid settings are an alert'                              is_reported
kill -STOP "$daemon"
check 'it sees a hanging agent'                                    eventually has_scraped 'up{job="runner-agent"} == 0'
kill -CONT "$daemon"
kill -QUIT "$daemon"

verdict

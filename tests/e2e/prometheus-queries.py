#!/usr/bin/env python3
"""Asks a Prometheus that scrapes a daemon about the files of packaging/prometheus.

    prometheus-queries.py rules      every rule is evaluated without an error, and every alert has its tests
    prometheus-queries.py dashboard  every query of the dashboard is valid and finds data
    prometheus-queries.py names      every metric of rules and dashboard exists, and metrics.md names every metric
"""

import json
import re
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

SERVER = "http://127.0.0.1:9090"
RULES = Path("packaging/prometheus/rules.yml")
TESTS = Path("packaging/prometheus/rules_test.yml")
DASHBOARD = Path("packaging/prometheus/dashboard.json")
PAGE = Path("packaging/docs/metrics.md")
# These exist only for shared runners, which need etcd or Kubernetes.
SHARED = re.compile(r"runner_agent_sharing_")
VARIABLES = {"$job": ".*", "$instance": ".*", "$runner": ".*", "$__rate_interval": "1m"}
# Of what does not happen in this test.
WITHOUT_DATA = re.compile(r"sharing|> 0$")


def ask(path, **parameters):
    address = f"{SERVER}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{parameters}: {error.read().decode()}") from error


def evaluate(query):
    return ask("query", query=query)["result"]


def check_rules():
    """A rule that was never evaluated has the health `unknown`."""
    rules = []
    for _ in range(300):
        rules = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
        if rules and all(rule["health"] != "unknown" for rule in rules):
            break
        time.sleep(0.2)
    bad = [f"{rule['name']}: {rule['health']} {rule.get('lastError', '')}" for rule in rules if rule["health"] != "ok"]
    written = re.findall(r"^      - (?:alert|record): (\S+)", RULES.read_text(), re.M)
    if len(rules) != len(written):
        bad.append(f"{len(written)} rules are written, {len(rules)} are loaded")
    tests = TESTS.read_text()
    for alert in (rule for rule in rules if rule["type"] == "alerting"):
        name = alert["name"]
        if not re.search(rf"alertname: {name}\n +exp_alerts:\n", tests):
            bad.append(f"{name}: no test in which it fires")
        if not re.search(rf"alertname: {name}, exp_alerts: \[\]", tests):
            bad.append(f"{name}: no test in which it does not fire")
        if not {"summary", "description"} <= alert["annotations"].keys():
            bad.append(f"{name}: no summary or description")
        if alert["state"] == "firing":
            bad.append(f"{name} fires beside a healthy daemon")
    return bad


def dashboard_queries():
    """The queries with values for the variables of the dashboard."""
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    for variable in dashboard["templating"]["list"]:
        values = re.fullmatch(r"label_values\((.*), (\w+)\)", variable.get("definition", ""))
        if values:
            queries.append(f"group by ({values[2]}) ({values[1]})")
    for name, value in VARIABLES.items():
        queries = [query.replace(name, value) for query in queries]
    return queries


def check_dashboard():
    bad = []
    for query in dashboard_queries():
        if evaluate(query):
            continue
        without_filter = re.sub(r" > 0$", "", query)
        if not WITHOUT_DATA.search(query) or (not SHARED.search(query) and not evaluate(without_filter)):
            bad.append(f"no data: {query}")
    return bad


def check_names():
    known = set(ask("label/__name__/values"))
    expressions = "\n".join(dashboard_queries()) + RULES.read_text()
    used = set(re.findall(r"\brunner_agent[_:][a-z0-9_:]*[a-z0-9]", re.sub(r'"[^"]*"', "", expressions)))
    records = set(re.findall(r"record: (\S+)", RULES.read_text()))
    bad = [f"unknown metric: {name}" for name in sorted(used - known - records) if not SHARED.match(name)]
    page = PAGE.read_text()
    for name in sorted(name for name in known if name.startswith("runner_agent_")):
        if f"`{re.sub('_(bucket|sum|count)$', '', name)}`" not in page:
            bad.append(f"{PAGE} does not name {name}")
    named = re.findall(r"^\| `(runner_agent_\w+)`", page, re.M)
    for name in named:
        if not SHARED.match(name) and not known & {name, f"{name}_count"} and name != LAST_ROTATION:
            bad.append(f"{PAGE} names {name}, which does not exist")
    return bad


# Exists after the first rotation.
LAST_ROTATION = "runner_agent_last_rotation_timestamp_seconds"

CHECKS = {"rules": check_rules, "dashboard": check_dashboard, "names": check_names}

if __name__ == "__main__":
    found = CHECKS[sys.argv[1]]()
    print("\n".join(found))
    sys.exit(bool(found))

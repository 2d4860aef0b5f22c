#!/usr/bin/env bash
# The user data that packaging/terraform makes: a machine with it creates its runner, keeps it without the access token, and
# deletes it at the end. No provider is downloaded.
# shellcheck source-path=SCRIPTDIR
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" terraform

cargo build --locked --quiet --bin runner-agent --example gitlab

# Its own network, so no address must be free on this machine.
# shellcheck disable=SC2016
unshare --net sh -c 'ip link set lo up && touch "$0" && exec sleep infinity' "$work/ready" &
eventually test -e "$work/ready"
there=(nsenter --target "$!" --net)
explain() { tail -n 20 "$work/agent.log" "$work/gitlab.log"; }

# --- User data -----------------------------------------------------------------------------------------------------

terraform_here() { terraform -chdir="$work/module" "$@" -no-color; }
sum=$(printf 'a%.0s' {1..64})
applies() {
    terraform_here init -input=false && terraform_here validate &&
        terraform_here apply -input=false -auto-approve -var "gitlab_url=$gitlab_url" -var "group_id=$group" -var 'name=build "1"' \
            -var "access_token=$access_token" -var package_url=https://packages.example.com/runner-agent.deb \
            -var "package_sha256=${1:-$sum}" -var 'tag_list=["docker", "two words"]' &&
        terraform_here output -raw user_data >"$work/user-data"
}
is_formatted() { terraform fmt -check packaging/terraform; }
# Writes the files of the user data where the test wants them, and prints the commands.
is_cloud_config() {
    head -n 1 "$work/user-data" | grep -qx '#cloud-config' && python3 - "$work" <<'END'
import sys, yaml
from pathlib import Path
work = Path(sys.argv[1])
data = yaml.safe_load((work / "user-data").read_text())
files = {entry["path"]: entry for entry in data["write_files"]}
assert all(entry["permissions"] == "0600" for entry in files.values()), files
for path, name in ("/run/credstore/gitlab-access-token", "credentials/gitlab-access-token"), ("/etc/runner-agent/agent.toml", "agent.toml"):
    (work / name).parent.mkdir(exist_ok=True)
    (work / name).write_text(files[path]["content"])
    (work / name).chmod(0o600)
assert all(isinstance(command, list) and all(isinstance(word, str) for word in command) for command in data["runcmd"])
assert any("sha256sum --check &&" in word for command in data["runcmd"] for word in command)
END
}

# --- The daemon ----------------------------------------------------------------------------------------------------

files=(--config "$work/config.toml" --state-dir "$work/state")
agent=("${there[@]}" env RUNTIME_DIRECTORY="$work/run" CREDENTIALS_DIRECTORY="$work/credentials"
    "${CARGO_TARGET_DIR:-target}/debug/runner-agent")
start_agent() {
    "${agent[@]}" run "${files[@]}" --agent-config "$work/agent.toml" >>"$work/agent.log" 2>&1 &
    daemon=$!
}
is_ready() { "${agent[@]}" status --config "$work/config.toml" --wait ready --timeout 30s; }
stops() {
    kill -"$1" "$daemon" && wait "$daemon" || return
    equal "$(grep -c '^DELETE /api/v4/runners' "$work/gitlab.log" || true)" "$2"
}
created() { equal "$(grep -c '^POST /api/v4/user/runners 201' "$work/gitlab.log")" 1; }

gitlab_options=(--group ci)
start_gitlab "${there[@]}"
access_token=$(sed -n 's/^access token: //p' "$work/gitlab.log")
group=$("${there[@]}" curl --silent --fail --header "PRIVATE-TOKEN: $access_token" "$gitlab_url/api/v4/groups/ci" | sed 's/[^0-9]*"id": *\([0-9]*\).*/\1/')
cp -r packaging/terraform "$work/module"

check 'the module is formatted'                                    is_formatted
check 'a checksum that is none is refused'                         fails applies abc
check 'the module is valid and makes user data'                    applies
check 'it is a cloud-config that compares the package first'       is_cloud_config
start_agent
check 'a machine with its agent.toml creates its runner'           is_ready
check 'it has created one'                                         created
check 'a reboot keeps the runner'                                  stops QUIT 0
rm -f "$work/credentials/gitlab-access-token"
start_agent
check 'the runner goes on without the access token'                is_ready
check 'it has still created one'                                   created
check 'the runner is deleted with the machine'                     stops TERM 1

verdict

#!/usr/bin/env bash
# The manifests of packaging/kubernetes: they are valid, and the overlays put the agent beside the gitlab-runner of a chart. Without
# kubectl the overlays are not rendered.
# shellcheck source-path=SCRIPTDIR
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh" manifests

tools=target/kubernetes-validate/bin
cp -r packaging/kubernetes "$work/kubernetes"

is_valid() { "$tools/kubernetes-validate" --strict "$@" && test -s "$1"; }
# renders OVERLAY: renders an overlay with the chart.
renders() { "$work/kubernetes/chart/post-render" "$1" <tests/e2e/manifests/chart.yaml >"$work/$1.yaml"; }
builds_the_base() { kubectl kustomize "$work/kubernetes" >"$work/base.yaml" && is_valid "$work/base.yaml"; }
# rendered CHECK OVERLAY
rendered() { "$tools/python" tests/e2e/manifests/rendered.py "$1" "$work/$2.yaml"; }
renders_the_same_twice() { cp "$work/single.yaml" "$work/before" && renders single && cmp "$work/single.yaml" "$work/before"; }
# Without a Deployment, an overlay would add the agent to nothing.
fails_without_a_deployment() {
    sed '/^---/,$d' tests/e2e/manifests/chart.yaml >"$work/account.yaml"
    fails "$work/kubernetes/chart/post-render" single <"$work/account.yaml" >"$work/error" 2>&1 && has "$(cat "$work/error")" Deployment
}

check 'the manifests are valid'                                    is_valid packaging/kubernetes/runners.yaml packaging/kubernetes/sharing.yaml
if ! command -v kubectl >/dev/null; then
    echo '  manifests: skipped: overlays: kubectl is not installed'
    verdict
    exit
fi
check 'the base is built and valid'                                builds_the_base
for overlay in single kubernetes etcd; do
    check "$overlay: is rendered"                                  renders "$overlay"
    check "$overlay: is valid"                                     is_valid "$work/$overlay.yaml"
    check "$overlay: config.toml is there before the agent, which is there before gitlab-runner" rendered order "$overlay"
    check "$overlay: the agent and gitlab-runner have one config.toml" rendered config_toml "$overlay"
    check "$overlay: gitlab-runner does not register and unregister" rendered entrypoint "$overlay"
    check "$overlay: the agent has its probes"                     rendered probes "$overlay"
    check "$overlay: the token is mounted into the agent alone"    rendered tokens "$overlay"
    check "$overlay: what agent.toml names is mounted"             rendered paths "$overlay"
    check "$overlay: its containers have no rights"                rendered restricted "$overlay"
    check "$overlay: all objects are in one namespace"             rendered namespace "$overlay"
done
check 'single: the state is on a volume that one pod uses'         rendered single single
check 'kubernetes: the service account of the chart may share the runner' rendered kubernetes kubernetes
check 'etcd: nothing of Kubernetes is needed'                      rendered etcd etcd
check 'an overlay is rendered twice with the same bytes'           renders_the_same_twice
check 'a chart without a Deployment is an error'                   fails_without_a_deployment
cp -r "$work/kubernetes/chart/single" "$work/kubernetes/chart/own"
sed -i 's/gitlab.example.com/gitlab.mine.example/' "$work/kubernetes/chart/own/agent.toml"
printf '%s\n' 'images:' '  - { name: runner-agent, newName: registry.example.com/runner-agent, newTag: 1.2.3 }' \
    >>"$work/kubernetes/chart/own/kustomization.yaml"
check 'an overlay of your own is rendered'                           renders own
check 'it has its image and address'                                      rendered own own

verdict

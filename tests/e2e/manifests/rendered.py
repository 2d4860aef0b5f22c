"""rendered.py CHECK FILE: one check of a rendered overlay of packaging/kubernetes/chart, named as below."""

import sys
import tomllib

import yaml

objects = list(yaml.safe_load_all(open(sys.argv[2])))


def of(kind, name=None):
    return [it for it in objects if it["kind"] == kind and name in (None, it["metadata"]["name"])]


deployment = of("Deployment")[0]["spec"]
pod = deployment["template"]["spec"]
runner = pod["containers"][0]
config, agent = (next(it for it in pod["initContainers"] if it["name"] == name) for name in ("config", "agent"))
volumes = {it["name"]: it for it in pod["volumes"]}
settings_text = of("ConfigMap", "runner-agent")[0]["data"]["agent.toml"]
settings = tomllib.loads(settings_text)


def mounts(container):
    return {it["name"]: it["mountPath"] for it in container["volumeMounts"]}


def order():
    assert [it["name"] for it in pod["initContainers"]] == ["config", "agent"], pod["initContainers"]
    assert agent["restartPolicy"] == "Always" and "restartPolicy" not in config
    assert len(pod["containers"]) == 1 and config["image"] == runner["image"]


def config_toml():
    paths = {mounts(it)["etc-gitlab-runner"] for it in (config, agent)}
    assert {"name": "CONFIG_FILE", "value": f"{paths.pop()}/config.toml"} in agent["env"] and not paths
    assert f"--config={mounts(runner)['etc-gitlab-runner']}/config.toml" in runner["args"]
    assert volumes["etc-gitlab-runner"]["emptyDir"] == {"medium": "Memory"}


def probes():
    assert agent["startupProbe"]["exec"]["command"] == ["/runner-agent", "health", "--ready"]
    assert agent["livenessProbe"]["exec"]["command"] == ["/runner-agent", "health"]
    assert runner["livenessProbe"]["exec"] and runner["readinessProbe"]["exec"]
    assert "lifecycle" not in agent


def entrypoint():
    assert runner["command"] == ["/entrypoint"] and runner["args"][0] == "run", runner
    assert not runner["lifecycle"], runner["lifecycle"]


def tokens():
    for secret in of("Secret"):
        assert not any([*secret.get("data", {}).values(), *secret.get("stringData", {}).values()]), secret
    assert "agent-registration" in mounts(agent) and not any(name.startswith("agent-") for name in mounts(runner))
    sources = [it["secret"]["name"] for it in volumes["projected-secrets"]["projected"]["sources"]]
    assert sources == ["runner-agent-no-token"] and of("Secret", sources[0]), sources
    assert not any("TOKEN" in it["name"] for it in agent["env"])


def paths():
    """Each path in agent.toml is mounted, and each volume exists."""
    places = tuple(f"{path}/" for path in mounts(agent).values())
    found = [word for word in settings_text.split('"') if word.startswith("/")]
    assert found and all(word.startswith(places) for word in found), (found, places)
    for container in (config, agent, runner):
        assert mounts(container).keys() <= volumes.keys(), mounts(container)
    assert {"name": "STATE_DIRECTORY", "value": mounts(agent)["agent-state"]} in agent["env"]


def restricted():
    for container in (config, agent):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and context["runAsNonRoot"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}


def namespace():
    spaces = {it["metadata"]["namespace"] for it in objects}
    assert len(spaces) == 1, spaces


def single():
    claim = volumes["agent-state"]["persistentVolumeClaim"]["claimName"]
    assert of("PersistentVolumeClaim", claim) and "emptyDir" not in volumes["agent-state"]
    assert deployment["replicas"] == 1 and deployment["strategy"] == {"type": "Recreate"}, deployment
    assert "sharing" not in settings and len(of("Role")) == 1


def shared():
    assert all(it["share_as"] for it in settings["enroll"])
    assert volumes["agent-state"]["emptyDir"] == {} and "strategy" not in deployment


def kubernetes():
    shared()
    assert settings["sharing"] == {"engine": "kubernetes"}
    name = f"runner-agent-{settings['enroll'][0]['share_as']}"
    (binding,), (role,) = of("RoleBinding", name), of("Role", name)
    assert of("Secret", name) and binding["roleRef"]["name"] == name
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [name], "verbs": ["get", "watch", "patch"]}
    assert role["rules"] == [rule], role
    account = of("ServiceAccount")[0]["metadata"]
    subject = {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
    assert binding["subjects"] == [subject] and pod["serviceAccountName"] == account["name"], binding


def etcd():
    shared()
    assert settings["sharing"]["engine"] == "etcd" and len(of("Role")) == 1
    assert volumes["agent-etcd"]["secret"]["secretName"] == "runner-agent-etcd"


def own():
    """The overlay that the script made of `single`."""
    assert agent["image"] == "registry.example.com/runner-agent:1.2.3", agent["image"]
    assert settings["enroll"][0]["url"] == "https://gitlab.mine.example"


globals()[sys.argv[1]]()

//! The manifests of the packages, as an API server takes them, and the agent as their pods run it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use fake_gitlab::{Endpoint, Gitlab};
use serde_json::{Value as Json, json};
use test_support::{Output, Process};

use crate::kube::{ADMIN, ApiServer, JSON, NAMESPACE, collection, manifest};

const APPLY: &str = "application/apply-patch+yaml";
const JSON_PATCH: &str = "application/json-patch+json";
const PACKAGE: &str = "packaging/kubernetes";
const SECRETS: &str = "/api/v1/namespaces/ci/secrets";

/// The user of the pods.
const USER: u32 = 999;

/// What `kubectl apply -k` makes of the kustomization, and the Secret that an overlay has.
fn objects() -> Vec<Json> {
    let kustomization = manifest(&format!("{PACKAGE}/kustomization.yaml")).remove(0);
    let files = kustomization["resources"].as_array().unwrap().iter();
    let mut objects: Vec<Json> = files.flat_map(|file| manifest(&format!("{PACKAGE}/{}", text(file)))).collect();
    for map in kustomization["configMapGenerator"].as_array().unwrap() {
        let files = map["files"].as_array().unwrap().iter().map(text);
        let data: BTreeMap<_, _> =
            files.map(|file| (file, fs::read_to_string(format!("{PACKAGE}/{file}")).unwrap())).collect();
        let metadata = json!({"name": map["name"]});
        objects.push(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}));
    }
    let metadata = json!({"name": "runner-agent-registration"});
    objects.push(json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": "x"}}));
    for object in &mut objects {
        // The API server of the test is older than sidecars, and takes no field that it does not know.
        let initial = object.pointer_mut("/spec/template/spec/initContainers").and_then(Json::as_array_mut);
        for container in initial.into_iter().flatten().filter(|container| container["name"] == "agent") {
            assert_eq!(container.as_object_mut().unwrap().remove("restartPolicy"), Some("Always".into()));
        }
    }
    objects
}

fn text(value: &Json) -> &str {
    value.as_str().unwrap()
}

fn path_of(object: &Json) -> String {
    format!("{}/{}", collection(object), text(&object["metadata"]["name"]))
}

impl ApiServer {
    /// Applies an object as `kubectl apply --server-side` does; returns the status and the object.
    fn apply(&self, object: &Json) -> (u16, Json) {
        let path = format!("{}?fieldManager=kubectl", path_of(object));
        let (code, body) = self.ask(ADMIN, "PATCH", &path, Some((APPLY, object))).unwrap();
        assert!(matches!(code, 200 | 201), "{path}: {code} {body}");
        (code, serde_json::from_str(&body).unwrap())
    }

    fn read(&self, path: &str) -> Json {
        let (code, body) = self.ask(ADMIN, "GET", path, None).unwrap();
        assert_eq!(code, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    /// A token of a service account, as a pod has it.
    fn token_of(&self, account: &str) -> String {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token");
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "spec": {"audiences": ["https://kubernetes.test"], "expirationSeconds": 600}});
        let (code, body) = self.ask(ADMIN, "POST", &path, Some((JSON, &request))).unwrap();
        assert_eq!(code, 201, "{body}");
        text(&serde_json::from_str::<Json>(&body).unwrap()["status"]["token"]).to_owned()
    }
}

/// Whether all that was applied is there.
fn contains(found: &Json, applied: &Json) -> bool {
    match (found, applied) {
        (Json::Object(found), Json::Object(applied)) => {
            applied.iter().all(|(key, value)| found.get(key).is_some_and(|found| contains(found, value)))
        }
        (Json::Array(found), Json::Array(applied)) => {
            found.len() == applied.len() && found.iter().zip(applied).all(|(found, applied)| contains(found, applied))
        }
        (found, applied) => found == applied,
    }
}

pub(crate) fn applied_twice() {
    let server = ApiServer::new();
    let objects = objects();
    let kinds: Vec<_> = objects.iter().map(|object| text(&object["kind"])).collect();
    for kind in ["ServiceAccount", "Secret", "Role", "RoleBinding", "StatefulSet", "ConfigMap"] {
        assert!(kinds.contains(&kind), "{kind}: {kinds:?}");
    }
    for object in &objects {
        assert_eq!(server.apply(object).0, 201, "{object}");
        let found = server.read(&path_of(object));
        let mut applied = object.clone();
        // The API server makes `data` of it.
        applied.as_object_mut().unwrap().remove("stringData");
        assert!(contains(&found, &applied), "{found}\n{applied}");
    }
    let account = named(&objects, "StatefulSet")["spec"]["template"]["spec"]["serviceAccountName"].clone();
    let token = server.token_of(text(&account));
    has_only_the_rights_that_it_needs(&server, &token);

    let gitlab = Gitlab::start();
    for number in 1..=2 {
        let pod = Pod::new(&server, &objects, &gitlab, &token, number);
        pod.run(&["--once"]).exits(0);
        // The claim has it, where the next pod of the replica finds it.
        assert!(fs::metadata(pod.root.join("system-id/.runner_system_id")).unwrap().len() > 0);
        assert_eq!(gitlab.requests_to(Endpoint::Register).len(), 1);
        assert_eq!(gitlab.runners()[0].managers.len(), number);
    }
    // What the agents have written stays.
    let runner = server.read(&format!("{SECRETS}/runner-agent-docker-fleet"));
    assert!(runner["data"]["runner"].is_string());
    for object in &objects {
        let before = bare(server.read(&path_of(object)));
        let (code, again) = server.apply(object);
        assert_eq!((code, bare(again)), (200, before));
    }
    assert_eq!(server.read(&format!("{SECRETS}/runner-agent-docker-fleet"))["data"], runner["data"]);
}

/// An object without what an apply that changes nothing may change.
fn bare(mut object: Json) -> Json {
    let metadata = object["metadata"].as_object_mut().unwrap();
    metadata.remove("resourceVersion");
    metadata.remove("managedFields");
    object
}

fn named<'o>(objects: &'o [Json], kind: &str) -> &'o Json {
    objects.iter().find(|object| object["kind"] == kind).unwrap()
}

/// Method, path, and a body of a type.
type Request<'r> = (&'r str, String, Option<(&'r str, &'r Json)>);

fn has_only_the_rights_that_it_needs(server: &ApiServer, token: &str) {
    let own = format!("{SECRETS}/runner-agent-docker-fleet");
    let other = format!("{SECRETS}/runner-agent-registration");
    let watched = |selector: &str| format!("{SECRETS}?watch=true&timeoutSeconds=1{selector}");
    let selector = "&fieldSelector=metadata.name=runner-agent-docker-fleet";
    let patch = json!([{"op": "test", "path": "/metadata/name", "value": "runner-agent-docker-fleet"}]);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "another"}});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "another"}});
    let roles = collection(&role);
    let allowed: [Request<'_>; 3] = [
        ("GET", own.clone(), None),
        ("GET", watched(selector), None),
        ("PATCH", own.clone(), Some((JSON_PATCH, &patch))),
    ];
    let refused: [Request<'_>; 15] = [
        ("GET", SECRETS.to_owned(), None),
        ("GET", format!("{SECRETS}?fieldSelector=metadata.name=runner-agent-docker-fleet"), None),
        ("GET", watched(""), None),
        ("GET", watched("&fieldSelector=metadata.name=runner-agent-registration"), None),
        ("GET", other.clone(), None),
        ("PATCH", other, Some((JSON_PATCH, &patch))),
        ("POST", SECRETS.to_owned(), Some((JSON, &secret))),
        ("PUT", own.clone(), Some((JSON, &secret))),
        ("DELETE", own, None),
        ("DELETE", SECRETS.to_owned(), None),
        ("GET", format!("/api/v1/namespaces/{NAMESPACE}/configmaps/runner-agent"), None),
        ("GET", format!("/api/v1/namespaces/{NAMESPACE}/pods"), None),
        ("GET", "/api/v1/namespaces/default/secrets/runner-agent-docker-fleet".to_owned(), None),
        ("GET", "/api/v1/secrets".to_owned(), None),
        ("POST", roles, Some((JSON, &role))),
    ];
    for (requests, expected) in [(&allowed[..], 200), (&refused[..], 403)] {
        for (method, path, body) in requests {
            let (code, answer) = server.ask(token, method, path, *body).unwrap();
            assert_eq!(code, expected, "{method} {path}: {answer}");
        }
    }
}

/// The agent's container of a pod: a root with the volumes of the manifest, and the user of the pod.
struct Pod {
    root: PathBuf,
    environment: Vec<(String, String)>,
    args: Vec<String>,
}

impl Pod {
    fn new(server: &ApiServer, objects: &[Json], gitlab: &Gitlab, token: &str, number: usize) -> Self {
        let root = server.directory.path().join(format!("pod-{number}"));
        let pod = &named(objects, "StatefulSet")["spec"]["template"]["spec"];
        let [link, agent] = &pod["initContainers"].as_array().unwrap()[..] else { panic!("{pod}") };
        assert_eq!(pod["securityContext"]["runAsUser"], USER);
        for mount in agent["volumeMounts"].as_array().unwrap() {
            let path = root.join(text(&mount["mountPath"]).trim_start_matches('/'));
            fs::create_dir_all(&path).unwrap();
            match text(&mount["name"]) {
                "settings" => {
                    let settings = text(&named(objects, "ConfigMap")["data"]["agent.toml"]);
                    // An overlay has the address of GitLab.
                    let settings = settings.replace("https://gitlab.example.com", &gitlab.url());
                    assert!(settings.contains(&gitlab.url()));
                    write(&path.join("agent.toml"), &settings);
                }
                "registration" => write(&path.join("token"), &gitlab.instance_registration_token()),
                _ => chown(&path, Some(USER), Some(USER)).unwrap(),
            }
        }
        let account = root.join("var/run/secrets/kubernetes.io/serviceaccount");
        fs::create_dir_all(&account).unwrap();
        let authority = fs::read_to_string(server.directory.path().join("ca.pem")).unwrap();
        for (name, text) in [("token", token), ("namespace", NAMESPACE), ("ca.crt", &authority)] {
            write(&account.join(name), text);
        }
        fs::copy(crate::agents::binary(), root.join("runner-agent")).unwrap();
        fs::create_dir(root.join("tmp")).unwrap();
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        let settings = agent["env"].as_array().unwrap().iter();
        let mut environment: Vec<_> =
            settings.map(|it| (text(&it["name"]).to_owned(), text(&it["value"]).to_owned())).collect();
        environment.push(("KUBERNETES_SERVICE_HOST".to_owned(), "127.0.0.1".to_owned()));
        environment.push(("KUBERNETES_SERVICE_PORT".to_owned(), server.port.to_string()));
        let args = agent["args"].as_array().unwrap().iter().map(|arg| text(arg).to_owned()).collect();
        let pod = Self { root, environment, args };
        let words: Vec<_> = link["command"].as_array().unwrap().iter().map(text).collect();
        pod.run_as_the_user(&words).exits(0);
        pod
    }

    /// Runs the agent as the container does, with more arguments.
    fn run(&self, more: &[&str]) -> Output {
        let own = self.args.iter().map(String::as_str);
        let words: Vec<_> = std::iter::once("/runner-agent").chain(own).chain(more.iter().copied()).collect();
        self.run_as_the_user(&words)
    }

    fn run_as_the_user(&self, words: &[&str]) -> Output {
        // With libraries, which the binary of the image does not need.
        let script = "for name in usr lib lib64 proc dev; do mkdir -p \"$0/$name\"; mount --rbind \"/$name\" \"$0/$name\"; done; \
             exec chroot --userspec=999:999 --groups=999 \"$0\" \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-euc", script]).arg(&self.root);
        command.args(words).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Process::start(command).end()
    }
}

/// Writes a file as a volume has it: for root and the group of the pod.
fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    chown(path, None, Some(USER)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o440)).unwrap();
}

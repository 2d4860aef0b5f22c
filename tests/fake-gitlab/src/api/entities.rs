//! The JSON of runners, managers, jobs and projects.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::Version;
use crate::state::State;
use crate::state::clock::iso8601;
use crate::state::job::Job;
use crate::state::manager::Manager;
use crate::state::owner::{Group, Project};
use crate::state::runner::{Runner, RunnerType};

/// How long a runner is online after a contact.
const ONLINE: SignedDuration = SignedDuration::from_hours(2);
/// When a runner without contact is stale, since 17.1.
const STALE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// When a runner without contact is stale, from 15.0 to 17.0.
const STALE_BEFORE: SignedDuration = SignedDuration::from_hours(90 * 24);

/// The token and its expiry.
pub(super) fn credentials(version: Version, runner: &Runner) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("token".to_owned(), json!(runner.token));
    if version.is_at_least(14, 8) {
        fields.insert("token_expires_at".to_owned(), json!(runner.token_expires_at.map(iso8601)));
    }
    fields
}

/// A runner as lists show it.
pub(super) fn runner(state: &State, runner: &Runner) -> Map<String, Value> {
    let version = state.version;
    let status = status(state, runner.contacted_at, runner.created_at);
    let mut fields = object(json!({
        "id": runner.id,
        "description": runner.description,
        "ip_address": if version.is_at_least(17, 0) { Value::Null } else { json!("127.0.0.1") },
        "active": !runner.paused,
        "is_shared": runner.runner_type == RunnerType::Instance,
        "runner_type": runner.runner_type.name(),
        "name": runner.info.get("name"),
        "online": runner.contacted_at.map(|_| status == "online"),
        "status": if runner.paused { "paused" } else { status },
    }));
    if version.is_at_least(14, 8) {
        fields.insert("paused".to_owned(), json!(runner.paused));
    }
    if version.is_at_least(18, 1) {
        fields.insert("created_by".to_owned(), Value::Null);
        fields.insert("created_at".to_owned(), json!(iso8601(runner.created_at)));
    }
    if version.is_at_least(18, 2) {
        fields.insert("job_execution_status".to_owned(), json!(execution(state, runner.id, None)));
    }
    fields
}

/// A runner with its details and the projects and groups that the caller can see.
pub(super) fn runner_details(state: &State, found: &Runner, sees_owners: bool, with_projects: bool) -> Value {
    let recent = found.managers.iter().max_by_key(|manager| manager.contacted_at);
    let info = recent.map_or(&found.info, |manager| &manager.info);
    let projects: Vec<Value> =
        found.projects.iter().filter(|_| sees_owners).filter_map(|id| state.projects.get(id)).map(project).collect();
    let groups: Vec<Value> =
        found.groups.iter().filter(|_| sees_owners).filter_map(|id| state.groups.get(id)).map(group).collect();
    let mut fields = runner(state, found);
    fields.extend(object(json!({
        "tag_list": found.tags,
        "run_untagged": found.run_untagged,
        "locked": found.locked,
        "maximum_timeout": found.maximum_timeout,
        "access_level": found.access_level.name(),
        "version": info.get("version"),
        "revision": info.get("revision"),
        "platform": info.get("platform"),
        "architecture": info.get("architecture"),
        "contacted_at": found.contacted_at.map(iso8601),
        "groups": groups,
    })));
    if with_projects {
        fields.insert("projects".to_owned(), json!(projects));
    }
    if state.version.is_at_least(16, 10) {
        fields.insert("maintenance_note".to_owned(), json!(found.maintenance_note.as_ref().filter(|_| sees_owners)));
    }
    if !state.version.is_at_least(13, 0) {
        fields.insert("token".to_owned(), json!(found.token));
    }
    Value::Object(fields)
}

pub(super) fn manager(state: &State, runner_id: u64, manager: &Manager) -> Value {
    let mut fields = object(json!({
        "id": manager.id,
        "system_id": manager.system_id,
        "version": manager.info("version"),
        "revision": manager.info("revision"),
        "platform": manager.info("platform"),
        "architecture": manager.info("architecture"),
        "created_at": iso8601(manager.created_at),
        "contacted_at": iso8601(manager.contacted_at),
        "ip_address": "127.0.0.1",
        "status": status(state, Some(manager.contacted_at), manager.created_at),
    }));
    if state.version.is_at_least(18, 2) {
        fields.insert("job_execution_status".to_owned(), json!(execution(state, runner_id, Some(&manager.system_id))));
    }
    Value::Object(fields)
}

pub(super) fn job(state: &State, job: &Job) -> Value {
    json!({
        "id": job.id,
        "ip_address": if state.version.is_at_least(17, 0) { Value::Null } else { json!("127.0.0.1") },
        "status": job.status,
        "stage": "test",
        "name": "test",
        "ref": "main",
        "tag": false,
        "coverage": Value::Null,
        "created_at": iso8601(job.created_at),
        "started_at": iso8601(job.created_at),
        "finished_at": Value::Null,
        "duration": Value::Null,
        "user": user(),
        "commit": {
            "id": COMMIT,
            "short_id": &COMMIT[..8],
            "title": "Test",
            "created_at": iso8601(job.created_at),
            "parent_ids": [],
            "message": "Test",
            "author_name": "Administrator",
            "author_email": "admin@example.com",
            "authored_date": iso8601(job.created_at),
            "committer_name": "Administrator",
            "committer_email": "admin@example.com",
            "committed_date": iso8601(job.created_at),
        },
        "pipeline": { "id": job.id, "sha": COMMIT, "ref": "main", "status": job.status },
        "project": state.projects.get(&job.project_id).map(project),
    })
}

pub(super) fn group(group: &Group) -> Value {
    json!({
        "id": group.id,
        "name": last_segment(&group.path),
        "web_url": format!("http://localhost/groups/{}", group.path),
    })
}

pub(super) fn project(project: &Project) -> Value {
    json!({
        "id": project.id,
        "name": last_segment(&project.path),
        "name_with_namespace": project.path.replace('/', " / "),
        "path": last_segment(&project.path),
        "path_with_namespace": project.path,
    })
}

/// The commit of every job.
const COMMIT: &str = "97de212e80737a608d939f648d959671fb0a0142";

/// The user of every job.
fn user() -> Value {
    json!({
        "id": 1,
        "name": "Administrator",
        "username": "root",
        "state": "active",
        "avatar_url": Value::Null,
        "web_url": "http://localhost/root",
    })
}

/// The contact status: `online`, `offline`, `stale` or the release's name for no contact.
pub(super) fn status(state: &State, contacted_at: Option<Timestamp>, created_at: Timestamp) -> &'static str {
    let version = state.version;
    let stale_after = if version.is_at_least(17, 1) { STALE } else { STALE_BEFORE };
    let silence = state.clock.now().duration_since(contacted_at.unwrap_or(created_at));
    match contacted_at {
        None if !version.is_at_least(15, 0) => "not_connected",
        Some(_) if silence < ONLINE => "online",
        _ if silence >= stale_after && version.is_at_least(15, 0) => "stale",
        None => "never_contacted",
        Some(_) => "offline",
    }
}

fn execution(state: &State, runner_id: u64, system_id: Option<&str>) -> &'static str {
    let is_active = state.jobs.values().any(|job| {
        job.runner_id == runner_id
            && job.status == "running"
            && (system_id.is_none() || job.system_id.as_deref() == system_id)
    });
    if is_active { "active" } else { "idle" }
}

fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

//! The calls of the management API and of the API of 2016: requests and answers.

use serde_json::json;

use super::*;
use crate::gitlab::fleet::{ContactStatus, DeprecatedScope, Fleet, JobExecution, PauseParameter, RunnerType};

async fn request(endpoint: Endpoint) -> server::ReceivedRequest {
    let server = ScriptedServer::start([Reply::html(500)]).await;
    call(&client(), &server.site(), endpoint).await.unwrap_err();
    server.requests()[0].clone()
}

#[tokio::test]
async fn every_call_has_its_method_path_and_body() {
    for (endpoint, line, body) in [
        (Endpoint::ListOwned, "GET /api/v4/runners?per_page=100&page=1", None),
        (Endpoint::ListAll, "GET /api/v4/runners/all?per_page=100&page=1", None),
        (Endpoint::ListOfProject, "GET /api/v4/projects/group%2Fproject/runners?per_page=100&page=1", None),
        (Endpoint::ListOfGroup, "GET /api/v4/groups/group%2Fproject/runners?per_page=100&page=1", None),
        (Endpoint::Show, "GET /api/v4/runners/42", None),
        (Endpoint::Update, "PUT /api/v4/runners/42", Some(json!({ "paused": true }))),
        (Endpoint::DeleteById, "DELETE /api/v4/runners/42", Some(json!({}))),
        (Endpoint::ListJobs, "GET /api/v4/runners/42/jobs?order_by=id&sort=desc&per_page=100&pagination=keyset", None),
        (Endpoint::ListManagers, "GET /api/v4/runners/42/managers", None),
        (Endpoint::ListProjects, "GET /api/v4/runners/42/projects?per_page=100&page=1", None),
        (Endpoint::Assign, "POST /api/v4/projects/group%2Fproject/runners", Some(json!({ "runner_id": 42 }))),
        (Endpoint::Unassign, "DELETE /api/v4/projects/group%2Fproject/runners/42", Some(json!({}))),
        (Endpoint::ResetInstanceRegistrationToken, "POST /api/v4/runners/reset_registration_token", Some(json!({}))),
        (
            Endpoint::ResetProjectRegistrationToken,
            "POST /api/v4/projects/group%2Fproject/runners/reset_registration_token",
            Some(json!({})),
        ),
        (
            Endpoint::ResetGroupRegistrationToken,
            "POST /api/v4/groups/group%2Fproject/runners/reset_registration_token",
            Some(json!({})),
        ),
        (Endpoint::Create, "POST /api/v4/user/runners", Some(json!({ "runner_type": "instance_type" }))),
        (Endpoint::ShowProject, "GET /api/v4/projects/group%2Fproject", None),
        (Endpoint::ShowGroup, "GET /api/v4/groups/group%2Fproject?with_projects=false", None),
        (Endpoint::RegisterV1, "POST /ci/api/v1/runners/register", Some(json!({ "token": REGISTRATION_TOKEN }))),
        (Endpoint::DeleteV1, "DELETE /ci/api/v1/runners/delete", Some(json!({ "token": RUNNER_TOKEN }))),
    ] {
        let request = request(endpoint).await;
        let sent = (!request.body.is_empty()).then(|| request.json());
        assert_eq!((request.line.as_str(), sent), (line, body));
    }
}

#[tokio::test]
async fn a_creation_sends_every_parameter_and_its_owner() {
    let at: crate::model::Timestamp = "2026-01-11T14:39:24Z".parse().unwrap();
    let parameters = RegisterParameters {
        description: Some("d".to_owned()),
        maintenance_note: Some("n".to_owned()),
        tag_list: vec!["a".to_owned(), "b".to_owned()],
        run_untagged: Some(false),
        locked: Some(true),
        paused: Some(true),
        access_level: Some(AccessLevel::RefProtected),
        maximum_timeout: Some(Duration::from_secs(700)),
        info: None,
    };
    for (owner, kind, id) in [
        (NewRunnerOwner::Group(7), "group_type", "group_id"),
        (NewRunnerOwner::Project(7), "project_type", "project_id"),
    ] {
        let server = ScriptedServer::start([Reply::html(500)]).await;
        let new = NewRunner {
            owner,
            parameters: parameters.clone(),
            token_expires_at: Some(at),
            token_rotation_deadline: Some(at),
        };
        client().fleet(server.site(), token(ACCESS_TOKEN)).create(&new).await.unwrap_err();
        let mut expected = json!({
            "runner_type": kind, "description": "d", "maintenance_note": "n", "tag_list": "a,b",
            "run_untagged": false, "locked": true, "paused": true, "access_level": "ref_protected",
            "maximum_timeout": 700, "token_expires_at": "2026-01-11T14:39:24Z",
            "token_rotation_deadline": "2026-01-11T14:39:24Z",
        });
        expected[id] = json!(7);
        assert_eq!(server.requests()[0].json(), expected);
    }
}

#[tokio::test]
async fn an_update_sends_changes_and_removals_only() {
    let changes = RunnerChanges {
        tag_list: Some(Vec::new()),
        run_untagged: Some(true),
        maximum_timeout: Some(None),
        ..RunnerChanges::default()
    };
    let server = ScriptedServer::start([Reply::html(500)]).await;
    client().fleet(server.site(), token(ACCESS_TOKEN)).update(id(), &changes).await.unwrap_err();
    let expected = json!({ "tag_list": "", "run_untagged": true, "maximum_timeout": null });
    assert_eq!(server.requests()[0].json(), expected);
    assert!(RunnerChanges::default().is_empty() && !changes.is_empty());
}

#[tokio::test]
async fn a_server_before_14_8_needs_the_parameter_active() {
    let refusal =
        json!({ "error": "description, active, tag_list are missing, at least one parameter must be provided" });
    let details = json!({ "id": 42, "active": false });
    let server =
        ScriptedServer::start([Reply::json(400, &refusal.to_string()), Reply::json(200, &details.to_string())]).await;
    let fleet = client().fleet(server.site(), token(ACCESS_TOKEN));
    let error = fleet.set_paused(id(), true, PauseParameter::Paused).await.unwrap_err();
    assert!(Fleet::needs_active_parameter(&error));
    let answer = fleet.set_paused(id(), true, PauseParameter::Active).await.unwrap();
    assert_eq!(answer.value.runner.is_paused(), Some(true));
    let sent: Vec<_> = server.requests().iter().map(server::ReceivedRequest::json).collect();
    assert_eq!(sent, [json!({ "paused": true }), json!({ "active": false })]);
}

#[tokio::test]
async fn every_field_of_a_runner_is_read() {
    let body = json!([{
        "id": 6, "description": "test-1", "ip_address": "", "active": true, "paused": false, "is_shared": false,
        "runner_type": "project_type", "name": null, "online": true, "status": "online",
        "job_execution_status": "active", "created_at": "2026-01-11T14:39:24.066Z",
        "created_by": { "id": 1, "username": "root", "state": "active" },
    }]);
    let server = ScriptedServer::start([Reply::json(200, &body.to_string())]).await;
    let fleet = client().fleet(server.site(), token(ACCESS_TOKEN));
    let rows = fleet.runners(&RunnerScope::All, &RunnerFilters::default()).next_page().await.unwrap().unwrap();
    let runner = &rows[0];
    assert_eq!(
        (runner.status.clone(), runner.runner_type.clone()),
        (Some(ContactStatus::Online), Some(RunnerType::Project))
    );
    assert_eq!(runner.job_execution_status, Some(JobExecution::Active));
    assert_eq!(runner.created_at.unwrap().to_string(), "2026-01-11T14:39:24.066Z");
    assert_eq!(runner.created_by.as_ref().unwrap().username.as_deref(), Some("root"));
}

#[tokio::test]
async fn a_deletion_in_the_api_of_2016_may_answer_200() {
    for reply in [Reply::json(200, r#"{"id":1}"#), Reply::json(200, "\"1\""), Reply::new(204, &[], "")] {
        let server = ScriptedServer::start([reply]).await;
        call(&client(), &server.site(), Endpoint::DeleteV1).await.unwrap();
    }
    let portal = ScriptedServer::start([Reply::html(200)]).await;
    let error = call(&client(), &portal.site(), Endpoint::DeleteV1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotGitlab);
}

#[tokio::test]
async fn a_404_of_the_api_of_2016_is_read_by_its_body() {
    let invalid = failure(Endpoint::RegisterV1, Reply::json(404, r#"{"message":"404 Not found"}"#)).await;
    assert_eq!(invalid.kind(), ErrorKind::InvalidParameters);
    for endpoint in [Endpoint::RegisterV1, Endpoint::DeleteV1] {
        assert_eq!(failure(endpoint, Reply::html(404)).await.kind(), ErrorKind::Unsupported);
        let moved = Reply::new(302, &[("location", "/users/sign_in")], "");
        assert_eq!(failure(endpoint, moved).await.kind(), ErrorKind::Redirect);
    }
    let forbidden = Reply::json(403, r#"{"message":"403 Forbidden"}"#);
    assert_eq!(failure(Endpoint::RegisterV1, forbidden.clone()).await.kind(), ErrorKind::RegistrationRefused);
    assert_eq!(failure(Endpoint::DeleteV1, forbidden).await.kind(), ErrorKind::TokenRefused);
}

#[tokio::test]
async fn a_refused_access_token_is_reported_with_its_needs() {
    let message = |status: u16, text: &str| Reply::json(status, &json!({ "message": text }).to_string());
    let expired = r#"{"error":"invalid_token","error_description":"Token is expired."}"#;
    let error = failure(Endpoint::ListAll, Reply::json(401, expired)).await;
    assert_eq!(error.kind(), ErrorKind::AccessTokenRefused);
    assert!(error.to_string().contains("Token is expired."), "{error}");

    let scope = r#"{"error":"insufficient_scope","error_description":"more","scope":"api manage_runner"}"#;
    let error = failure(Endpoint::DeleteById, Reply::json(403, scope)).await;
    assert_eq!(error.kind(), ErrorKind::AccessTokenRights);
    assert!(error.to_string().contains("one of: api manage_runner"), "{error}");

    let error = failure(Endpoint::ListAll, message(403, "403 Forbidden")).await;
    assert!(error.hint().unwrap().contains("administrator"), "{error}");
    let error = failure(Endpoint::Create, message(403, "403 Forbidden - Insufficient permissions")).await;
    assert!(error.hint().unwrap().contains("`create_runner`"), "{error}");

    let error = failure(Endpoint::ListOfProject, message(404, "404 Project Not Found")).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("cannot see it"), "{error}");
}

#[tokio::test]
async fn a_locked_runner_is_not_a_missing_right() {
    for (endpoint, reason) in [
        (Endpoint::Assign, "FleetRunner is locked"),
        (Endpoint::Unassign, "Only one project associated with the runner. Please remove the runner instead"),
        (Endpoint::DeleteById, "FleetRunner associated with more than one project"),
    ] {
        let body = json!({ "message": format!("403 Forbidden - {reason}") }).to_string();
        let error = failure(endpoint, Reply::json(403, &body)).await;
        assert_eq!(error.kind(), ErrorKind::Forbidden);
        assert!(error.to_string().contains(reason), "{error}");
        let body = json!({ "message": "403 Forbidden - No access granted" }).to_string();
        assert_eq!(failure(endpoint, Reply::json(403, &body)).await.kind(), ErrorKind::AccessTokenRights);
    }
}

#[test]
fn a_scope_must_be_a_known_name() {
    assert_eq!("shared".parse(), Ok(DeprecatedScope::Shared));
    assert!("everything".parse::<DeprecatedScope>().is_err());
}

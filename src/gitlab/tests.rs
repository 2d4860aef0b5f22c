//! Tests of the client against a scripted server, in real time on the loopback interface.

mod access_token;
mod dispositions;
mod fleet;
mod json_stream;
mod pages;
mod requests;
mod server;
mod successes;
mod tls;
mod transport;

use std::time::Duration;

use super::fleet::{
    JobFilters, NewRunner, NewRunnerOwner, OwnerName, RegistrationTokenScope, RunnerChanges, RunnerFilters, RunnerScope,
};
use super::*;
use crate::model::{AccessTokenOwner, RunnerId, Site, SystemId, Timestamp, TlsFiles, TlsPaths};
use crate::secret::Token;
use server::{Reply, ScriptedServer};

const RUNNER_TOKEN: &str = "glrt-runner-secret";
const REGISTRATION_TOKEN: &str = "GR1348941registration-secret";
const ACCESS_TOKEN: &str = "glpat-access-secret";
const SYSTEM_ID: &str = "s_0123456789ab";

fn token(text: &str) -> Token {
    Token::parse(text).unwrap()
}

fn system_id() -> SystemId {
    SYSTEM_ID.parse().unwrap()
}

fn site(url: &str) -> Site {
    Site { url: url.parse().unwrap(), tls: TlsFiles::default() }
}

/// A client with the default timeouts, since a busy machine can be slow.
fn client() -> Client {
    Client::new(Config::default())
}

/// The same, but with a short timeout for a server that never completes its answer.
fn client_for(reply: &Reply) -> Client {
    match reply {
        Reply::Silence | Reply::Drip(_) => {
            Client::new(Config { request_timeout: Duration::from_millis(400), ..Config::default() })
        }
        Reply::Keep(_) | Reply::Close(_) => client(),
    }
}

/// The calls of the daemon.
const LIFECYCLE: [Endpoint; 6] = [
    Endpoint::Register,
    Endpoint::Verify,
    Endpoint::DeleteRunner,
    Endpoint::DeleteManager,
    Endpoint::Reset,
    Endpoint::ResetById,
];

fn id() -> RunnerId {
    RunnerId::try_new(42).unwrap()
}

fn owner() -> OwnerName {
    "group/project".parse().unwrap()
}

/// Sends a call with the constants of these tests, and drops the value of a success.
async fn call(client: &Client, site: &Site, endpoint: Endpoint) -> Result<(), Error> {
    match endpoint {
        Endpoint::Register => {
            let parameters = RegisterParameters::default();
            client.register(site, &token(REGISTRATION_TOKEN), &parameters).await.map(drop)
        }
        Endpoint::Verify => client.verify(site, &token(RUNNER_TOKEN), &system_id(), None).await.map(drop),
        Endpoint::Probe => client.probe(site).await.map(drop),
        Endpoint::DeleteRunner => client.delete_runner(site, &token(RUNNER_TOKEN)).await.map(drop),
        Endpoint::DeleteManager => client.delete_manager(site, &token(RUNNER_TOKEN), &system_id()).await.map(drop),
        Endpoint::Reset => client.reset(site, &token(RUNNER_TOKEN), &system_id()).await.map(drop),
        Endpoint::RegisterV1 => {
            let parameters = RegisterParameters::default();
            client.register_v1(site, &token(REGISTRATION_TOKEN), &parameters).await.map(drop)
        }
        Endpoint::DeleteV1 => client.delete_v1(site, &token(RUNNER_TOKEN)).await.map(drop),
        Endpoint::ResetById => client.reset_by_id(site, id(), &token(ACCESS_TOKEN)).await.map(drop),
        endpoint => manage(client, site, endpoint).await,
    }
}

/// Sends a call of the management API.
async fn manage(client: &Client, site: &Site, endpoint: Endpoint) -> Result<(), Error> {
    let fleet = client.fleet(site.clone(), token(ACCESS_TOKEN));
    let list = async |scope| fleet.runners(&scope, &RunnerFilters::default()).next_page().await.map(drop);
    let reset = async |scope| fleet.reset_registration_token(&scope).await.map(drop);
    let day = Timestamp::from_date("2026-04-01").unwrap();
    let rotate = async |owner| client.rotate_access_token(site, &token(ACCESS_TOKEN), &owner, day).await.map(drop);
    match endpoint {
        Endpoint::ListOwned => list(RunnerScope::Owned).await,
        Endpoint::ListAll => list(RunnerScope::All).await,
        Endpoint::ListOfProject => list(RunnerScope::Project(owner())).await,
        Endpoint::ListOfGroup => list(RunnerScope::Group(owner())).await,
        Endpoint::Show => fleet.runner(id(), true).await.map(drop),
        Endpoint::Update => {
            let changes = RunnerChanges { paused: Some(true), ..RunnerChanges::default() };
            fleet.update(id(), &changes).await.map(drop)
        }
        Endpoint::DeleteById => fleet.delete(id()).await.map(drop),
        Endpoint::ListJobs => fleet.jobs(id(), &JobFilters::default()).next_page().await.map(drop),
        Endpoint::ListManagers => fleet.managers(id()).await.map(drop),
        Endpoint::ListProjects => fleet.projects_of(id()).next_page().await.map(drop),
        Endpoint::Assign => fleet.assign(&owner(), id()).await.map(drop),
        Endpoint::Unassign => fleet.unassign(&owner(), id()).await.map(drop),
        Endpoint::ResetInstanceRegistrationToken => reset(RegistrationTokenScope::Instance).await,
        Endpoint::ResetProjectRegistrationToken => reset(RegistrationTokenScope::Project(owner())).await,
        Endpoint::ResetGroupRegistrationToken => reset(RegistrationTokenScope::Group(owner())).await,
        Endpoint::Create => fleet.create(&new_runner()).await.map(drop),
        Endpoint::ShowProject => fleet.project(&owner()).await.map(drop),
        Endpoint::ShowGroup => fleet.group(&owner()).await.map(drop),
        Endpoint::ShowAccessToken => client.access_token_facts(site, &token(ACCESS_TOKEN)).await.map(drop),
        Endpoint::RotateAccessToken => rotate(AccessTokenOwner::Personal).await,
        Endpoint::RotateGroupAccessToken => rotate(AccessTokenOwner::Group("a/b".to_owned())).await,
        Endpoint::RotateProjectAccessToken => rotate(AccessTokenOwner::Project("a/b".to_owned())).await,
        _ => unreachable!("{endpoint:?} is a call of the daemon"),
    }
}

fn new_runner() -> NewRunner {
    NewRunner {
        owner: NewRunnerOwner::Instance,
        parameters: RegisterParameters::default(),
        token_expires_at: None,
        token_rotation_deadline: None,
    }
}

/// Sends a call that the server answers with `reply`, and returns its error.
async fn failure(endpoint: Endpoint, reply: Reply) -> Error {
    let client = client_for(&reply);
    let server = ScriptedServer::start([reply]).await;
    let error = call(&client, &server.site(), endpoint).await.unwrap_err();
    assert_eq!(server.requests().len(), 1, "{error}");
    error
}

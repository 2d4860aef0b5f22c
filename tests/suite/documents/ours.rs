//! The requests that this client sends for the documented ones.

use std::collections::BTreeSet;
use std::time::Duration;

use fake_gitlab::{Endpoint, Gitlab, Request};
use runner_agent::gitlab::fleet::{
    DeprecatedScope, Fleet, JobFilters, PauseParameter, RegistrationTokenScope, RunnerChanges, RunnerFilters,
    RunnerScope, Sort,
};
use runner_agent::gitlab::{AccessLevel, Answer, Client, Config, Error, Info, RegisterParameters};
use runner_agent::model::{Expiry, RunnerId, Site, SystemId, TlsFiles};
use runner_agent::secret::Token;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::request::{ACCESS_TOKEN, OTHER_TOKEN};

/// This client, connected to the test GitLab.
pub(crate) struct Ours {
    client: Client,
    fleet: Fleet,
    site: Site,
    token: Token,
    runtime: Runtime,
}

impl Ours {
    pub(crate) fn new(gitlab: &Gitlab) -> Self {
        let site = Site { url: gitlab.url().parse().unwrap(), tls: TlsFiles::default() };
        let client = Client::new(Config::default());
        let fleet = client.fleet(site.clone(), Token::parse(ACCESS_TOKEN).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { client, fleet, site, token: Token::parse(OTHER_TOKEN).unwrap(), runtime }
    }

    /// A client that verifies with the token of this response.
    pub(crate) fn answering(gitlab: &Gitlab, answer: &Value) -> Self {
        let token = answer.get("token").and_then(Value::as_str).unwrap_or(OTHER_TOKEN);
        Self { token: Token::parse(token).unwrap(), ..Self::new(gitlab) }
    }

    /// Sends this client's version of a request that the fake GitLab received, and returns the parsed response.
    pub(crate) fn send(&self, asked: &Request) -> Result<Value, Error> {
        self.runtime.block_on(async {
            match asked.endpoint {
                Endpoint::Register | Endpoint::Verify | Endpoint::Delete | Endpoint::Reset => {
                    self.by_token(asked).await
                }
                Endpoint::LegacyRegister | Endpoint::LegacyDelete => self.by_token(asked).await,
                Endpoint::ListRunners
                | Endpoint::ListAllRunners
                | Endpoint::ListProjectRunners
                | Endpoint::ListGroupRunners
                | Endpoint::ListJobs => self.list(asked).await,
                _ => self.manage(asked).await,
            }
        })
    }

    async fn by_token(&self, asked: &Request) -> Result<Value, Error> {
        let (client, site, token) = (&self.client, &self.site, &self.token);
        let parameters = RegisterParameters {
            description: text(asked, "description"),
            tag_list: tags(asked),
            ..RegisterParameters::default()
        };
        Ok(match asked.endpoint {
            Endpoint::Register => registered(client.register(site, token, &parameters).await?),
            Endpoint::LegacyRegister => registered(client.register_v1(site, token, &parameters).await?),
            Endpoint::Verify => {
                let verified = client.verify(site, token, &system_id(), None).await?.value;
                json!({ "id": verified.id, "token": token.expose(), "token_expires_at": expiry(verified.expiry) })
            }
            Endpoint::Delete => serialized(client.delete_runner(site, token).await?),
            Endpoint::LegacyDelete => serialized(client.delete_v1(site, token).await?),
            _ => {
                let reset = client.reset(site, token, &system_id()).await?.value;
                json!({ "token": reset.token.expose(), "token_expires_at": expiry(reset.expiry) })
            }
        })
    }

    async fn list(&self, asked: &Request) -> Result<Value, Error> {
        let owner = || segment(asked, 1).parse().unwrap();
        let scope = match asked.endpoint {
            Endpoint::ListJobs => {
                let filters = JobFilters { status: word(asked, "status"), ..JobFilters::default() };
                return Ok(rows(self.fleet.jobs(id(asked, 1), &filters).next_page().await?));
            }
            Endpoint::ListRunners => RunnerScope::Owned,
            Endpoint::ListAllRunners => RunnerScope::All,
            Endpoint::ListProjectRunners => RunnerScope::Project(owner()),
            _ => RunnerScope::Group(owner()),
        };
        let filters = RunnerFilters {
            runner_type: word(asked, "type"),
            status: word(asked, "status"),
            paused: text(asked, "paused").map(|text| text == "true"),
            tag_list: tags(asked),
            version_prefix: None,
            scope: word(asked, "scope"),
        };
        Ok(rows(self.fleet.runners(&scope, &filters).next_page().await?))
    }

    async fn manage(&self, asked: &Request) -> Result<Value, Error> {
        let fleet = &self.fleet;
        let owner = || segment(asked, 1).parse().unwrap();
        let reset = async |scope| fleet.reset_registration_token(&scope).await.map(|_| Value::Null);
        Ok(match asked.endpoint {
            Endpoint::ShowRunner => serialized(fleet.runner(id(asked, 1), true).await?),
            Endpoint::UpdateRunner => self.update(asked).await?,
            Endpoint::DeleteById => serialized(fleet.delete(id(asked, 1)).await?),
            Endpoint::AssignRunner => {
                let runner = text(asked, "runner_id").unwrap().parse().unwrap();
                serialized(fleet.assign(&owner(), runner).await?)
            }
            Endpoint::UnassignRunner => serialized(fleet.unassign(&owner(), id(asked, 3)).await?),
            Endpoint::ResetById => {
                let reset = fleet.reset_token(id(asked, 1)).await?.value;
                json!({ "token": reset.token.expose(), "token_expires_at": expiry(reset.expiry) })
            }
            Endpoint::ResetInstanceRegistrationToken => reset(RegistrationTokenScope::Instance).await?,
            Endpoint::ResetProjectRegistrationToken => reset(RegistrationTokenScope::Project(owner())).await?,
            Endpoint::ResetGroupRegistrationToken => reset(RegistrationTokenScope::Group(owner())).await?,
            other => panic!("no document has {other:?}"),
        })
    }

    async fn update(&self, asked: &Request) -> Result<Value, Error> {
        let id = id(asked, 1);
        if let Some(active) = text(asked, "active") {
            return Ok(serialized(self.fleet.set_paused(id, active == "false", PauseParameter::Active).await?));
        }
        let changes = RunnerChanges {
            description: text(asked, "description"),
            tag_list: asked.parameters.contains_key("tag_list").then(|| tags(asked)),
            paused: text(asked, "paused").map(|text| text == "true"),
            ..RunnerChanges::default()
        };
        Ok(serialized(self.fleet.update(id, &changes).await?))
    }
}

/// The names of all parameters that this client can send with a call.
pub(crate) fn everything(gitlab: &Gitlab, call: &str) -> BTreeSet<String> {
    let ours = Ours::new(gitlab);
    let before = gitlab.requests().len();
    ours.runtime.block_on(ours.send_everything(call));
    gitlab.requests()[before..].iter().flat_map(|request| request.parameters.keys().cloned()).collect()
}

impl Ours {
    /// Makes a call with all its parameters and ignores the response.
    async fn send_everything(&self, call: &str) {
        let (client, fleet, site, token) = (&self.client, &self.fleet, &self.site, &self.token);
        let id: RunnerId = "6".parse().unwrap();
        let list = async |scope| drop(fleet.runners(&scope, &full_filters()).next_page().await);
        match call {
            "POST /ci/api/v1/runners/register" => drop(client.register_v1(site, token, &full_parameters()).await),
            "DELETE /ci/api/v1/runners/delete" => drop(client.delete_v1(site, token).await),
            "POST /runners" => drop(client.register(site, token, &full_parameters()).await),
            "DELETE /runners" => drop(client.delete_runner(site, token).await),
            "POST /runners/verify" => drop(client.verify(site, token, &system_id(), None).await),
            "POST /runners/reset_authentication_token" => drop(client.reset(site, token, &system_id()).await),
            "GET /runners" => list(RunnerScope::Owned).await,
            "GET /runners/all" => list(RunnerScope::All).await,
            "GET /projects/:id/runners" => list(RunnerScope::Project("6".parse().unwrap())).await,
            "GET /groups/:id/runners" => list(RunnerScope::Group("6".parse().unwrap())).await,
            "GET /runners/:id/jobs" => {
                let filters = JobFilters {
                    status: "running".parse().ok(),
                    system_id: Some(system_id()),
                    sort: Some(Sort::Ascending),
                };
                drop(fleet.jobs(id, &filters).next_page().await);
            }
            "PUT /runners/:id" => {
                drop(fleet.update(id, &full_changes()).await);
                drop(fleet.set_paused(id, true, PauseParameter::Active).await);
            }
            "POST /projects/:id/runners" => drop(fleet.assign(&"6".parse().unwrap(), id).await),
            other => panic!("no call {other}"),
        }
    }
}

fn full_filters() -> RunnerFilters {
    RunnerFilters {
        runner_type: "group_type".parse().ok(),
        status: "online".parse().ok(),
        paused: Some(true),
        tag_list: vec!["a".to_owned()],
        version_prefix: Some("16".to_owned()),
        scope: Some(DeprecatedScope::Active),
    }
}

fn full_changes() -> RunnerChanges {
    RunnerChanges {
        description: Some("d".to_owned()),
        paused: Some(true),
        tag_list: Some(vec!["a".to_owned()]),
        run_untagged: Some(true),
        locked: Some(true),
        access_level: Some(AccessLevel::RefProtected),
        maximum_timeout: Some(Some(Duration::from_secs(3600))),
        maintenance_note: Some("n".to_owned()),
    }
}

fn full_parameters() -> RegisterParameters {
    RegisterParameters {
        description: Some("d".to_owned()),
        maintenance_note: Some("n".to_owned()),
        tag_list: vec!["a".to_owned()],
        run_untagged: Some(true),
        locked: Some(true),
        paused: Some(true),
        access_level: Some(AccessLevel::RefProtected),
        maximum_timeout: Some(Duration::from_secs(3600)),
        info: Some(Info {
            name: "n".to_owned(),
            version: "1".to_owned(),
            revision: Some("r".to_owned()),
            platform: "linux".to_owned(),
            architecture: "amd64".to_owned(),
        }),
    }
}

fn registered(answer: Answer<runner_agent::gitlab::Registered>) -> Value {
    let registered = answer.value;
    json!({ "id": registered.id, "token": registered.token.expose(), "token_expires_at": expiry(registered.expiry) })
}

fn serialized<T: Serialize>(answer: Answer<T>) -> Value {
    serde_json::to_value(answer.value).unwrap()
}

fn rows<T: Serialize>(page: Option<Vec<T>>) -> Value {
    serde_json::to_value(page.unwrap_or_default()).unwrap()
}

fn expiry(expiry: Expiry) -> Value {
    json!(expiry.at())
}

fn system_id() -> SystemId {
    "s_0123456789ab".parse().unwrap()
}

fn text(asked: &Request, name: &str) -> Option<String> {
    asked.parameter(name).map(str::to_owned)
}

fn word<T: std::str::FromStr>(asked: &Request, name: &str) -> Option<T> {
    asked.parameter(name).map(|text| text.parse().ok().unwrap())
}

fn tags(asked: &Request) -> Vec<String> {
    let list = text(asked, "tag_list").unwrap_or_default();
    list.split(',').filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
}

/// A part of the path below `/api/v4/`.
fn segment(asked: &Request, position: usize) -> &str {
    asked.bare_path().split('/').nth(3 + position).unwrap()
}

fn id(asked: &Request, position: usize) -> RunnerId {
    segment(asked, position).parse().unwrap()
}

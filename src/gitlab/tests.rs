//! The client against a server that does as it is told, in real time on the loopback.

mod dispositions;
mod requests;
mod server;
mod successes;
//mod tls;
mod transport;

use std::time::Duration;

use super::*;
use crate::model::{RunnerId, Site, SystemId, TlsFiles};
use crate::secret::Token;
use server::{Reply, Server};

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

/// A client that waits a moment where a real one waits half a minute.
fn client() -> Client {
    Client::new(Config { request_timeout: Duration::from_millis(400), ..Config::default() })
}

/// Makes a call with the constants of these tests, and drops what a success says.
async fn call(client: &Client, site: &Site, endpoint: Endpoint) -> Result<(), Error> {
    match endpoint {
        Endpoint::Register => {
            let parameters = RegisterParameters::default();
            client.register(site, &token(REGISTRATION_TOKEN), &parameters).await.map(drop)
        }
        Endpoint::Verify => client.verify(site, &token(RUNNER_TOKEN), &system_id(), None).await.map(drop),
        Endpoint::DeleteRunner => client.delete_runner(site, &token(RUNNER_TOKEN)).await.map(drop),
        Endpoint::DeleteManager => client.delete_manager(site, &token(RUNNER_TOKEN), &system_id()).await.map(drop),
        Endpoint::Reset => client.reset(site, &token(RUNNER_TOKEN), &system_id()).await.map(drop),
        Endpoint::ResetById => {
            let id = RunnerId::try_new(42).unwrap();
            client.reset_by_id(site, id, &token(ACCESS_TOKEN)).await.map(drop)
        }
    }
}

/// Makes a call that the server answers with `reply`, and which fails.
async fn failure(endpoint: Endpoint, reply: Reply) -> Error {
    let server = Server::start([reply]).await;
    let error = call(&client(), &server.site(), endpoint).await.unwrap_err();
    assert_eq!(server.requests().len(), 1, "{error}");
    error
}

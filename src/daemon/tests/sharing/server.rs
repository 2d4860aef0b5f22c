//! GitLab at the other end of a network.

use crate::gitlab::fleet::{Manager, NewRunner};
use crate::gitlab::{Answer, Disposition, ErrorClass, Info, RegisterParameters, Registered, Reset, Verified};
use crate::model::{RunnerId, ServerUrl, Site, SystemId};
use crate::ops::memory::MemoryServer;
use crate::ops::{AccessToken, Failure, Server};
use crate::secret::Token;
use crate::sharing::memory::network::{Line, Lost};

type Answered<T> = Result<Answer<T>, Failure>;

/// The way of one machine to GitLab.
pub(super) struct DistantServer {
    pub(super) server: MemoryServer,
    pub(super) line: Line,
}

fn failure(lost: Lost) -> Failure {
    let class = ErrorClass::Unreachable;
    match lost {
        Lost::Unsent => {
            let disposition = Disposition::NotExecuted { retry_after: None };
            Failure { class, may_have_reached: false, ..Failure::of(disposition, "it was not sent") }
        }
        Lost::Unanswered => Failure::of(Disposition::Unknown { retry_after: None }, "no answer came"),
    }
}

/// Implements calls that go over the line.
macro_rules! over_the_line {
    ($(async fn $name:ident(&self $(, $argument:ident: &$type:ty)*) -> $result:ty;)+) => {
        $(async fn $name(&self $(, $argument: &$type)*) -> $result {
            let (server, sent) = (self.server.clone(), ($($argument.clone(),)*));
            let act = move || {
                let (server, ($($argument,)*)) = (server.clone(), sent.clone());
                async move { server.$name($(&$argument),*).await }
            };
            self.line.carry(act).await.unwrap_or_else(|lost| Err(failure(lost)))
        })+
    };
}

impl Server for DistantServer {
    async fn verify(&self, site: &Site, token: &Token, id: &SystemId, info: Option<&Info>) -> Answered<Verified> {
        let (server, sent) = (self.server.clone(), (site.clone(), token.clone(), id.clone(), info.cloned()));
        let act = move || {
            let (server, (site, token, id, info)) = (server.clone(), sent.clone());
            async move { server.verify(&site, &token, &id, info.as_ref()).await }
        };
        self.line.carry(act).await.unwrap_or_else(|lost| Err(failure(lost)))
    }

    async fn reset_by_id(&self, url: &ServerUrl, id: RunnerId, access: &AccessToken) -> Answered<Reset> {
        let (server, sent) = (self.server.clone(), (url.clone(), access.clone()));
        let act = move || {
            let (server, (url, access)) = (server.clone(), sent.clone());
            async move { server.reset_by_id(&url, id, &access).await }
        };
        self.line.carry(act).await.unwrap_or_else(|lost| Err(failure(lost)))
    }

    async fn managers(&self, url: &ServerUrl, id: RunnerId, access: &AccessToken) -> Answered<Vec<Manager>> {
        self.server.managers(url, id, access).await
    }

    async fn description(&self, url: &ServerUrl, id: RunnerId, access: &AccessToken) -> Answered<Option<String>> {
        self.server.description(url, id, access).await
    }

    over_the_line! {
        async fn register(&self, site: &Site, token: &Token, parameters: &RegisterParameters) -> Answered<Registered>;
        async fn create(&self, url: &ServerUrl, access: &AccessToken, new: &NewRunner) -> Answered<Registered>;
        async fn register_v1(&self, site: &Site, token: &Token, parameters: &RegisterParameters) -> Answered<Registered>;
        async fn probe(&self, site: &Site) -> Answered<()>;
        async fn delete_runner(&self, site: &Site, token: &Token) -> Answered<()>;
        async fn delete_v1(&self, site: &Site, token: &Token) -> Answered<()>;
        async fn delete_manager(&self, site: &Site, token: &Token, id: &SystemId) -> Answered<()>;
        async fn reset(&self, site: &Site, token: &Token, id: &SystemId) -> Answered<Reset>;
    }
}

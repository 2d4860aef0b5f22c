//! Whether a verdict in unknown words is the server's own.
//!
//! Texts change between releases, and gateways send JSON too. A GitLab refuses a verification without a token in words
//! of its own, and an invented token with the same words as ours: that makes them this server's refusal.

use std::time::Duration;

use tokio::time::Instant;

use super::{Disk, Failure, Ops, Runner, Server};
use crate::gitlab::{AnswerText, ErrorClass};
use crate::secret::{Token, random_bits};

/// How long a server's words are remembered. It is asked about them at most this often.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// What a server was asked about, and whether the words were its own.
#[derive(Debug)]
pub(super) struct Wording {
    at: Instant,
    text: AnswerText,
    is_genuine: bool,
}

impl<S: Server, D: Disk> Ops<S, D> {
    /// Turns an unproven verdict on a verification into a genuine one if the server proves to speak so.
    pub(super) async fn proven(&self, runner: &Runner, failure: Failure) -> Failure {
        let Some((text, verdict)) = failure.unproven.as_deref() else { return failure };
        if !self.is_own_wording(runner, text).await {
            return failure;
        }
        let disposition = *verdict;
        Failure { disposition, class: ErrorClass::RefusedByServer, is_understood: true, ..failure }
    }

    async fn is_own_wording(&self, runner: &Runner, text: &AnswerText) -> bool {
        let host = runner.site.url.authority();
        if let Some(known) = self.wordings.borrow().get(&host).filter(|known| known.at.elapsed() < REMEMBERED) {
            return known.is_genuine && known.text == *text;
        }
        let is_genuine = self.server.probe(&runner.site).await.is_ok() && self.refuses_invented(runner, text).await;
        tracing::debug!(
            runner = runner.label(),
            status = text.status,
            text = text.text,
            is_genuine,
            "asked the server for its words"
        );
        self.wordings.borrow_mut().insert(host, Wording { at: Instant::now(), text: text.clone(), is_genuine });
        is_genuine
    }

    async fn refuses_invented(&self, runner: &Runner, text: &AnswerText) -> bool {
        let random = || format!("{:08x}{:08x}", random_bits(), random_bits());
        let Ok(token) = Token::parse(&format!("glrt-{}{}", random(), random())) else { return false };
        match self.server.verify(&runner.site, &token, &self.identity.system_id, None).await {
            Ok(_) => false,
            Err(failure) => failure.unproven.is_some_and(|unproven| unproven.0 == *text),
        }
    }
}

//! The address at which GitLab answers, if it is not the one that was set.
//!
//! A user can copy the address of a project's page, or add a path that the instance does not have. If a request gets the answer
//! of a missing page, the addresses above are asked, from the host's root on, by a request without a token.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::client::{Call, json, probed, request_id};
use super::error::CallFailure;
use super::transport::Transport;
use super::wire::EmptyRequest;
use super::{Endpoint, ErrorKind};
use crate::model::{ServerUrl, Site};

/// How long an outcome counts: a daemon repeats a request that fails.
const LOOK_AGAIN: Duration = Duration::from_secs(60 * 60);

/// The outcomes by the address that was set.
#[derive(Default)]
pub(super) struct OtherAddresses(Mutex<HashMap<ServerUrl, (Instant, Option<ServerUrl>)>>);

impl Transport {
    /// Replaces a failure by one that names the address at which GitLab answers, if that is above the address of the site.
    pub(super) async fn at_right_address(&self, endpoint: Endpoint, site: &Site, failure: CallFailure) -> CallFailure {
        if !is_of_missing_page(endpoint, &failure) {
            return failure;
        }
        match self.other_address(site).await {
            None => failure,
            Some(found) => CallFailure {
                kind: ErrorKind::WrongAddress,
                detail: Some(format!("GitLab answers at {found}, not at {}: set `url` to {found}", site.url)),
                if_proven: None,
                is_foreign: true,
                server_message: None,
                ..failure
            },
        }
    }

    async fn other_address(&self, site: &Site) -> Option<ServerUrl> {
        let url = &site.url;
        let above = url.above();
        if above.is_empty() {
            return None;
        }
        if let Some(known) = self.other_addresses().known(url) {
            return known;
        }
        // An instance that answers here is the right one, and only lacks the call.
        let mut found = None;
        if !self.has_gitlab(site).await {
            for other in above {
                if self.has_gitlab(&Site { url: other.clone(), tls: site.tls.clone() }).await {
                    found = Some(other);
                    break;
                }
            }
        }
        self.other_addresses().note(url, found.clone());
        found
    }

    /// Whether a GitLab answers at an address: it refuses a verification without a token in its own words.
    async fn has_gitlab(&self, site: &Site) -> bool {
        let request_id = request_id();
        let call = Call::new(Endpoint::Probe, site, "runners/verify", json(&EmptyRequest {}), None);
        let answered = self.exchange(call.outgoing(&request_id)).await;
        let is_gitlab = answered.and_then(|incoming| probed(&incoming)).is_ok();
        tracing::debug!(url = %site.url, request_id, is_gitlab, "asked whether GitLab answers here");
        is_gitlab
    }
}

/// Whether a failure is the answer of an address without GitLab's API: a page, a missing one, or a redirect to a sign-in page.
fn is_of_missing_page(endpoint: Endpoint, failure: &CallFailure) -> bool {
    let is_of_page = match failure.status {
        Some(300..=399 | 404 | 405 | 422) => true,
        // A success of something unknown may have been one.
        Some(200..=299) => !endpoint.has_side_effects(),
        Some(_) | None => false,
    };
    is_of_page
        && matches!(
            failure.kind,
            ErrorKind::NotGitlab | ErrorKind::Redirect | ErrorKind::Unsupported | ErrorKind::UnexpectedStatus
        )
}

impl OtherAddresses {
    /// `None` if it is not known, or has not been looked for lately.
    fn known(&self, url: &ServerUrl) -> Option<Option<ServerUrl>> {
        let outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.get(url).filter(|(at, _)| at.elapsed() < LOOK_AGAIN).map(|(_, found)| found.clone())
    }

    fn note(&self, url: &ServerUrl, found: Option<ServerUrl>) {
        let mut outcomes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outcomes.insert(url.clone(), (Instant::now(), found));
    }
}

//! gitlab-runner beside each agent: reads config.toml, and asks for jobs with the token that it has read.
//!
//! After three refusals in a row gitlab-runner asks no more with that token for an hour. It has read a new token up to
//! one interval after the agent has written it, so a rotation may cost two refusals.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use runner_agent::secret::{Digest, Token};
use serde_json::json;

use crate::agents::{Agent, token_in};

/// The interval at which it reads config.toml, and at which it asks for a job.
pub(crate) const INTERVAL: Duration = Duration::from_secs(3);

/// After so many refusals in a row it leaves a token alone.
pub(crate) const LIMIT: usize = 3;

/// How long it waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answered request for a job.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Poll {
    /// The number of the machine.
    pub(crate) machine: usize,
    pub(crate) token: Digest,
    pub(crate) is_refused: bool,
}

/// A gitlab-runner for each machine, until this is dropped.
pub(crate) struct GitlabRunners {
    polls: Arc<Mutex<Vec<Poll>>>,
    is_over: Arc<AtomicBool>,
}

impl GitlabRunners {
    pub(crate) fn start(agents: &[Agent]) -> Self {
        let runners = Self { polls: Arc::default(), is_over: Arc::default() };
        for (number, agent) in (0..).zip(agents) {
            let (polls, is_over) = (Arc::clone(&runners.polls), Arc::clone(&runners.is_over));
            let (config, gitlab, machine) = (agent.config(), agent.gitlab_address(), agent.machine.clone());
            // What it has read is of any age up to the interval when it asks.
            let age = INTERVAL * number / u32::try_from(agents.len()).unwrap();
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let token = token_in(&config);
                    thread::sleep(age);
                    let status = token.as_ref().and_then(|token| request_job(gitlab, token, &machine).ok());
                    if let Some((token, status)) = token.zip(status) {
                        let (machine, is_refused) = (number as usize, status == 403);
                        polls.lock().unwrap().push(Poll { machine, token: token.digest(), is_refused });
                    }
                    thread::sleep(INTERVAL.saturating_sub(age));
                }
            });
        }
        runners
    }

    /// The answered requests since the last call.
    pub(crate) fn take(&self) -> Vec<Poll> {
        std::mem::take(&mut self.polls.lock().unwrap())
    }
}

impl Drop for GitlabRunners {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// The status of the answer.
fn request_job(gitlab: SocketAddr, token: &Token, machine: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&gitlab, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = json!({"token": token.expose(), "system_id": machine}).to_string();
    let head = "POST /api/v4/jobs/request HTTP/1.1\r\nHost: gitlab.test\r\nContent-Type: application/json\r\nConnection: close";
    stream.write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
    // `HTTP/1.1 204`
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    let status = std::str::from_utf8(&start[9..]).ok().and_then(|text| text.parse().ok());
    status.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

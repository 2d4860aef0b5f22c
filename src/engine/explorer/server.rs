//! The server port: requests of a process to the GitLab of its world.

use super::gitlab::{Call, Fault, Gitlab, Oddity};
use super::world::{CallLog, Cause, Excuse, Holding, Kind, Port, State};
use crate::gitlab::fleet::{Manager, NewRunner};
use crate::gitlab::fuzzing::{RawAnswer, read_deleted, read_probe, read_registered, read_reset, read_verify};
use crate::gitlab::{Answer, Disposition, Endpoint, ErrorClass, Info, RegisterParameters, Registered, Reset, Verified};
use crate::model::{RunnerId, ServerUrl, Site, SystemId, Timestamp};
use crate::ops::{AccessToken, Failure, Server};
use crate::secret::Token;
use crate::store::EntryToken;

type Answered<T> = Result<Answer<T>, Failure>;

const NOT_EXECUTED: Disposition = Disposition::NotExecuted { retry_after: None };
const UNKNOWN: Disposition = Disposition::Unknown { retry_after: None };

fn failure(disposition: Disposition) -> Failure {
    Failure {
        disposition,
        class: ErrorClass::Unreachable,
        is_understood: true,
        may_have_reached: disposition != NOT_EXECUTED,
        unproven: None,
        date: None,
        hint: None,
        error: "no answer".into(),
    }
}

/// What GitLab does with a request: status and body, by the state and the time.
type Execution<'a> = Box<dyn FnOnce(&mut State, i64) -> (u16, String) + 'a>;

impl Port {
    /// Sends a request and returns its answer as it comes from the wire.
    async fn exchange(
        &self,
        call: Call,
        name: &str,
        about: &Token,
        execution: Execution<'_>,
    ) -> Result<RawAnswer, Failure> {
        self.world.pass().await;
        let (result, delay) = self.execute(call, name, about, execution);
        if delay > 0 {
            tokio::time::sleep(std::time::Duration::from_secs(delay)).await;
        }
        self.world.pass().await;
        result
    }

    /// The answer to an access token that was rotated. The daemon that has rotated it sends none.
    fn refused_access(&self, state: &mut State, token: &Token) -> Option<(u16, String)> {
        if token.expose() == state.gitlab.access_token {
            return None;
        }
        if state.processes.get(&self.process).is_some_and(|process| process.is_daemon) {
            state.violate(Kind::DeadAccessToken, "the daemon has sent an access token that it had rotated".to_owned());
        }
        Some((401, UNAUTHORIZED.to_owned()))
    }

    fn execute(
        &self,
        call: Call,
        name: &str,
        about: &Token,
        execution: Execution<'_>,
    ) -> (Result<RawAnswer, Failure>, u64) {
        let state = &mut *self.world.state();
        let now = state.now();
        let same = state.gitlab.find(about.expose(), now).filter(|_| call == Call::Reset);
        let is_deletion = matches!(call, Call::DeleteRunner | Call::DeleteManager);
        if is_deletion && state.gitlab.find_for_write(about.expose(), now).is_none() {
            // Whatever stands in front of GitLab answers.
            self.let_go(state, about);
        }
        let about_token = about.expose().to_owned();
        let about = state.owners.get(about.expose()).map_or_else(|| about.expose().to_owned(), u64::to_string);
        state.note(|| format!("  process {}: {call:?} about {about} ({about_token})", self.process));
        state.count(&format!("{call:?}"), &about_token);
        let fault = state.gitlab.faults.iter().position(|(wanted, _)| *wanted == call || *wanted == Call::Any);
        let fault = fault.and_then(|at| state.gitlab.faults.remove(at)).map(|(_, fault)| fault);
        if fault.is_some() {
            state.last_fault = now;
        }
        if let Some(fault) = &fault {
            state.note(|| format!("    fault: {fault:?}"));
        }
        if let Some(log) = &mut state.log {
            let (about, files) = (about.clone(), state.files.clone());
            log.push(CallLog { call, about, is_faulted: fault.is_some(), files });
        }
        self.check_repetition(state, call, &about_token, name, fault.as_ref(), now);
        if state.gitlab.down_until > now {
            let answer = match state.gitlab.down_with {
                Some((status, body)) => Ok(Gitlab::gateway(status, body, now)),
                None => Err(failure(NOT_EXECUTED)),
            };
            return (answer, 0);
        }
        match fault {
            Some(Fault::Connect) => return (Err(failure(NOT_EXECUTED)), 0),
            Some(Fault::CutBefore) => return (Err(failure(UNKNOWN)), 0),
            Some(Fault::Gateway(status, body)) => return (Ok(Gitlab::gateway(status, body, now)), 0),
            Some(Fault::ServerError) => {
                return (Ok(state.gitlab.answer(500, r#"{"message":"500 Internal Server Error"}"#, now)), 0);
            }
            Some(Fault::Missing) => {
                return (Ok(state.gitlab.answer(404, RUNNER_NOT_FOUND, now)), 0);
            }
            Some(Fault::Throttle) => {
                let mut raw = state.gitlab.answer(429, "Retry later\n", now);
                raw.headers[0].1 = "text/plain".to_owned();
                raw.headers.push(("retry-after", "60".to_owned()));
                return (Ok(raw), 0);
            }
            _ => {}
        }
        if state.gitlab.maintenance_until > now && call != Call::Managers {
            let mut raw = state.gitlab.answer(503, r#"{"message":"GitLab is undergoing maintenance"}"#, now);
            raw.headers.push(("retry-after", "900".to_owned()));
            return (Ok(raw), 0);
        }
        if state.gitlab.migrating_until > now && call.waits_for_migrations() {
            let text = r#"{"message":"Executing database migrations. Please retry later."}"#;
            let mut raw = state.gitlab.answer(429, text, now);
            raw.headers.push(("retry-after", "60".to_owned()));
            return (Ok(raw), 0);
        }
        let (status, body) = match (&fault, same) {
            (Some(Fault::SameToken), Some(id)) => (201, format!("{{{}}}", credential(state, id))),
            _ => execution(state, now),
        };
        if state.gitlab.date_offset > 60_000 {
            state.latest_wrong_date = state.latest_wrong_date.max(now + state.gitlab.date_offset);
        }
        state.note_owners();
        state.note(|| format!("    answer {status} {body}"));
        let is_cut = matches!(fault, Some(Fault::CutAfter | Fault::GatewayAfter(..)));
        let lost_before = state.lost_registrations.clone();
        let brings_token = matches!(call, Call::Register | Call::Create | Call::Reset | Call::ResetById);
        let is_token_cut = is_cut && brings_token;
        state.check(if is_token_cut { Cause::CutAnswer(self.process) } else { Cause::Process(self.process) });
        // Such an answer says that the request was not executed. Of a 5xx, only GitLab's own maintenance says so.
        if matches!(fault, Some(Fault::GatewayAfter(status, _)) if status < 500 && status != 408) {
            let lost = std::mem::replace(&mut state.lost_registrations, lost_before);
            state.unannounced.extend(lost.difference(&state.lost_registrations));
        }
        if call == Call::Verify && status == 200 && !is_cut && !state.gitlab.is_old {
            if let Some(id) = state.owners.get(&about_token).copied() {
                state.confirmed.insert((self.process, id));
            }
            if state.serves(&about_token) {
                state.let_go_tokens.remove(&about_token);
            }
            state.named.insert(about_token);
        }
        let raw = state.gitlab.answer(status, body, now);
        match fault {
            Some(Fault::CutAfter) => (Err(failure(UNKNOWN)), 0),
            Some(Fault::GatewayAfter(status, body)) => (Ok(Gitlab::gateway(status, body, now)), 0),
            Some(Fault::Slow(secs)) => (Ok(raw), secs),
            Some(Fault::Odd(oddity)) if (200..300).contains(&status) => (Ok(odd(raw, oddity)), 0),
            _ => (Ok(raw), 0),
        }
    }

    /// Whether a request that changes something is repeated before a verification was answered.
    fn check_repetition(
        &self,
        state: &mut State,
        call: Call,
        about: &str,
        name_of: &str,
        fault: Option<&Fault>,
        now: i64,
    ) {
        let is_migrating = state.gitlab.migrating_until > now && call.waits_for_migrations();
        if (state.gitlab.maintenance_until > now || is_migrating) && !matches!(call, Call::Verify | Call::Probe) {
            return;
        }
        let is_foreign = matches!(
            fault,
            Some(
                Fault::CutBefore | Fault::CutAfter | Fault::Gateway(..) | Fault::GatewayAfter(..) | Fault::ServerError,
            )
        );
        let is_foreign = if state.gitlab.down_until > now { state.gitlab.down_with.is_some() } else { is_foreign };
        let is_answered = matches!(fault, None | Some(Fault::Odd(_) | Fault::Slow(_) | Fault::SameToken))
            && state.gitlab.down_until <= now
            && state.gitlab.maintenance_until <= now
            && !is_migrating;
        let name = match call {
            Call::Verify | Call::Any | Call::Managers | Call::Probe => {
                if call == Call::Verify && is_answered {
                    let owner = state.owners.get(about).map(|id| format!("{id} "));
                    let is_about = |other: &str| {
                        other.starts_with(about) || owner.as_ref().is_some_and(|owner| other.starts_with(owner))
                    };
                    state.unproven.retain(|(_, other)| !is_about(other));
                }
                return;
            }
            Call::Reset => "reset",
            Call::ResetById => "reset by id",
            Call::DeleteRunner => "deletion",
            Call::DeleteManager => "second deletion of a manager",
            // It is not repeated by itself: see the matrix.
            Call::Register | Call::Create => {
                // The token in an odd answer may never be verified.
                if is_foreign || matches!(fault, Some(Fault::Odd(_))) {
                    state.unproven.insert(("registration", name_of.to_owned()));
                }
                let is_of_daemon = state.processes.get(&self.process).is_some_and(|process| process.is_daemon);
                if is_of_daemon && self.may_be_executed(state, fault, now) {
                    state.unanswered_registrations.insert(name_of.to_owned());
                }
                return;
            }
        };
        // The last eighth of a token's life does not wait for a verification that is not answered.
        if call == Call::Reset && state.is_pressing(about) {
            return;
        }
        // Another process has not seen the answer; if GitLab may have executed the request, the journal says so.
        let about = if call == Call::ResetById { name_of } else { about };
        let about = format!("{about} {}", self.process);
        // It is idempotent, and may be sent once more.
        let first = ("deletion of a manager", about.clone());
        if call == Call::DeleteManager && !state.unproven.contains(&first) {
            if is_foreign {
                state.unproven.insert(first);
            }
            return;
        }
        let subject = (name, about);
        if state.unproven.contains(&subject) {
            state.violate(Kind::Repeated, format!("a {name} was repeated although its answer was not understood"));
        }
        if is_foreign {
            state.unproven.insert(subject);
        }
    }

    /// Whether an answer, or none, leaves open that GitLab has executed the request.
    fn may_be_executed(&self, state: &State, fault: Option<&Fault>, now: i64) -> bool {
        let is_open = |status: u16| status == 408 || status >= 500;
        if state.gitlab.down_until > now {
            return state.gitlab.down_with.is_some_and(|(status, _)| is_open(status));
        }
        match fault {
            Some(Fault::CutBefore | Fault::CutAfter | Fault::ServerError | Fault::Odd(_)) => true,
            Some(Fault::Gateway(status, _) | Fault::GatewayAfter(status, _)) => is_open(*status) || *status < 400,
            _ => false,
        }
    }

    /// A deletion is refused: if the token is dead, the process lets the runner go that it was to delete.
    fn let_go(&self, state: &mut State, token: &Token) {
        let owner = state.owners.get(token.expose()).copied();
        let intent = state.processes.get(&self.process).map(|process| &process.intent);
        let is_wanted =
            |id: &u64| intent.is_some_and(|intent| intent.runners.contains(id) || intent.managers.contains(id));
        owner.filter(is_wanted).into_iter().for_each(|id| state.let_one_go(id));
    }

    /// Whether a deletion of a runner by this process is wanted.
    fn check_deletion(&self, state: &mut State, id: u64, is_whole: bool) {
        let intent = state.processes.get(&self.process).map(|process| process.intent.clone()).unwrap_or_default();
        let is_created = state.gitlab.database.get(&id).is_some_and(|runner| runner.is_created);
        let what = if is_whole { "runner" } else { "manager of runner" };
        let token = state.gitlab.database.get(&id).map(|runner| runner.token.clone()).unwrap_or_default();
        let is_used = state.files.entries.iter().any(|entry| {
            let is_named = entry.name.as_ref().is_some_and(|name| intent.names.contains(name));
            super::world::literal(entry) == Some(token.as_str()) && !is_named
        });
        // A command has looked for others when it began.
        let began = state.processes.get(&self.process).map_or(0, |process| process.began);
        let is_used = is_used && state.duplicated_at < began;
        // The runner of the name may have been registered anew since the command began.
        let mut names = intent.names.iter().chain(&intent.homes);
        let is_named = names.any(|name| state.homes.get(name) == Some(&id));
        if !intent.names.is_empty() && intent.runners.contains(&id) && is_used {
            state.violate(Kind::Deleted, format!("the {what} {id} was deleted, and another entry uses its token"));
        } else if !is_named && !intent.runners.contains(&id) && (is_whole || !intent.managers.contains(&id)) {
            state.violate(Kind::Deleted, format!("the {what} {id} was deleted without an intent in force"));
        } else if is_whole && is_created {
            state.violate(Kind::Deleted, format!("the created runner {id} was deleted, not only its manager"));
        }
    }

    /// Whether the agent may make a runner for an enrollment.
    fn check_registration(&self, state: &mut State, name: &str, now: i64) {
        let intent = state.processes.get(&self.process).map(|process| process.intent.clone()).unwrap_or_default();
        if intent.makes_anew.contains(super::world::entry_name(name)) {
            return;
        }
        let is_lost = |id: &&u64| state.gitlab.database.get(id).is_some_and(|it| it.made_for.as_deref() == Some(name));
        let lost = state.lost_registrations.iter().find(is_lost).filter(|_| !state.is_stateless).copied();
        if let Some(lost) = lost {
            let text = format!("the answer that made runner {lost} for `{name}` was lost, and it gets a second one");
            return state.violate(Kind::SecondRunner, text);
        }
        let is_good = |id: &u64| {
            let runner = state.gitlab.database.get(id);
            let is_alive = runner.is_some_and(|runner| runner.expires_at.is_none_or(|at| at > now));
            let is_news = runner.is_some_and(|runner| state.is_restored_since_asked(&runner.token));
            is_alive && !is_news && state.holdings.get(id) == Some(&Holding::Held)
        };
        let made = state.gitlab.database.iter();
        // Without a state directory nothing but an entry of its name says that it has one.
        let made = made.filter(|_| !state.is_stateless);
        let of_name = made.filter(|(_, runner)| runner.made_for.as_deref() == Some(name)).map(|(id, _)| *id);
        // One that has parted from the name, or was never known to be of it, counts only once a person puts it into an entry
        // of that name.
        let of_name = of_name.filter(|id| !state.parted.contains(id) && !state.unannounced.contains(id));
        // Nor is one that a person's command has made in the record of another enrollment of the name, which may be gone
        // by now. Settings with two of one name are refused: only this world has them.
        let is_in_anothers = |id: &u64| {
            state.files.records.values().any(|record| {
                let owner = record.credential.as_ref().and_then(|it| state.owners.get(it.token.expose()));
                owner == Some(id) && record.key.as_str() == "other" && name != "other"
            })
        };
        let of_name = of_name.filter(|id| !state.forced.contains(id) || !is_in_anothers(id));
        // An entry of another enrollment's runner is no reason, whatever token a person has put into it.
        let is_anothers = |entry: &&crate::store::Entry| {
            let mut records = state.files.records.values();
            let is_its = |record: &crate::store::Record| record.enrollment.as_deref().is_some_and(|key| key != name);
            records.any(|record| is_its(record) && entry.id.is_some() && record.id == entry.id)
        };
        let entries = state.files.entries.iter().filter(|entry| entry.name.as_deref() == Some(name));
        let entries = entries.filter(|entry| !is_anothers(entry));
        let of_entry = entries.filter_map(|entry| state.owners.get(super::world::literal(entry)?).copied());
        // Nor is one of its name beside the entry that the enrollment's own runner has.
        let has_own_entry = state.files.records.values().any(|record| {
            let token = record.credential.as_ref().map(|credential| credential.token.expose());
            // A person may have blanked its token: a registration completes the entry.
            let is_blanked = |entry: &crate::store::Entry| entry.token == EntryToken::Absent && entry.id == record.id;
            let is_its = |entry: &crate::store::Entry| match super::world::literal(entry) {
                Some(literal) => Some(literal) == token,
                None => record.id.is_some() && is_blanked(entry),
            };
            record.enrollment.as_deref() == Some(name) && token.is_some() && state.files.entries.iter().any(is_its)
        });
        let of_entry = of_entry.filter(|id| {
            let made_for = state.gitlab.database.get(id).and_then(|runner| runner.made_for.as_deref());
            !has_own_entry && made_for.is_none_or(|made_for| made_for == name)
        });
        // Nor is one that another enrollment has taken over.
        let is_other = |id: &u64| {
            state.files.records.values().any(|record| {
                let owner = record.credential.as_ref().and_then(|it| state.owners.get(it.token.expose()));
                owner == Some(id) && record.enrollment.as_deref().is_some_and(|key| key != name)
            })
        };
        // Nor is one that a person has registered anew, or unregistered.
        // Nor is one whose token a person has put into an entry of another name, and into none of this one.
        let is_misplaced = |id: &u64| {
            let token = state.gitlab.database.get(id).map(|runner| runner.token.as_str());
            let mut with_it =
                state.files.entries.iter().filter(|entry| super::world::literal(entry) == token).peekable();
            with_it.peek().is_some() && with_it.all(|entry| entry.name.as_deref() != Some(name))
        };
        let is_named = |entry: &&crate::store::Entry| entry.name.as_deref() == Some(name);
        let has_entry = state.files.entries.iter().any(|entry| is_named(&entry));
        let is_left = |id: &u64| {
            let is_elsewhere = is_misplaced(id) || !has_entry && has_entry_elsewhere(state, *id);
            let is_freed = state.freed.contains(super::world::entry_name(name));
            is_freed || state.let_go.contains(id) || state.duplicated_at > 0 && is_elsewhere
        };
        // Nor is one that was registered anew since, and whose token a person has then put into another runner's entry:
        // nothing of this name knows that token.
        let is_home = |id: &u64| state.homes.get(super::world::entry_name(name)) == Some(id);
        let of_name =
            of_name.filter(|id| state.duplicated_at == 0 || is_home(id) || is_known_by_name(state, *id, name));
        let first = of_name.chain(of_entry).find(|id| is_good(id) && !is_other(id) && !is_left(id));
        if let Some(first) = first {
            state.violate(Kind::SecondRunner, format!("`{name}` has runner {first}, and gets a second one"));
        }
    }
}

/// Whether a record of this name, or of its enrollment, knows the runner's present token.
fn is_known_by_name(state: &State, id: u64, name: &str) -> bool {
    let token = state.gitlab.database.get(&id).map(|runner| runner.token.as_str()).unwrap_or_default();
    let is_of_name = |record: &&crate::store::Record| {
        record.name.as_deref() == Some(super::world::entry_name(name)) || record.enrollment.as_deref() == Some(name)
    };
    state.files.records.values().filter(is_of_name).any(|record| state.knows(&record.key, token))
}

/// Whether an entry holds the runner's token.
fn has_entry_elsewhere(state: &State, id: u64) -> bool {
    let tokens = state.files.entries.iter().filter_map(super::world::literal);
    tokens.filter_map(|token| state.owners.get(token)).any(|owner| *owner == id)
}

/// The same answer with a small difference.
fn odd(mut raw: RawAnswer, oddity: Oddity) -> RawAnswer {
    let text = String::from_utf8(raw.body.clone()).unwrap();
    let with_time = |value: &str| {
        let Some(at) = text.find("\"token_expires_at\":") else { return text.clone() };
        let (head, rest) = text.split_at(at + "\"token_expires_at\":".len());
        let end = rest.find(['}', ',']).unwrap();
        format!("{head}{value}{}", &rest[end..])
    };
    let content_type = |raw: &mut RawAnswer, value: &str| raw.headers[0].1 = value.to_owned();
    match oddity {
        Oddity::ZeroTime => raw.body = with_time("\"0001-01-01T00:00:00Z\"").into_bytes(),
        Oddity::EmptyTime => raw.body = with_time("\"\"").into_bytes(),
        Oddity::NumberTime => raw.body = with_time("1800000000").into_bytes(),
        Oddity::SpacedTime => raw.body = with_time("\"2027-01-11 14:39:24 UTC\"").into_bytes(),
        Oddity::TextJson => content_type(&mut raw, "text/json"),
        Oddity::PlainText => content_type(&mut raw, "text/plain"),
        Oddity::JsonApi => content_type(&mut raw, "application/vnd.api+json"),
        Oddity::Status200 => raw.status = 200,
    }
    raw
}

/// A machine that uses a runner, and has contacted GitLab just now.
fn manager(system_id: &str, now: i64) -> Manager {
    Manager {
        id: 1,
        system_id: Some(system_id.to_owned()),
        version: None,
        revision: None,
        platform: None,
        architecture: None,
        created_at: None,
        contacted_at: Some(Timestamp::from_millis(now)),
        ip_address: None,
        job_execution_status: None,
        status: None,
    }
}

const UNAUTHORIZED: &str = r#"{"message":"401 Unauthorized"}"#;

const FORBIDDEN: &str = r#"{"message":"403 Forbidden"}"#;

const RUNNER_NOT_FOUND: &str = r#"{"message":"404 Runner Not Found"}"#;

fn time(at: Option<i64>) -> String {
    at.map_or_else(|| "null".to_owned(), |at| format!("\"{}\"", Timestamp::from_millis(at)))
}

fn credential(state: &State, id: u64) -> String {
    let runner = &state.gitlab.database[&id];
    format!(r#""token":"{}","token_expires_at":{}"#, runner.token, time(runner.expires_at))
}

impl Port {
    fn register_for(&self, state: &mut State, name: &str, is_created: bool, now: i64) -> (u16, String) {
        self.check_registration(state, name, now);
        state.freed.remove(super::world::entry_name(name));
        let id = state.gitlab.add(now, Some(name.to_owned()), is_created);
        let command = state.processes.get(&self.process).filter(|process| !process.is_daemon);
        if command.is_some_and(|command| command.intent.makes_anew.contains(super::world::entry_name(name))) {
            state.forced.insert(id);
        }
        state.made(id, self.process);
        state.homes.insert(super::world::entry_name(name).to_owned(), id);
        (201, format!(r#"{{"id":{id},{}}}"#, credential(state, id)))
    }
}

impl Server for Port {
    async fn register(&self, _: &Site, token: &Token, parameters: &RegisterParameters) -> Answered<Registered> {
        let name = parameters.description.clone().unwrap_or_default();
        let execution = Box::new(|state: &mut State, now| {
            if state.gitlab.registration_token != token.expose() {
                return (403, r#"{"message":"403 Forbidden - invalid token supplied"}"#.to_owned());
            }
            self.register_for(state, &name, false, now)
        });
        let raw = self.exchange(Call::Register, &name, token, execution).await?;
        Ok(read_registered(Endpoint::Register, &raw, token)?)
    }

    async fn create(
        &self,
        _: &ServerUrl,
        AccessToken { token, .. }: &AccessToken,
        new: &NewRunner,
    ) -> Answered<Registered> {
        let name = new.parameters.description.clone().unwrap_or_default();
        let execution = Box::new(|state: &mut State, now| match self.refused_access(state, token) {
            Some(refusal) => refusal,
            None => self.register_for(state, &name, false, now),
        });
        let raw = self.exchange(Call::Create, &name, token, execution).await?;
        Ok(read_registered(Endpoint::Create, &raw, token)?)
    }

    async fn register_v1(&self, _: &Site, _: &Token, _: &RegisterParameters) -> Answered<Registered> {
        Err(failure(NOT_EXECUTED))
    }

    async fn delete_v1(&self, _: &Site, _: &Token) -> Answered<()> {
        Err(failure(NOT_EXECUTED))
    }

    async fn verify(&self, _: &Site, token: &Token, system_id: &SystemId, _: Option<&Info>) -> Answered<Verified> {
        let execution = Box::new(|state: &mut State, now| {
            let Some(id) = state.gitlab.find(token.expose(), now) else { return (403, FORBIDDEN.to_owned()) };
            if let Some(runner) = state.gitlab.database.get_mut(&id) {
                runner.managers.insert(system_id.to_string());
            }
            if state.gitlab.is_old {
                return (200, "200".to_owned());
            }
            // Its manager exists again. A runner that a backup brings back does not count as asked for.
            if state.gitlab.database.get(&id).is_some_and(|runner| runner.is_created) && state.serves(token.expose()) {
                state.let_go.remove(&id);
            }
            let expires_at = state.gitlab.database.get(&id).and_then(|runner| runner.expires_at);
            let token = token.expose();
            (200, format!(r#"{{"id":{id},"token":"{token}","token_expires_at":{}}}"#, time(expires_at)))
        });
        let raw = self.exchange(Call::Verify, "", token, execution).await?;
        Ok(read_verify(&raw, token)?)
    }

    async fn probe(&self, _: &Site) -> Answered<()> {
        let execution = Box::new(|_: &mut State, _| (400, r#"{"error":"token is missing"}"#.to_owned()));
        let nothing = Token::parse("none").unwrap();
        let raw = self.exchange(Call::Probe, "", &nothing, execution).await?;
        Ok(read_probe(&raw)?)
    }

    async fn delete_runner(&self, _: &Site, token: &Token) -> Answered<()> {
        let execution = Box::new(|state: &mut State, now| {
            let Some(id) = state.gitlab.find_for_write(token.expose(), now) else {
                self.let_go(state, token);
                return (403, FORBIDDEN.to_owned());
            };
            self.check_deletion(state, id, true);
            state.gitlab.commit(now);
            state.gitlab.database.remove(&id);
            // Whatever a backup brings back, the agent has let it go.
            state.holdings.insert(id, Holding::Excused(Excuse::Wanted));
            state.let_runner_go(self.process, id);
            (204, String::new())
        });
        let raw = self.exchange(Call::DeleteRunner, "", token, execution).await?;
        Ok(read_deleted(Endpoint::DeleteRunner, &raw, token)?)
    }

    async fn delete_manager(&self, _: &Site, token: &Token, system_id: &SystemId) -> Answered<()> {
        let execution = Box::new(|state: &mut State, now| {
            let Some(id) = state.gitlab.find_for_write(token.expose(), now) else {
                self.let_go(state, token);
                return (403, FORBIDDEN.to_owned());
            };
            let managers = state.gitlab.database.get_mut(&id).map(|runner| &mut runner.managers);
            if !managers.is_some_and(|managers| managers.remove(system_id.as_str())) {
                state.let_one_go(id);
                return (404, r#"{"message":"404 Runner manager not found Not Found"}"#.to_owned());
            }
            self.check_deletion(state, id, false);
            state.let_runner_go(self.process, id);
            (204, String::new())
        });
        let raw = self.exchange(Call::DeleteManager, "", token, execution).await?;
        Ok(read_deleted(Endpoint::DeleteManager, &raw, token)?)
    }

    async fn reset(&self, _: &Site, token: &Token, _: &SystemId) -> Answered<Reset> {
        let execution = Box::new(|state: &mut State, now| {
            let Some(id) = state.gitlab.find_for_write(token.expose(), now) else { return (403, FORBIDDEN.to_owned()) };
            if state.gitlab.database[&id].is_closed {
                return (403, r#"{"error":"Token rotation deadline has passed"}"#.to_owned());
            }
            state.gitlab.reset(id, now);
            if state.processes.get(&self.process).is_some_and(|process| process.is_daemon) {
                state.count_reset(id);
            }
            (201, format!("{{{}}}", credential(state, id)))
        });
        let raw = self.exchange(Call::Reset, "", token, execution).await?;
        Ok(read_reset(Endpoint::Reset, &raw, token)?)
    }

    async fn reset_by_id(
        &self,
        _: &ServerUrl,
        id: RunnerId,
        AccessToken { token, .. }: &AccessToken,
    ) -> Answered<Reset> {
        let execution = Box::new(move |state: &mut State, now| {
            if let Some(refusal) = self.refused_access(state, token) {
                return refusal;
            }
            let id = id.number();
            if !state.gitlab.database.contains_key(&id) {
                return (404, RUNNER_NOT_FOUND.to_owned());
            }
            state.gitlab.reset(id, now);
            state.recovered.insert(id);
            if state.processes.get(&self.process).is_some_and(|process| process.is_daemon) {
                state.count_reset(id);
            }
            (201, format!("{{{}}}", credential(state, id)))
        });
        let raw = self.exchange(Call::ResetById, &id.to_string(), token, execution).await?;
        Ok(read_reset(Endpoint::ResetById, &raw, token)?)
    }

    async fn description(&self, _: &ServerUrl, _: RunnerId, _: &AccessToken) -> Answered<Option<String>> {
        Ok(Answer { value: None, date: None, request_id: String::new() })
    }

    async fn managers(
        &self,
        _: &ServerUrl,
        id: RunnerId,
        AccessToken { token, .. }: &AccessToken,
    ) -> Answered<Vec<Manager>> {
        let execution = Box::new(move |state: &mut State, _| match state.gitlab.database.get(&id.number()) {
            Some(runner) => (200, format!("{:?}", runner.managers)),
            None => (404, RUNNER_NOT_FOUND.to_owned()),
        });
        let raw = self.exchange(Call::Managers, &id.to_string(), token, execution).await?;
        let state = self.world.state();
        let listed = state.gitlab.database.get(&id.number()).map(|runner| &runner.managers);
        // A gateway's answer is no list.
        let listed = listed.filter(|managers| raw.status == 200 && raw.body == format!("{managers:?}").into_bytes());
        let value = listed.ok_or_else(|| failure(NOT_EXECUTED))?.iter().map(|id| manager(id, state.now())).collect();
        Ok(Answer { value, date: None, request_id: String::new() })
    }
}

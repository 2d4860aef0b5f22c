//! A GitLab with a database, replicas that lag, backups, and gateways in front of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::gitlab::fuzzing::RawAnswer;

/// A call of the Runners API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Any,
    Register,
    Create,
    Verify,
    Probe,
    Reset,
    ResetById,
    DeleteRunner,
    DeleteManager,
    Managers,
}

impl Call {
    /// Whether GitLab puts it off while its database is migrated.
    pub(super) fn waits_for_migrations(self) -> bool {
        !matches!(self, Self::Create | Self::ResetById | Self::Managers)
    }
}

/// What stands between the agent and GitLab does to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection is refused.
    Connect,
    /// The connection is cut before GitLab has the request.
    CutBefore,
    /// GitLab has executed the request, and the connection is cut before a byte of the answer arrives.
    CutAfter,
    /// A gateway answers, and GitLab never sees the request.
    Gateway(u16, Body),
    /// GitLab executes the request, and a gateway replaces its answer.
    GatewayAfter(u16, Body),
    /// The answer takes this many seconds.
    Slow(u64),
    /// A success looks a little different.
    Odd(Oddity),
    /// GitLab fails with 500 before it does anything.
    ServerError,
    /// A throttle answers.
    Throttle,
    /// GitLab answers a reset with the token that was sent.
    SameToken,
    /// A replica of GitLab's does not have the runner of a call by id yet.
    Missing,
}

/// The body of a gateway's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Html,
    Message,
    Error,
    Token,
    EmptyObject,
    Empty,
}

impl Body {
    pub(super) const ALL: [Self; 6] =
        [Self::Html, Self::Message, Self::Error, Self::Token, Self::EmptyObject, Self::Empty];

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Html => "<html><body>Bad Gateway</body></html>",
            Self::Message => r#"{"message":"no Route matched with those values"}"#,
            Self::Error => r#"{"error":"the upstream is not there"}"#,
            Self::Token => r#"{"token":"x"}"#,
            Self::EmptyObject => "{}",
            Self::Empty => "",
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html",
            Self::Message | Self::Error | Self::Token | Self::EmptyObject => "application/json",
            Self::Empty => "text/plain",
        }
    }
}

/// How a success of GitLab's differs from the documented one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Oddity {
    ZeroTime,
    EmptyTime,
    NumberTime,
    SpacedTime,
    TextJson,
    PlainText,
    JsonApi,
    Status200,
}

impl Oddity {
    pub(super) const ALL: [Self; 8] = [
        Self::ZeroTime,
        Self::EmptyTime,
        Self::NumberTime,
        Self::SpacedTime,
        Self::TextJson,
        Self::PlainText,
        Self::JsonApi,
        Self::Status200,
    ];
}

/// A runner in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GitlabRunner {
    pub(super) token: String,
    /// In milliseconds of GitLab's time; `None` for never.
    pub(super) expires_at: Option<i64>,
    pub(super) managers: BTreeSet<String>,
    /// The enrollment that the agent made it for.
    pub(super) made_for: Option<String>,
    /// Whether a person created it in GitLab: its token is not replaceable.
    pub(super) is_created: bool,
    /// Whether its rotation deadline has passed.
    pub(super) is_closed: bool,
}

pub(super) type Database = BTreeMap<u64, GitlabRunner>;

/// How many former databases are kept, for replicas and backups.
const MAX_HISTORY: usize = 24;

pub(super) struct Gitlab {
    pub(super) database: Database,
    /// Former databases with the times from which each was current.
    pub(super) history: VecDeque<(i64, Database)>,
    /// How many tokens it has issued.
    pub(super) issued: u64,
    /// The life of new tokens in milliseconds.
    pub(super) life: Option<i64>,
    /// Reads see the database of so many milliseconds ago, until then.
    pub(super) lag: Option<(i64, i64)>,
    /// Nothing answers until then.
    pub(super) down_until: i64,
    /// How it is down.
    pub(super) down_with: Option<(u16, Body)>,
    /// Maintenance mode until then.
    pub(super) maintenance_until: i64,
    /// Its database is migrated until then.
    pub(super) migrating_until: i64,
    /// Milliseconds by which the `Date` header is ahead.
    pub(super) date_offset: i64,
    /// Whether a verification is answered as before 15.9.
    pub(super) is_old: bool,
    pub(super) registration_token: String,
    pub(super) access_token: String,
    /// How often it was rotated.
    pub(super) access_rotations: u32,
    pub(super) faults: VecDeque<(Call, Fault)>,
}

impl Gitlab {
    pub(super) fn new(life: Option<i64>) -> Self {
        Self {
            database: Database::new(),
            history: VecDeque::new(),
            issued: 0,
            life,
            lag: None,
            down_until: 0,
            down_with: None,
            maintenance_until: 0,
            migrating_until: 0,
            date_offset: 0,
            is_old: false,
            registration_token: "GR1348941registration".to_owned(),
            access_token: "glpat-access".to_owned(),
            access_rotations: 0,
            faults: VecDeque::new(),
        }
    }

    /// Notes the present database before it is changed.
    pub(super) fn commit(&mut self, now: i64) {
        self.history.push_back((now, self.database.clone()));
        if self.history.len() > MAX_HISTORY {
            self.history.pop_front();
        }
    }

    pub(super) fn new_token(&mut self, is_created: bool) -> String {
        self.issued += 1;
        let prefix = if is_created { "glrt" } else { "glrtr" };
        format!("{prefix}-issued{:05}", self.issued)
    }

    pub(super) fn expiry(&self, now: i64) -> Option<i64> {
        self.life.map(|life| now + life)
    }

    /// Adds a runner and returns its id.
    pub(super) fn add(&mut self, now: i64, made_for: Option<String>, is_created: bool) -> u64 {
        self.commit(now);
        let token = self.new_token(is_created);
        let id = 100 + self.issued;
        let runner = GitlabRunner {
            token,
            expires_at: self.expiry(now),
            managers: BTreeSet::new(),
            made_for,
            is_created,
            is_closed: false,
        };
        self.database.insert(id, runner);
        id
    }

    /// Gives a runner a new token.
    pub(super) fn reset(&mut self, id: u64, now: i64) {
        self.commit(now);
        let is_created = self.database.get(&id).is_some_and(|runner| runner.is_created);
        let (token, expires_at) = (self.new_token(is_created), self.expiry(now));
        if let Some(runner) = self.database.get_mut(&id) {
            runner.token = token;
            runner.expires_at = expires_at;
        }
    }

    /// The database that a read sees.
    fn replica(&self, now: i64) -> &Database {
        let Some((lag, until)) = self.lag.filter(|(_, until)| *until > now) else { return &self.database };
        let seen_at = now.min(until) - lag;
        // The first change after that time took this database away.
        self.history.iter().find(|(changed_at, _)| *changed_at > seen_at).map_or(&self.database, |(_, before)| before)
    }

    /// The runner that a token belongs to, as a replica sees it.
    pub(super) fn find(&self, token: &str, now: i64) -> Option<u64> {
        let found = self.replica(now).iter().find(|(_, runner)| runner.token == token && is_alive(runner, now));
        found.map(|(id, _)| *id)
    }

    /// The runner that a token belongs to, for a change. It is looked up on a replica first.
    pub(super) fn find_for_write(&self, token: &str, now: i64) -> Option<u64> {
        self.find(token, now)?;
        let found = self.database.iter().find(|(_, runner)| runner.token == token && is_alive(runner, now));
        found.map(|(id, _)| *id)
    }

    /// An answer of GitLab itself.
    pub(super) fn answer(&self, status: u16, body: impl Into<Vec<u8>>, now: i64) -> RawAnswer {
        let headers = vec![
            ("content-type", "application/json".to_owned()),
            ("date", http_date(now + self.date_offset)),
            ("x-gitlab-meta", r#"{"correlation_id":"01","version":"1"}"#.to_owned()),
        ];
        RawAnswer { status, headers, body: body.into() }
    }

    /// An answer of something in front of it, whose clock is right.
    pub(super) fn gateway(status: u16, body: Body, now: i64) -> RawAnswer {
        let headers = vec![("content-type", body.content_type().to_owned()), ("date", http_date(now))];
        RawAnswer { status, headers, body: body.text().as_bytes().to_vec() }
    }
}

fn is_alive(runner: &GitlabRunner, now: i64) -> bool {
    runner.expires_at.is_none_or(|at| at >= now)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub(super) fn http_date(millis: i64) -> String {
    let secs = millis.div_euclid(1000);
    let (days, of_day) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][days.rem_euclid(7) as usize];
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months[(month - 1) as usize];
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Year, month and day of a day since 1970, by Howard Hinnant's algorithm.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[test]
fn the_date_header_is_http_s() {
    assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
}

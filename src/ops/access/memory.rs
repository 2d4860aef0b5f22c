//! A GitLab with access tokens, token files and state directories in memory, for tests.
//!
//! Each call passes a point before and after its effect. A process can be held or killed at any of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{AccessDisk, AccessKeeper, AccessMoment, AccessPass, AccessWish};
use crate::gitlab::{Answer, Disposition, Reason, RotatedAccessToken};
use crate::lifecycle::AccessKeeping;
use crate::model::{AccessRecord, AccessTokenFacts, AccessTokenOwner, RunnerKey, ServerUrl, Timestamp, TlsFiles};
use crate::ops::{AccessServer, AccessToken, Failure, ServerAccess};
use crate::secret::{Digest, Source, SourceError, Token, TokenError};
use crate::store::{self, AccessMark, AccessNote, AskedBy, Intent, JournalAnswer, Pending};

pub(super) type Keeper = AccessKeeper<World, Machine>;

/// What happens to the next rotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fault {
    #[default]
    None,
    /// No connection.
    Unreached,
    /// An error of which it is not known whether the request was executed; it was not.
    Failed,
    /// Executed, and the answer is cut.
    Cut,
    /// Executed, and something in the answer is odd.
    Odd,
    /// Not executed: the answer with a token is a gateway's.
    Foreign,
    /// Not executed: the answer repeats the token that was sent.
    Echo,
    /// Executed, and then nothing can be written into the state directories.
    StateBroken,
    /// As `StateBroken`, nor into the file.
    AllBroken,
    /// Refused: the date is beyond the limit of the instance.
    Declined,
}

/// What the server knows of a token.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// How many tokens people had made before this one or the first of its line.
    line: u32,
    made_at: Timestamp,
    /// Since when it is dead, by a rotation or a revocation.
    dead_at: Option<Timestamp>,
    pub(super) expires_at: Timestamp,
    /// The token that came from its rotation.
    successor: Option<Digest>,
}

pub(super) struct Inner {
    pub(super) now: Timestamp,
    /// The points that may still be passed; `None` for all.
    points: Option<u32>,
    pub(super) tokens: BTreeMap<Digest, Known>,
    made: u32,
    /// How many tokens people have made.
    pub(super) lines: u32,
    /// Rotations that were sent with a token that was rotated before.
    pub(super) reuses: u32,
    /// Rotations that were executed, by their time.
    pub(super) rotated: Vec<(Digest, Timestamp)>,
    /// Every rotation that reached the server.
    pub(super) posts: u32,
    pub(super) fault: Fault,
    /// How far the replica is behind that answers the next question.
    pub(super) lag: Duration,
    /// A new token that is in memory alone.
    exposed: Option<Digest>,
    /// Tokens that nothing can know: the answer was cut, or the process killed before a byte of it was stored.
    pub(super) unknowable: BTreeSet<Digest>,
    pub(super) file: Option<String>,
    is_locked: bool,
    note: AccessNote,
    /// No file can be made or grow.
    pub(super) is_full: bool,
    /// The next writing of an answer fails.
    pub(super) is_journal_broken: bool,
    /// Nothing can be written into the state directories.
    pub(super) is_state_broken: bool,
    /// How far the clock of the next answer is ahead.
    pub(super) ahead: Duration,
    /// How old the last use is that the server shows; `None` if it shows none.
    use_age: Option<Duration>,
    /// A gateway refuses every token.
    pub(super) is_refusing: bool,
    /// No question is answered.
    pub(super) is_down: bool,
}

/// A GitLab and a token file.
#[derive(Clone)]
pub(super) struct World(pub(super) Rc<RefCell<Inner>>);

/// A state directory of the world.
#[derive(Clone)]
pub(super) struct Machine {
    world: World,
    kept: Rc<RefCell<Kept>>,
}

#[derive(Default)]
struct Kept {
    record: AccessRecord,
    journal: Option<(Intent, Option<JournalAnswer>)>,
}

/// Unlocks when it is dropped, as the kernel does when a process ends.
pub(super) struct Lock(World);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.0.borrow_mut().is_locked = false;
    }
}

pub(super) fn url() -> ServerUrl {
    "https://gitlab.example.com".parse().unwrap()
}

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

impl World {
    /// A token of 90 days in the file.
    pub(super) fn new() -> Self {
        let inner = Inner {
            now: "2026-01-10T15:00:00Z".parse().unwrap(),
            points: None,
            tokens: BTreeMap::new(),
            made: 0,
            lines: 0,
            reuses: 0,
            rotated: Vec::new(),
            posts: 0,
            fault: Fault::None,
            lag: Duration::ZERO,
            exposed: None,
            unknowable: BTreeSet::new(),
            file: None,
            is_locked: false,
            note: AccessNote::default(),
            is_full: false,
            is_journal_broken: false,
            is_state_broken: false,
            ahead: Duration::ZERO,
            use_age: None,
            is_refusing: false,
            is_down: false,
        };
        let world = Self(Rc::new(RefCell::new(inner)));
        world.person_puts_a_new_token();
        world
    }

    pub(super) fn machine(&self) -> Machine {
        Machine { world: self.clone(), kept: Rc::default() }
    }

    pub(super) fn person_puts_a_new_token(&self) -> Token {
        let mut inner = self.0.borrow_mut();
        let expires_at = inner.now.plus(90 * DAY).start_of_day();
        inner.lines += 1;
        let line = inner.lines;
        let token = inner.make(expires_at, line);
        inner.file = Some(format!("{}\n", token.expose()));
        token
    }

    pub(super) fn advance(&self, span: Duration) {
        let mut inner = self.0.borrow_mut();
        inner.now = inner.now.plus(span);
    }

    /// The file, and what the server knows, for a seed that fails.
    pub(super) fn in_words(&self) -> String {
        let inner = self.0.borrow();
        let tokens: Vec<_> = (1..=inner.made)
            .map(|number| {
                let digest = Token::parse(&format!("glpat-{number:020}")).unwrap().digest();
                let (is_alive, is_unknowable) =
                    (inner.is_alive(digest, Duration::ZERO), inner.unknowable.contains(&digest));
                format!("{number} alive {is_alive}, unknowable {is_unknowable}")
            })
            .collect();
        format!("file {:?}, tokens {tokens:?}", inner.file)
    }

    /// What is wrong besides, for a seed that fails.
    pub(super) fn disturbances(&self) -> String {
        let inner = self.0.borrow();
        let (state, refusing, ahead) = (inner.is_state_broken, inner.is_refusing, inner.ahead);
        format!("at {}: state broken {state}, refusing {refusing}, {ahead:?} ahead", inner.now)
    }

    /// The use that the server shows is this old at the next question.
    pub(super) fn use_is_noted(&self, age: Duration) {
        self.0.borrow_mut().use_age = Some(age);
    }

    pub(super) fn now(&self) -> Timestamp {
        self.0.borrow().now
    }

    pub(super) fn file_token(&self) -> Option<Token> {
        self.0.borrow().file.as_ref().and_then(|text| Token::parse(text.trim()).ok())
    }

    /// Whether the server accepts the token of the file.
    pub(super) fn is_file_good(&self) -> bool {
        let inner = self.0.borrow();
        let token = inner.file.as_ref().and_then(|text| Token::parse(text.trim()).ok());
        token.is_some_and(|token| inner.is_alive(token.digest(), Duration::ZERO))
    }

    /// Whether nothing can know the token that the last rotation in the line of that of the file has made.
    pub(super) fn is_head_unknowable(&self) -> bool {
        let Some(token) = self.file_token() else { return false };
        let inner = self.0.borrow();
        let mut head = token.digest();
        while let Some(successor) = inner.tokens.get(&head).and_then(|known| known.successor) {
            head = successor;
        }
        inner.unknowable.contains(&head)
    }

    /// Whether the file holds a token of a line that a person has replaced by another one.
    pub(super) fn is_file_abandoned(&self) -> bool {
        let Some(token) = self.file_token() else { return false };
        let inner = self.0.borrow();
        inner.tokens.get(&token.digest()).is_some_and(|known| known.line != inner.lines)
    }

    /// Lets the process pass this many points.
    pub(super) fn allow(&self, points: Option<u32>) {
        self.0.borrow_mut().points = points;
    }

    async fn point(&self) {
        let mut is_counted = false;
        poll_fn(|_| match &mut self.0.borrow_mut().points {
            Some(0) => Poll::Pending,
            Some(left) if !is_counted => {
                is_counted = true;
                *left -= 1;
                Poll::Ready(())
            }
            Some(_) | None => Poll::Ready(()),
        })
        .await;
    }

    async fn done<T>(&self, effect: impl FnOnce(&mut Inner) -> T) -> T {
        self.point().await;
        let result = effect(&mut self.0.borrow_mut());
        self.point().await;
        result
    }
}

impl Inner {
    fn make(&mut self, expires_at: Timestamp, line: u32) -> Token {
        self.made += 1;
        let token = Token::parse(&format!("glpat-{:020}", self.made)).unwrap();
        let known = Known { line, made_at: self.now, dead_at: None, expires_at, successor: None };
        self.tokens.insert(token.digest(), known);
        token
    }

    fn is_alive(&self, token: Digest, lag: Duration) -> bool {
        let then = self.now.minus(lag);
        self.tokens.get(&token).is_some_and(|known| {
            known.made_at <= then && known.dead_at.is_none_or(|dead_at| then < dead_at) && self.now < known.expires_at
        })
    }

    fn facts(&self, token: Digest) -> AccessTokenFacts {
        let known = &self.tokens[&token];
        AccessTokenFacts {
            id: 1,
            name: "agent".to_owned(),
            scopes: vec!["api".to_owned()],
            active: true,
            revoked: false,
            created_at: Some(known.made_at),
            last_used_at: self.use_age.map(|age| self.now.minus(age)),
            expires_at: Some(known.expires_at),
        }
    }

    fn rotate(&mut self, old: Digest, expires_at: Timestamp) -> Result<(Token, Option<&'static str>), Failure> {
        let fault = std::mem::take(&mut self.fault);
        let unknown = Disposition::Unknown { retry_after: None };
        if fault == Fault::Unreached {
            return Err(Failure::of(Disposition::NotExecuted { retry_after: None }, "no connection"));
        }
        self.posts += 1;
        match fault {
            Fault::Failed => return Err(Failure::of(unknown, "500")),
            Fault::Declined => return Err(Failure::of(Disposition::MustAct(Reason::Parameters), "400 expires_at")),
            Fault::Foreign => return Ok((Token::parse("glpat-of-a-gateway").unwrap(), Some("no date"))),
            Fault::Echo => return Ok((self.repeated(old), Some("it repeats the token that was sent"))),
            Fault::StateBroken => self.is_state_broken = true,
            Fault::AllBroken => (self.is_state_broken, self.is_full) = (true, true),
            Fault::None | Fault::Unreached | Fault::Cut | Fault::Odd => {}
        }
        if let Some(successor) = self.tokens[&old].successor {
            // The whole family is revoked.
            self.reuses += 1;
            let (mut next, now) = (Some(successor), self.now);
            while let Some(known) = next.and_then(|digest| self.tokens.get_mut(&digest)) {
                known.dead_at = known.dead_at.or(Some(now));
                next = known.successor;
            }
        }
        if !self.is_alive(old, Duration::ZERO) {
            return Err(Failure::of(Disposition::MustAct(Reason::AccessToken), "401"));
        }
        let token = self.make(expires_at, self.tokens[&old].line);
        let now = self.now;
        if let Some(known) = self.tokens.get_mut(&old) {
            (known.dead_at, known.successor) = (Some(now), Some(token.digest()));
        }
        self.rotated.push((old, now));
        if fault == Fault::Cut {
            self.unknowable.insert(token.digest());
            return Err(Failure::of(unknown, "cut"));
        }
        self.exposed = Some(token.digest());
        Ok((token, (fault == Fault::Odd).then_some("no id")))
    }

    /// The token of this digest.
    fn repeated(&self, token: Digest) -> Token {
        let made = (1..=self.made).map(|number| Token::parse(&format!("glpat-{number:020}")).unwrap());
        made.into_iter().find(|made| made.digest() == token).unwrap()
    }

    /// A token is stored.
    fn stored(&mut self, token: Option<&Token>) {
        if token.map(Token::digest) == self.exposed {
            self.exposed = None;
        }
    }

    fn check_space(&self) -> Result<(), store::Error> {
        if self.is_full { Err(store::Error::Stopped) } else { Ok(()) }
    }

    fn check_state(&self) -> Result<(), store::Error> {
        if self.is_state_broken { Err(store::Error::Stopped) } else { self.check_space() }
    }

    /// Revokes a token, as a person does in GitLab.
    pub(super) fn revoke(&mut self, token: Digest) {
        let now = self.now;
        if let Some(known) = self.tokens.get_mut(&token) {
            known.dead_at = Some(now);
        }
    }

    /// The server forgets a rotation, as one does that was restored from a backup.
    pub(super) fn forget_rotation(&mut self, old: Digest) {
        let Some(known) = self.tokens.get_mut(&old) else { return };
        known.dead_at = None;
        let new = known.successor.take();
        new.and_then(|new| self.tokens.remove(&new));
    }
}

impl AccessServer for World {
    async fn access_token_facts(
        &self,
        _url: &ServerUrl,
        access: &AccessToken,
    ) -> Result<Answer<AccessTokenFacts>, Failure> {
        let token = access.token.digest();
        self.done(|inner| {
            if inner.is_down {
                return Err(Failure::of(Disposition::Unknown { retry_after: None }, "503"));
            }
            let date = Some(inner.now.plus(std::mem::take(&mut inner.ahead)));
            if !inner.is_refusing && inner.is_alive(token, inner.lag) {
                return Ok(Answer { value: inner.facts(token), date, request_id: String::new() });
            }
            Err(Failure { date, ..Failure::of(Disposition::MustAct(Reason::AccessToken), "401") })
        })
        .await
    }

    async fn rotate_access_token(
        &self,
        _url: &ServerUrl,
        access: &AccessToken,
        _owner: &AccessTokenOwner,
        expires_at: Timestamp,
    ) -> Result<Answer<RotatedAccessToken>, Failure> {
        let old = access.token.digest();
        self.done(|inner| {
            let (token, oddity) = inner.rotate(old, expires_at)?;
            let facts = oddity.is_none().then(|| inner.facts(token.digest()));
            let value = RotatedAccessToken { token, facts, oddity };
            Ok(Answer { value, date: Some(inner.now), request_id: String::new() })
        })
        .await
    }
}

impl Machine {
    /// What the state directory holds, for a seed that fails.
    pub(super) fn in_words(&self) -> String {
        let kept = self.kept.borrow();
        let of = |token: &Option<Token>| token.as_ref().map(|token| token.expose().to_owned());
        let journal = kept
            .journal
            .as_ref()
            .map(|(intent, answer)| (intent.at, answer.as_ref().and_then(|answer| of(&answer.token))));
        format!("record {:?}, lost {:?}, journal {journal:?}", of(&kept.record.token), kept.record.lost_at)
    }

    /// Whether the state directory has a token.
    pub(super) fn knows(&self, token: &Token) -> bool {
        let kept = self.kept.borrow();
        let answered = kept.journal.as_ref().and_then(|(_, answer)| answer.as_ref()?.token.as_ref());
        answered == Some(token) || kept.record.token.as_ref() == Some(token)
    }
}

impl AccessDisk for Machine {
    type Lock = Lock;

    fn check_place(&self, _source: &Source) -> Result<(), &'static str> {
        Ok(())
    }

    async fn lock(&self) -> Result<Option<Lock>, store::Error> {
        self.world
            .done(|inner| {
                if std::mem::replace(&mut inner.is_locked, true) {
                    return Err(store::Error::FileLocked { path: PathBuf::from("token"), holder: None });
                }
                Ok(Some(Lock(self.world.clone())))
            })
            .await
    }

    async fn token(&self) -> Result<Token, SourceError> {
        self.world
            .done(|inner| {
                let parsed = inner.file.as_ref().map_or(Err(TokenError::Empty), |text| Token::parse(text.trim()));
                parsed.map_err(|source| SourceError::Invalid { origin: "the file".to_owned(), source })
            })
            .await
    }

    async fn probe(&self) -> Result<(), store::Error> {
        self.world.done(|inner| inner.check_space()).await
    }

    async fn replace(&self, former: Vec<Digest>, token: Token) -> Result<Option<Token>, store::Error> {
        self.world
            .done(|inner| {
                match inner.file.as_ref().map(|text| Token::parse(text.trim())) {
                    Some(Ok(found)) if !former.contains(&found.digest()) => return Ok(Some(found)),
                    None | Some(Ok(_) | Err(TokenError::Empty)) => {}
                    Some(Err(_)) => return Ok(None),
                }
                inner.check_space()?;
                inner.file = Some(format!("{}\n", token.expose()));
                inner.stored(Some(&token));
                Ok(Some(token))
            })
            .await
    }

    async fn record(&self) -> Result<AccessRecord, store::Error> {
        Ok(self.world.done(|_| self.kept.borrow().record.clone()).await)
    }

    async fn save(&self, record: AccessRecord) -> Result<(), store::Error> {
        self.world
            .done(|inner| {
                inner.check_state()?;
                inner.stored(record.token.as_ref());
                self.kept.borrow_mut().record = record;
                Ok(())
            })
            .await
    }

    async fn pending(&self) -> Result<Option<Pending>, store::Error> {
        let key = RunnerKey::access_token(&url());
        let journal = self.world.done(|_| self.kept.borrow().journal.clone()).await;
        Ok(journal.map(|(intent, answer)| Pending { key, intent, answer }))
    }

    async fn begin(&self, intent: Intent) -> Result<(), store::Error> {
        self.world
            .done(|inner| {
                inner.check_state()?;
                let mut kept = self.kept.borrow_mut();
                let is_held = matches!(&kept.journal, Some((_, Some(answer))) if answer.token.is_some());
                assert!(!is_held, "an answer is overwritten");
                kept.journal = Some((intent, None));
                Ok(())
            })
            .await
    }

    async fn answered(&self, answer: JournalAnswer) -> Result<(), store::Error> {
        self.world
            .done(|inner| {
                if std::mem::take(&mut inner.is_journal_broken) || inner.is_state_broken {
                    return Err(store::Error::Stopped);
                }
                let mut kept = self.kept.borrow_mut();
                let Some((_, journaled)) = &mut kept.journal else {
                    return Err(store::Error::NotBegun { key: RunnerKey::access_token(&url()) });
                };
                inner.stored(answer.token.as_ref());
                *journaled = Some(answer);
                Ok(())
            })
            .await
    }

    async fn clear(&self) -> Result<(), store::Error> {
        self.world.done(|_| self.kept.borrow_mut().journal = None).await;
        Ok(())
    }

    async fn note(&self) -> Result<AccessNote, store::Error> {
        Ok(self.world.done(|inner| inner.note.clone()).await)
    }

    async fn note_use(&self, used_at: Timestamp) -> Result<(), store::Error> {
        self.world
            .done(|inner| {
                inner.check_space()?;
                inner.note.used_at = Some(used_at);
                Ok(())
            })
            .await
    }

    async fn add_mark(&self, mark: AccessMark) -> Result<(), store::Error> {
        self.world
            .done(|inner| {
                inner.check_space()?;
                inner.note.sent.retain(|known| known.token != mark.token);
                inner.note.sent.push(mark);
                Ok(())
            })
            .await
    }

    async fn remove_mark(&self, token: Digest) -> Result<(), store::Error> {
        self.world.done(|inner| inner.note.sent.retain(|mark| mark.token != token)).await;
        Ok(())
    }
}

/// A process that keeps the token.
pub(super) fn keeper(machine: &Machine) -> Keeper {
    let keeping = AccessKeeping { rotate: true, life: Some(90 * DAY), ..AccessKeeping::default() };
    let access =
        ServerAccess { url: url(), access_token: Source::File("token".into()), tls: TlsFiles::default(), keeping };
    let parts = AccessKeeper::new(machine.world.clone(), machine.clone(), access, AskedBy::Daemon, Default::default());
    AccessKeeper { draw: || 0, ..parts }
}

/// A pass that can be held, resumed and killed.
pub(super) struct Running<'k>(Pin<Box<dyn Future<Output = AccessPass> + 'k>>);

impl<'k> Running<'k> {
    pub(super) fn start(keeper: &'k Keeper, wish: AccessWish) -> Self {
        let now = keeper.server.now();
        Self(Box::pin(keeper.pass(AccessMoment { now, last_use: None, wish })))
    }

    /// Runs to its end, or to the point where it is held.
    pub(super) fn run(&mut self) -> Option<AccessPass> {
        match self.0.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(pass) => Some(pass),
            Poll::Pending => None,
        }
    }
}

/// Makes a whole pass.
pub(super) fn pass(keeper: &Keeper, wish: AccessWish) -> AccessPass {
    keeper.server.allow(None);
    Running::start(keeper, wish).run().expect("nothing waits in memory")
}

/// The process with this keeper is killed: what only its memory held is gone.
pub(super) fn killed(keeper: Keeper) {
    let world = keeper.server.clone();
    let unsaved = keeper.unsaved.borrow().as_ref().and_then(|unsaved| unsaved.answer.token.clone());
    let unsaved = unsaved.filter(|token| !keeper.disk.knows(token) && world.file_token().as_ref() != Some(token));
    drop(keeper);
    let mut inner = world.0.borrow_mut();
    inner.unknowable.extend(unsaved.map(|token| token.digest()));
    let exposed = inner.exposed.take();
    inner.unknowable.extend(exposed);
}

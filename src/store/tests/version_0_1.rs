//! Version 0.1 reads what this version writes, and this version what 0.1 makes of it.
//!
//! The structures below are a frozen copy of that release's schema: never change them. Times, keys, ids and tokens are
//! read by the same code as then.

use serde::{Deserialize, Serialize};

use super::held::held;
use super::records::record;
use super::*;
use crate::model::{LastVerify, Origin, StateName, Trouble, VerifyOutcome};
use crate::secret::sha256_hex;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OldRecord {
    schema: u32,
    key: RunnerKey,
    origin: Origin,
    enrollment: Option<String>,
    seed: Option<Fingerprint>,
    url: ServerUrl,
    id: Option<RunnerId>,
    name: Option<String>,
    #[serde(default)]
    credential: Option<OldCredential>,
    retired: Vec<Fingerprint>,
    machine: Option<Fingerprint>,
    #[serde(default)]
    entry_text: Option<String>,
    first_seen_at: Option<Timestamp>,
    last_verify: Option<OldVerify>,
    last_reset_at: Option<Timestamp>,
    recovered: Option<Fingerprint>,
    #[serde(default)]
    is_copy: bool,
    state: String,
    since: Option<Timestamp>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OldCredential {
    token: String,
    obtained_at: Option<Timestamp>,
    expiry: OldExpiry,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OldExpiry {
    Unknown,
    Never,
    At(Timestamp),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OldVerify {
    at: Timestamp,
    outcome: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OldIntent {
    operation: OldOperation,
    at: Timestamp,
    #[serde(default)]
    system_id: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OldOperation {
    Register { url: ServerUrl, description: String, seed: Fingerprint },
    Rotate { url: ServerUrl, id: Option<RunnerId>, old: Fingerprint },
    Unregister { url: ServerUrl, id: Option<RunnerId>, fingerprint: Fingerprint, manager_only: bool },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OldAnswer {
    id: Option<RunnerId>,
    #[serde(default)]
    token: Option<String>,
    expiry: OldExpiry,
    obtained_at: Option<Timestamp>,
}

/// Reads a record by the rules of 0.1.
fn read_old(content: &[u8]) -> OldRecord {
    let record: OldRecord = serde_json::from_slice(content).unwrap();
    assert_eq!(record.schema, 1);
    if let Some(credential) = &record.credential {
        token(&credential.token);
    }
    record
}

/// Reads a slot of a journal by the rules of 0.1.
fn read_slot<T: serde::de::DeserializeOwned>(slot: &[u8]) -> Option<T> {
    let lines: Vec<&[u8]> = slot.splitn(3, |byte| *byte == b'\n').collect();
    let is_whole = lines.len() == 3 && sha256_hex(lines[1]).as_bytes() == lines[0];
    is_whole.then(|| serde_json::from_slice(lines[1]).unwrap())
}

fn path(home: &Home, suffix: &str) -> PathBuf {
    home.state().join(format!("runners/build-1.{suffix}"))
}

fn records() -> Vec<Record> {
    let outcomes = [VerifyOutcome::Accepted, VerifyOutcome::Refused, VerifyOutcome::Unanswered]
        .into_iter()
        .chain(Trouble::ALL.iter().map(|trouble| VerifyOutcome::Trouble(*trouble)));
    let verified = outcomes.map(|outcome| Record {
        last_verify: Some(LastVerify { at: time("2026-01-02T00:00:00Z"), outcome }),
        ..record("build-1")
    });
    let states = StateName::ALL.iter().map(|state| Record { state: Some(*state), ..record("build-1") });
    let origins = [Origin::Registered, Origin::Given, Origin::V1].map(|origin| Record { origin, ..record("build-1") });
    let expiries = [Expiry::Unknown, Expiry::Never]
        .map(|expiry| Record { credential: Some(Credential { expiry, ..credential("t") }), ..record("build-1") });
    let mut full = record("build-1");
    (0..20).for_each(|number| full.add_former_token(token(&format!("t{number}")).digest()));
    let bare = Record { credential: None, entry_text: None, last_verify: None, state: None, ..record("build-1") };
    verified.chain(states).chain(origins).chain(expiries).chain([full, bare]).collect()
}

#[test]
fn version_0_1_reads_every_record() {
    let home = Home::new();
    let store = home.open();
    for record in records() {
        block_on(store.save_record(record.clone())).unwrap();
        let old = read_old(&std::fs::read(path(&home, "json")).unwrap());
        assert_eq!(old.retired, record.former_tokens);
        assert_eq!(old.credential.map(|it| it.token), record.credential.map(|it| it.token.expose().to_owned()));
    }
}

#[test]
fn rotation_by_version_0_1_is_taken_over_and_leaves_what_is_held() {
    let home = Home::new();
    let store = home.open();
    let ours = record("build-1");
    block_on(store.save_record(ours.clone())).unwrap();
    block_on(store.save_held(&ours.key, held())).unwrap();
    // What 0.1 does: it retires the token, and forgets the fields that it does not know.
    let mut old = read_old(&std::fs::read(path(&home, "json")).unwrap());
    old.retired.push(ours.credential.as_ref().unwrap().token.fingerprint());
    old.credential.as_mut().unwrap().token = "glrt-by-0-1".to_owned();
    std::fs::write(path(&home, "json"), serde_json::to_vec_pretty(&old).unwrap()).unwrap();
    let store = home.open();
    let record = block_on(store.record(&ours.key)).unwrap().unwrap();
    assert_eq!(record.credential.as_ref().unwrap().token, token("glrt-by-0-1"));
    assert_eq!(record.former_digests, []);
    assert_eq!(record.former_tokens, [fingerprint("old"), fingerprint("glrt-secret")]);
    assert!(record.has_seed(&token("seed")));
    assert_eq!(block_on(store.held(&ours.key)).unwrap(), held());
}

#[test]
fn former_tokens_by_both_versions_keep_their_order() {
    let mut record = record("build-1");
    record.former_tokens = (0..MAX_FORMER_TOKENS).map(|number| fingerprint(&format!("t{number}"))).collect();
    record.former_digests.clear();
    record.add_former_token(token("new").digest());
    assert_eq!(record.former_tokens.len(), MAX_FORMER_TOKENS);
    assert_eq!(record.former_tokens.last(), Some(&fingerprint("new")));
    assert_eq!(record.former_tokens.first(), Some(&fingerprint("t1")));
    assert_eq!(record.former_digests, [token("new").digest()]);
}

fn operations() -> Vec<JournalOperation> {
    let unregister = |fate| JournalOperation::Unregister {
        url: url(),
        id: Some(id(42)),
        fingerprint: fingerprint("old"),
        manager_only: false,
        fate,
    };
    let register = |common| JournalOperation::Register {
        url: url(),
        description: "build".to_owned(),
        seed: fingerprint("seed"),
        common,
    };
    vec![
        register(None),
        register(Some(RunnerKey::registration(&url(), "build"))),
        JournalOperation::Rotate { url: url(), id: None, old: fingerprint("old"), by_id: false },
        unregister(None),
        unregister(Some(StoredFate::Keep)),
        unregister(Some(StoredFate::KeepText)),
        unregister(Some(StoredFate::Drop)),
    ]
}

#[test]
fn version_0_1_reads_every_journal() {
    let home = Home::new();
    let store = home.open();
    let key = record("build-1").key;
    let at = time("2026-01-01T00:00:00Z");
    for operation in operations() {
        for asked_by in [None, Some(AskedBy::Daemon), Some(AskedBy::Command)] {
            let intent = Intent {
                operation: operation.clone(),
                at,
                system_id: Some("s_0123456789ab".parse().unwrap()),
                asked_by,
                token: Some(token("old").digest()),
            };
            block_on(store.begin(&key, intent)).unwrap();
            let answer = JournalAnswer {
                id: Some(id(42)),
                token: Some(token("new")),
                expiry: Expiry::Never,
                obtained_at: Some(at),
                is_documented: false,
            };
            block_on(store.answered(&key, answer)).unwrap();
            let content = std::fs::read(path(&home, "pending")).unwrap();
            let old: OldIntent = read_slot(&content[..3072]).unwrap();
            let answer: OldAnswer = read_slot(&content[3072..]).unwrap();
            assert_eq!((old.at, old.system_id.as_deref()), (at, Some("s_0123456789ab")));
            assert_eq!(answer.token.as_deref(), Some("new"));
            block_on(store.clear(&key)).unwrap();
        }
    }
}

#[test]
fn journal_of_version_0_1_is_read() {
    let home = Home::new();
    let store = home.open();
    let at = time("2026-01-01T00:00:00Z");
    let operation =
        OldOperation::Unregister { url: url(), id: None, fingerprint: fingerprint("old"), manager_only: true };
    let answer = OldAnswer { id: None, token: None, expiry: OldExpiry::Unknown, obtained_at: Some(at) };
    let slot = |json: String, size: usize| format!("{:<size$}", format!("{}\n{json}\n", sha256_hex(json.as_bytes())));
    let intent = slot(serde_json::to_string(&OldIntent { operation, at, system_id: None }).unwrap(), 3072);
    let answer = slot(serde_json::to_string(&answer).unwrap(), 1024);
    std::fs::write(path(&home, "pending"), intent + &answer).unwrap();
    let pending = block_on(store.pending()).unwrap().remove(0);
    assert_eq!((pending.intent.asked_by, pending.intent.token), (None, None));
    assert!(matches!(pending.intent.operation, JournalOperation::Unregister { fate: None, .. }));
    assert!(pending.answer.unwrap().is_documented);
}

#[test]
fn names_of_new_files_are_none_that_version_0_1_reads() {
    let home = Home::new();
    let store = home.open();
    let key = record("build-1").key;
    std::fs::write(path(&home, "held"), "torn").unwrap();
    block_on(store.save_held(&key, held())).unwrap();
    let read_by_old = |name: &String| name.ends_with(".json") || name.ends_with(".pending") || name.ends_with(".lock");
    let names = names(&home.state().join("runners"));
    assert_eq!(names.len(), 2);
    assert!(!names.iter().any(read_by_old), "{names:?}");
}

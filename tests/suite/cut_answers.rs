//! The answer to a rotation of an access token, cut at every byte on its way.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use fake_gitlab::{Gitlab, NewAccessToken, Scope};
use runner_agent::gitlab::{self, Client};
use runner_agent::lifecycle::AccessKeeping;
use runner_agent::model::{Timestamp, TlsFiles};
use runner_agent::ops::{
    AccessError, AccessEvent, AccessKeeper, AccessMoment, AccessPass, AccessWish, ServerAccess, StoredAccessToken,
};
use runner_agent::secret::Source;
use runner_agent::store::{self, AskedBy, Store};

type Keeper = AccessKeeper<Client, StoredAccessToken>;

const MINUTE: Duration = Duration::from_secs(60);

/// No answer is this long.
const WHOLE: usize = usize::MAX;

/// Passes requests on to a GitLab, one on each connection, and cuts the answers to rotations.
struct Cutter {
    address: SocketAddr,
    /// How many bytes of the answer to a rotation pass.
    limit: Arc<AtomicUsize>,
    /// The length of the last one.
    length: Arc<AtomicUsize>,
}

impl Cutter {
    fn start(gitlab: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let cutter = Self {
            address: listener.local_addr().unwrap(),
            limit: Arc::new(AtomicUsize::new(WHOLE)),
            length: Arc::default(),
        };
        let (limit, length) = (Arc::clone(&cutter.limit), Arc::clone(&cutter.length));
        thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                let request = message(&mut client);
                let mut server = TcpStream::connect(gitlab).unwrap();
                server.write_all(&request).unwrap();
                let answer = message(&mut server);
                let mut passing = &answer[..];
                if request.starts_with(b"POST") {
                    length.store(answer.len(), Ordering::SeqCst);
                    passing = &answer[..answer.len().min(limit.load(Ordering::SeqCst))];
                }
                // An error means that the client has disconnected.
                let _left = client.write_all(passing);
            }
        });
        cutter
    }
}

/// A request or an answer as it is on the wire; empty if the connection ends first.
fn message(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if bytes.len() >= end + 4 + length.unwrap_or(0) {
                return bytes;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return bytes,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// A keeper of the token in `directory/access-token`, as a process has it after its start.
fn keeper(directory: &Path, server: SocketAddr) -> Keeper {
    let store = Store::open(store::Config {
        config_path: directory.join("config.toml"),
        state_root: Some(directory.join("state")),
        machine_id_path: directory.join("machine-id"),
        root_locks: None,
        variables: |_| None,
    });
    let access = ServerAccess {
        url: format!("http://{server}").parse().unwrap(),
        access_token: Source::File(directory.join("access-token")),
        tls: TlsFiles::default(),
        keeping: AccessKeeping { rotate: true, ..AccessKeeping::default() },
    };
    let disk = StoredAccessToken::of(store.unwrap(), &access);
    AccessKeeper::new(Client::new(gitlab::Config::default()), disk, access, AskedBy::Daemon, Default::default())
}

/// A pass. A process that another test starts has the lock until it runs its program.
async fn pass(keeper: &Keeper, now: Timestamp, wish: AccessWish) -> AccessPass {
    loop {
        let pass = keeper.pass(AccessMoment { now, last_use: None, wish }).await;
        if !matches!(pass.error, Some(AccessError::Disk(store::Error::FileLocked { .. }))) {
            return pass;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_rotation_whose_answer_is_cut_at_any_byte_is_sent_once_and_its_token_is_kept_if_it_was_read() {
    let gitlab = Gitlab::start();
    let cutter = Cutter::start(gitlab.address());
    let (mut kept, mut lost, mut cut_at) = (0, 0, 0);
    let mut is_last = false;
    while !is_last {
        is_last = cut_at > 0 && cut_at >= cutter.length.load(Ordering::SeqCst);
        let new = NewAccessToken::personal().scopes([Scope::Api]).expires_on(gitlab.day_in(90));
        let old = gitlab.create_access_token(new);
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("access-token");
        fs::write(&file, &old).unwrap();
        let now = || Timestamp::from_millis(gitlab.now().as_millisecond());
        let before = gitlab.access_tokens().len();

        cutter.limit.store(if is_last { WHOLE } else { cut_at }, Ordering::SeqCst);
        let first = keeper(directory.path(), cutter.address);
        let mut passes = vec![pass(&first, now(), AccessWish::Rotate).await];
        drop(first);
        // The process starts again; later, refusals of the old token count.
        for _ in 0..3 {
            gitlab.advance(11 * MINUTE);
            passes.push(pass(&keeper(directory.path(), cutter.address), now(), AccessWish::Keep).await);
        }

        let told: Vec<_> = passes.iter().map(|pass| format!("{:?} {:?}", pass.events, pass.error)).collect();
        assert_eq!(gitlab.access_token(&old).unwrap().rotate_requests, 1, "cut at {cut_at}: {told:#?}");
        assert_eq!(gitlab.access_tokens().len(), before + 1, "cut at {cut_at}: {told:#?}");
        let is_good = gitlab.accepts_access_token(fs::read_to_string(&file).unwrap().trim());
        let is_lost = passes.iter().any(|pass| pass.events.contains(&AccessEvent::Lost));
        assert!(is_good != is_lost, "cut at {cut_at}: {told:#?}");
        (kept, lost) = (kept + usize::from(is_good), lost + usize::from(is_lost));
        assert!(is_good || !is_last, "{told:#?}");
        cut_at += 1;
    }
    // The token stands in the body, and is kept from its end on.
    assert!(kept > 1 && lost > 100, "{kept} kept, {lost} lost");
}

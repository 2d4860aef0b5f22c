//! By which TLS files a registration is sent, and what is said of those that are not used.

use super::*;
use crate::files::Exposure;
use crate::model::TlsPaths;
use crate::ops::Enrollment;

const WARNING: &str = "the TLS files of entries are not used";

fn ca(path: &str) -> TlsFiles {
    TlsPaths { ca_file: Some(path.into()), ..TlsPaths::default() }.into()
}

impl OpsFixture {
    /// A runner of an enrollment whose entry names a CA file.
    async fn with_ca(&self, path: &str) -> Runner {
        let mut runner = self.registered().await;
        self.name_ca(&mut runner, path);
        runner
    }

    fn name_ca(&self, runner: &mut Runner, path: &str) {
        self.disk.state().entries[0].tls = ca(path);
        runner.site.tls = ca(path);
    }

    async fn tls_of(&self, enrollment: &Enrollment, runner: &Runner) -> TlsFiles {
        self.ops.site_of(enrollment, runner, &self.disk.read().await.unwrap()).tls
    }

    fn own(&self, exposure: Option<Exposure>) {
        self.disk.state().exposure = exposure;
    }
}

#[tokio::test]
async fn a_registration_is_sent_by_flags_then_by_the_entry_then_by_the_enrollment() {
    const FOREIGN: Option<Exposure> = Some(Exposure::Foreign { user: 1500 });
    let fixture = OpsFixture::new();
    let mut runner = fixture.with_ca("/of-entry.pem").await;
    let of_flags = |runner: &mut Runner| runner.record.enrollment = None;
    for (is_command, own, exposure, expected) in [
        (false, TlsFiles::default(), None, ca("/of-entry.pem")),
        (false, ca("/own.pem"), None, ca("/of-entry.pem")),
        (false, TlsFiles::default(), FOREIGN, TlsFiles::default()),
        (false, ca("/own.pem"), FOREIGN, ca("/own.pem")),
        (true, TlsFiles::default(), None, ca("/of-entry.pem")),
        (true, ca("/flag.pem"), None, ca("/flag.pem")),
        (true, TlsFiles::default(), FOREIGN, TlsFiles::default()),
        (true, ca("/flag.pem"), FOREIGN, ca("/flag.pem")),
    ] {
        if is_command {
            of_flags(&mut runner);
        }
        fixture.own(exposure);
        let mut enrollment = enrollment(registration_token());
        enrollment.site.tls = own.clone();
        let used = fixture.tls_of(&enrollment, &runner).await;
        assert_eq!(used, expected, "command: {is_command}, {own:?}, {exposure:?}");
    }
}

#[tokio::test]
async fn files_of_an_entry_that_another_user_could_have_written_are_named_once() {
    let log = Log::default();
    let _taken = log.take(tracing::Level::INFO);
    let fixture = OpsFixture::new();
    let mut runner = fixture.with_ca("/ca-1.pem").await;
    let enrollment = enrollment(registration_token());
    fixture.tls_of(&enrollment, &runner).await;
    assert_eq!(log.count(WARNING), 0);
    let (foreign, writable) = (Exposure::Foreign { user: 1500 }, Exposure::Writable { mode: 0o664 });
    for (file, exposure, cause, warnings) in [
        ("/ca-1.pem", foreign, "it belongs to user 1500", 1),
        ("/ca-2.pem", foreign, "it belongs to user 1500", 2),
        ("/ca-1.pem", foreign, "it belongs to user 1500", 2),
        ("/ca-1.pem", writable, "it can be written by others (mode 0664)", 3),
    ] {
        fixture.own(Some(exposure));
        fixture.name_ca(&mut runner, file);
        for _ in 0..3 {
            fixture.tls_of(&enrollment, &runner).await;
        }
        assert_eq!(log.count(WARNING), warnings, "{file}");
        assert!(log.text().contains(cause) && log.text().contains(file), "{}", log.text());
    }
}

#[tokio::test]
async fn ten_thousand_entries_with_files_that_are_not_used_are_few_warnings_that_count_them() {
    let log = Log::default();
    let _taken = log.take(tracing::Level::INFO);
    let fixture = OpsFixture::new();
    let mut runner = fixture.with_ca("/ca.pem").await;
    fixture.own(Some(Exposure::Foreign { user: 1500 }));
    let entry = fixture.disk.state().entries[0].clone();
    fixture.disk.state().entries = (0..10_000).map(|_| entry.clone()).collect();
    let enrollment = enrollment(registration_token());
    for at in 0..20 {
        fixture.name_ca(&mut runner, &format!("/ca-{at}.pem"));
        fixture.tls_of(&enrollment, &runner).await;
    }
    assert_eq!(log.count(WARNING), 16);
    assert_eq!(log.count("entries=10000"), 16);
}

#[tokio::test]
async fn nothing_is_said_of_an_entrys_files_that_need_not_be_used() {
    let log = Log::default();
    let _taken = log.take(tracing::Level::INFO);
    let fixture = OpsFixture::new();
    let mut runner = fixture.with_ca("/ca.pem").await;
    fixture.own(Some(Exposure::Foreign { user: 1500 }));
    // The enrollment names its own.
    let mut named = enrollment(registration_token());
    named.site.tls = ca("/own.pem");
    fixture.tls_of(&named, &runner).await;
    // A given token is sent as the runner's own.
    let mut given = enrollment(registration_token());
    let token = Token::parse("glrt-given").unwrap();
    given.source = RegistrationSource::Given(Source::Value { token, origin: "a test".to_owned() });
    fixture.tls_of(&given, &runner).await;
    // The entry names none.
    fixture.disk.state().entries[0].tls = TlsFiles::default();
    runner.site.tls = TlsFiles::default();
    fixture.tls_of(&enrollment(registration_token()), &runner).await;
    assert_eq!(log.count(WARNING), 0);
}

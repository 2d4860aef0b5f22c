//! By which TLS files a registration is sent.

use super::namesakes::is_of_daemon;
use super::{Disk, Enrollment, Ops, RegistrationSource, Runner, Server};
use crate::model::{Site, TlsFiles};
use crate::store::Snapshot;

/// How many sets of TLS files are warned about: another user chooses them, and can name others in each version of
/// config.toml.
const MAX_WARNINGS: usize = 16;

impl<S: Server, D: Disk> Ops<S, D> {
    /// The server of a registration. Its TLS files are those of a command's flags, else those of the entry, if it names some
    /// and no other user could have written it: that user must not choose which server receives what the runner is made from.
    pub(super) fn site_of(&self, enrollment: &Enrollment, runner: &Runner, snapshot: &Snapshot) -> Site {
        let own = &enrollment.site.tls;
        let is_by_flag = !is_of_daemon(runner) && *own != TlsFiles::default();
        let of_entry = Some(&runner.site.tls).filter(|tls| **tls != TlsFiles::default() && *tls != own && !is_by_flag);
        let of_entry = of_entry.filter(|tls| snapshot.entries.iter().any(|entry| entry.tls == **tls));
        let tls = match of_entry {
            Some(tls) if snapshot.exposure.is_none() => tls,
            Some(tls) => {
                self.note_unused(enrollment, runner, tls, snapshot);
                own
            }
            None => own,
        };
        Site { url: runner.site.url.clone(), tls: tls.clone() }
    }

    /// Logs which files of an entry are not used, unless the enrollment names its own instead: without them the connection
    /// may fail, and the entry looks right. Entries that name the same files are warned about once.
    fn note_unused(&self, enrollment: &Enrollment, runner: &Runner, tls: &TlsFiles, snapshot: &Snapshot) {
        // A given token is verified by the entry's files, as the runner that it belongs to.
        let is_given = matches!(enrollment.source, RegistrationSource::Given(_));
        let own = &enrollment.site.tls;
        let ca_file = tls.ca_file.as_deref().filter(|_| own.ca_file.is_none());
        let cert_file = tls.cert_file.as_deref().filter(|_| own.cert_file.is_none());
        let Some(exposure) = snapshot.exposure.filter(|_| !is_given && ca_file.or(cert_file).is_some()) else { return };
        let (runner, cause) = (runner.label(), exposure.cause());
        let [ca_file, cert_file] =
            [ca_file, cert_file].map(|file| file.map(|file| tracing::field::display(file.display())));
        let mut warned = self.unused_tls.borrow_mut();
        let noted = (tls.clone(), cause.clone());
        if warned.len() >= MAX_WARNINGS || warned.contains(&noted) {
            tracing::debug!(
                runner,
                ca_file,
                cert_file,
                cause,
                "the TLS files of an entry are not used to register its runner"
            );
            return;
        }
        let entries = snapshot.entries.iter().filter(|entry| entry.tls != TlsFiles::default()).count();
        tracing::warn!(
            runner,
            ca_file,
            cert_file,
            cause,
            entries,
            "the TLS files of entries are not used to register runners: another user could have written config.toml, and choose which server receives the token that a runner is made from: name the files in the [[enroll]] of agent.toml, or with --tls-ca-file"
        );
        warned.push(noted);
    }
}

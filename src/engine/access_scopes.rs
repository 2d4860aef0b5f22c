//! The scopes that the settings need of a server's access token.

use super::Config;
use crate::ops::{RegistrationSource, ServerAccess};

/// A scope of an access token. `api` includes all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeededScope {
    /// For an `[[enroll]]` with `create`.
    CreateRunner,
    /// To reset a refused token by the runner's id, and to look for other machines that use it.
    ManageRunner,
    /// For `access_token` with `rotate = true`.
    SelfRotate,
}

impl NeededScope {
    /// Its name in GitLab.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreateRunner => "create_runner",
            Self::ManageRunner => "manage_runner",
            Self::SelfRotate => "self_rotate",
        }
    }

    /// What fails without it, for a person.
    #[must_use]
    pub const fn consequence(self) -> &'static str {
        match self {
            Self::CreateRunner => "`create` cannot make its runners",
            Self::ManageRunner => "a token that GitLab refuses cannot be reset by the runner's id",
            Self::SelfRotate => "it cannot be rotated",
        }
    }
}

impl Config {
    /// The scopes that these settings need of the access token of a server.
    #[must_use]
    pub fn needed_scopes(&self, server: &ServerAccess) -> Vec<NeededScope> {
        let is_creating = self.enrollments.iter().any(|enrollment| {
            enrollment.site.url == server.url && matches!(enrollment.source, RegistrationSource::Created(_))
        });
        let needed = [
            (NeededScope::CreateRunner, is_creating),
            (NeededScope::ManageRunner, true),
            (NeededScope::SelfRotate, server.keeping.rotate),
        ];
        needed.into_iter().filter(|(_, is_needed)| *is_needed).map(|(scope, _)| scope).collect()
    }

    /// Those of them that an access token with these scopes lacks.
    #[must_use]
    pub fn missing_scopes(&self, server: &ServerAccess, scopes: &[String]) -> Vec<NeededScope> {
        let has = |name: &str| scopes.iter().any(|scope| scope == name);
        let missing = |scope: &NeededScope| !has("api") && !has(scope.as_str());
        self.needed_scopes(server).into_iter().filter(missing).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gitlab::fleet::NewRunnerOwner;
    use crate::lifecycle::AccessKeeping;
    use crate::model::TlsFiles;
    use crate::ops::{Creation, Enrollment};
    use crate::secret::{Source, Token};

    fn server(host: &str, rotate: bool) -> ServerAccess {
        ServerAccess {
            url: format!("https://{host}").parse().unwrap(),
            access_token: Source::File("/token".into()),
            tls: TlsFiles::default(),
            keeping: AccessKeeping { rotate, ..AccessKeeping::default() },
        }
    }

    fn creating(server: &ServerAccess) -> Enrollment {
        let mut enrollment = crate::ops::memory::enrollment(Token::parse("token").unwrap());
        enrollment.site.url = server.url.clone();
        enrollment.source = RegistrationSource::Created(Creation {
            access_token: server.access_token.clone(),
            tls: TlsFiles::default(),
            owner: NewRunnerOwner::Instance,
            token_expires_at: None,
            token_rotation_deadline: None,
        });
        enrollment
    }

    #[test]
    fn the_settings_decide_which_scopes_are_missing() {
        let other = creating(&server("gitlab.example.org", false));
        for (creates, rotate, scopes, missing) in [
            (true, true, &["api"][..], &[][..]),
            (true, true, &["create_runner", "manage_runner", "self_rotate"], &[]),
            (true, true, &[], &["create_runner", "manage_runner", "self_rotate"]),
            (true, true, &["read_api", "admin_mode"], &["create_runner", "manage_runner", "self_rotate"]),
            (true, true, &["manage_runner"], &["create_runner", "self_rotate"]),
            (true, false, &["create_runner"], &["manage_runner"]),
            (false, true, &["manage_runner"], &["self_rotate"]),
            (false, true, &["self_rotate", "create_runner"], &["manage_runner"]),
            (false, false, &["manage_runner"], &[]),
            (false, false, &[], &["manage_runner"]),
        ] {
            let server = server("gitlab.example.com", rotate);
            let mut enrollments = vec![other.clone()];
            enrollments.extend(creates.then(|| creating(&server)));
            let config = Config { enrollments, ..Config::default() };
            let scopes: Vec<_> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            let found: Vec<_> = config.missing_scopes(&server, &scopes).into_iter().map(NeededScope::as_str).collect();
            assert_eq!(found, missing, "create {creates}, rotate {rotate}, {scopes:?}");
        }
    }
}

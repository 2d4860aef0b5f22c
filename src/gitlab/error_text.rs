//! The texts of errors: what went wrong, and what the user can do about it.

use super::{Endpoint, ErrorKind};

impl ErrorKind {
    /// What went wrong; detail, status and the server's message follow it.
    pub(super) fn summary(self, endpoint: Endpoint) -> &'static str {
        match self {
            Self::LocalFile if endpoint.needs_access_token() => {
                "check the TLS files of the [[server]] in agent.toml, those of the flags, and those in the `certs` directory"
            }
            Self::LocalFile => "a local file cannot be used",
            Self::ProxySetting => "the proxy address is not a URL",
            Self::ProxyUnreachable => "cannot connect to the proxy",
            Self::ProxyRefused => "the proxy does not connect to the server",
            Self::NameLookup => "cannot resolve the host name",
            Self::Connect => "cannot connect",
            Self::ConnectTimeout => "connecting timed out",
            Self::TlsName => "the server's certificate is for another name",
            Self::TlsNoName => "the server's certificate names no host",
            Self::TlsIssuer => "the server's certificate is from an unknown issuer",
            Self::TlsExpired => "the server's certificate has expired or is not valid yet",
            Self::TlsClientCertificate => "the server requires a client certificate, or rejects this one",
            Self::HttpExpected => "the server speaks http on this port, not https",
            Self::HttpsExpected => "the server speaks https on this port, not http",
            Self::Tls => "cannot set up an encrypted connection",
            Self::ProxyAuthentication => "the proxy requires a user name and password",
            Self::Timeout => "the request timed out",
            Self::ConnectionLost => "the connection was lost before the answer was complete",
            Self::TooLarge => "the answer is too large",
            Self::Redirect => "a redirect instead of an answer",
            Self::WrongAddress => "GitLab answers at another address",
            Self::NotGitlab => "not a GitLab API answer",
            Self::UnexpectedAnswer => "unexpected answer",
            Self::UnexpectedStatus => "unexpected status",
            Self::InvalidParameters => "the server rejects the parameters",
            Self::AccessTokenRefused => "the access token is wrong, expired or revoked",
            Self::AccessTokenRights => "the access token's scope or its user's role is insufficient",
            Self::Forbidden => "the server does not allow this for the runner",
            Self::TokenRefused => "the server refuses the runner's token",
            Self::RegistrationRefused => "the server refuses the registration token",
            Self::RegistrationDisabled => "registration tokens are disabled on the server",
            Self::RotationClosed => "the token's rotation deadline has passed",
            Self::ReadOnly => "the server is read-only at the moment",
            Self::Unsupported if endpoint.rotates_access_token() => {
                "rotate it by hand and put the new one into the file: GitLab has this call since 16.10, and since 17.9 for the tokens of groups and projects"
            }
            Self::Orphaned => "the group or project that owned the runner is gone",
            Self::Unassigned => "the runner is not assigned to any project",
            Self::NotFound => endpoint.missing(),
            Self::Unsupported => "this GitLab version does not support the call",
            Self::Locked => "the runner is locked by another request",
            Self::PreconditionFailed => "the runner was changed by another request",
            Self::RateLimited => "too many requests, or a database migration is running",
            Self::Maintenance => "the server is in maintenance mode",
            Self::ServerError => "the server failed",
        }
    }

    pub(super) fn hint(self, endpoint: Endpoint) -> Option<&'static str> {
        Some(match self {
            Self::TlsIssuer if endpoint.needs_access_token() => {
                "set `tls_ca_file` in the [[server]] of agent.toml, or use --tls-ca-file: an access token is not sent by the trust that config.toml asks for"
            }
            Self::TlsIssuer => {
                "set `tls-ca-file` to the CA certificate or to the server's own, or install the system's CA certificates (ca-certificates)"
            }
            Self::TlsName => "use a name from the certificate in `url`",
            Self::TlsNoName => {
                "issue it again with a subjectAltName, which a certificate of version 1 cannot have; if its issuer is unknown here, set `tls-ca-file` to the new one"
            }
            Self::TlsExpired => "renew the server's certificate, or correct this machine's clock",
            Self::TlsClientCertificate => {
                "set `tls-cert-file` and `tls-key-file` to the client certificate and its key"
            }
            Self::HttpExpected => "set `url` to the port on which GitLab speaks https, or to http://",
            Self::HttpsExpected => "set `url` to https://",
            Self::Tls => "check that the server speaks https on this port",
            Self::LocalFile if endpoint.needs_access_token() => {
                "check the TLS files of the [[server]] in agent.toml, those of the flags, and those in the `certs` directory"
            }
            Self::LocalFile => "check the TLS files of the entry and those in the `certs` directory",
            Self::ProxySetting => "set the proxy to a URL such as `http://proxy.example.com:3128`",
            Self::ProxyUnreachable => "check the proxy's address, or exclude GitLab's host from it by NO_PROXY",
            Self::ProxyRefused => "let the proxy connect to GitLab, or exclude GitLab's host from it by NO_PROXY",
            Self::ProxyAuthentication => {
                "give the right ones in the proxy's URL, such as `http://user:password@proxy.example.com:3128`"
            }
            Self::Redirect => "set `url` to the address that GitLab itself uses, with https",
            Self::WrongAddress => "this request has changed nothing in GitLab",
            Self::NotGitlab => "check `url`, and whether a proxy or portal is in between",
            Self::RegistrationRefused => "use a current registration token, or create the runner in GitLab's UI",
            Self::RegistrationDisabled => "create the runner in GitLab's UI and use its `glrt-` token",
            Self::TokenRefused => "the runner was deleted, or its token expired or was rotated elsewhere",
            Self::AccessTokenRefused => "use a valid access token",
            Self::AccessTokenRights => endpoint.required_rights(),
            Self::RotationClosed => "create a new runner in GitLab's UI before this token expires",
            Self::InvalidParameters if endpoint.rotates_access_token() => {
                "set a shorter `life` in the access_token of the [[server]]: the server refuses this one, or names another reason"
            }
            Self::Orphaned => "delete the runner and create a new one",
            Self::Unassigned => "assign the runner to a project in GitLab's UI",
            Self::NameLookup
            | Self::Connect
            | Self::ConnectTimeout
            | Self::Timeout
            | Self::ConnectionLost
            | Self::TooLarge
            | Self::UnexpectedAnswer
            | Self::UnexpectedStatus
            | Self::InvalidParameters
            | Self::Forbidden
            | Self::ReadOnly
            | Self::NotFound
            | Self::Unsupported
            | Self::Locked
            | Self::PreconditionFailed
            | Self::RateLimited
            | Self::Maintenance
            | Self::ServerError => return None,
        })
    }
}

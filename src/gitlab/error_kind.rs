//! What can go wrong with a call.

use crate::model::named_enum;

named_enum! {
    /// What went wrong. The name is stable: logs and metric labels use it.
    pub enum ErrorKind {
        /// A TLS file on this machine cannot be used.
        LocalFile = "local_file",
        /// The proxy address is not a URL.
        ProxySetting = "proxy_setting",
        /// No connection to the proxy.
        ProxyUnreachable = "proxy_unreachable",
        /// The proxy does not connect to the server.
        ProxyRefused = "proxy_refused",
        /// The host name cannot be resolved.
        NameLookup = "name_lookup",
        /// No connection to the server or to the proxy in front of it.
        Connect = "connect",
        /// Connecting timed out.
        ConnectTimeout = "connect_timeout",
        /// The server's certificate is for other names.
        TlsName = "tls_name",
        /// The server's certificate names no host: it has no subjectAltName.
        TlsNoName = "tls_no_name",
        /// The server's certificate is from an authority that is not trusted.
        TlsIssuer = "tls_issuer",
        /// The server's certificate has expired or is not valid yet.
        TlsExpired = "tls_expired",
        /// The server requires a client certificate, or rejects the one it was sent.
        TlsClientCertificate = "tls_client_certificate",
        /// The server speaks http on a port that was addressed by https.
        HttpExpected = "http_expected",
        /// The server speaks https on a port that was addressed by http.
        HttpsExpected = "https_expected",
        /// The TLS handshake failed for another reason.
        Tls = "tls",
        /// The proxy requires a password (407).
        ProxyAuthentication = "proxy_authentication",
        /// The answer was not complete in time.
        Timeout = "timeout",
        /// The connection was lost before the answer was complete.
        ConnectionLost = "connection_lost",
        /// The answer exceeds the size limit.
        TooLarge = "too_large",
        /// A redirect; redirects are never followed.
        Redirect = "redirect",
        /// GitLab answers at another address of the host.
        WrongAddress = "wrong_address",
        /// Not an answer of GitLab's API: a page, a portal, a firewall, or JSON with a text that GitLab does not send.
        NotGitlab = "not_gitlab",
        /// A success status with a body that does not answer the call.
        UnexpectedAnswer = "unexpected_answer",
        /// An error answer of GitLab that it does not document for the call.
        UnexpectedStatus = "unexpected_status",
        /// The server rejects the parameters (400).
        InvalidParameters = "invalid_parameters",
        /// The access token is wrong, expired or revoked (401).
        AccessTokenRefused = "access_token_refused",
        /// The access token's scope or its user's role is insufficient (403).
        AccessTokenRights = "access_token_rights",
        /// The runner does not allow this (403): it is locked, or of another type.
        Forbidden = "forbidden",
        /// The server refuses the runner token (403).
        TokenRefused = "token_refused",
        /// The server refuses the registration token (403).
        RegistrationRefused = "registration_refused",
        /// Registration tokens are disabled on the server (410).
        RegistrationDisabled = "registration_disabled",
        /// The token's rotation deadline has passed (403).
        RotationClosed = "rotation_closed",
        /// The server is read-only at the moment (403).
        ReadOnly = "read_only",
        /// The runner's owner is gone (403 or 422).
        Orphaned = "orphaned",
        /// The project runner is not assigned to any project (422).
        Unassigned = "unassigned",
        /// The runner, manager, project or group does not exist (404) or is hidden.
        NotFound = "not_found",
        /// This GitLab version does not support the call (404, 405, or 401 for managers).
        Unsupported = "unsupported",
        /// Another request holds the runner's lock (409).
        Locked = "locked",
        /// The runner was changed by another request (412).
        PreconditionFailed = "precondition_failed",
        /// Too many requests, or database migrations are running (429).
        RateLimited = "rate_limited",
        /// GitLab is in maintenance mode (503 with `Retry-After` and its text).
        Maintenance = "maintenance",
        /// The server or a proxy in front of it failed (408 and 5xx).
        ServerError = "server_error",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_in_snake_case() {
        let names: BTreeSet<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), ErrorKind::ALL.len());
        assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    }
}

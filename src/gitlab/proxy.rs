//! The way to a site: by way of a proxy, or directly.
//!
//! The rules are those of Go's `golang.org/x/net/http/httpproxy`, so that gitlab-runner and the agent take the same way.
//! Loopback addresses and `localhost` are never reached by way of a proxy.

use std::error::Error as StdError;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, Url};

use super::error::CallFailure;
use super::tls::{SystemRoots, TlsProfile};
use super::{Config, ErrorKind, Proxies};
use crate::model::{ServerUrl, Site};

/// A proxy that a request goes through. Its `Display` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// May hold a password.
    pub(super) url: Url,
    pub(super) variable: &'static str,
}

/// The way to a site, with its reason. Its `Display` hides passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By way of a proxy.
    Proxy(Route),
    /// Without a proxy.
    Direct(DirectReason),
}

/// Why a site is connected to directly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DirectReason {
    /// No variable names a proxy for its scheme, `https` or `http`.
    NoProxy(&'static str),
    /// HTTP_PROXY may be the choice of a web request.
    Cgi,
    /// It is on this machine.
    Loopback,
    /// This entry of NO_PROXY excludes it.
    Excluded(String),
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Proxy(route) => write!(formatter, "by way of {route}"),
            Self::Direct(DirectReason::NoProxy(scheme)) => {
                write!(formatter, "none: no variable names a proxy for {scheme}")
            }
            Self::Direct(DirectReason::Cgi) => formatter.write_str("none: HTTP_PROXY is not used in a CGI program"),
            Self::Direct(DirectReason::Loopback) => formatter.write_str("none: the server is on this machine"),
            Self::Direct(DirectReason::Excluded(entry)) => {
                write!(formatter, "none: `{entry}` in NO_PROXY excludes the server")
            }
        }
    }
}

impl Proxies {
    /// The proxy for a site; `None` if it is connected to directly.
    ///
    /// # Errors
    /// [`ErrorKind::ProxySetting`] if the address of its proxy is invalid.
    pub(super) fn route(&self, site: &ServerUrl) -> Result<Option<Route>, CallFailure> {
        match self.way(site)? {
            Way::Proxy(route) => Ok(Some(route)),
            Way::Direct(_) => Ok(None),
        }
    }

    /// The way to a site, with its reason.
    ///
    /// # Errors
    /// As [`Proxies::route`].
    pub(super) fn way(&self, site: &ServerUrl) -> Result<Way, CallFailure> {
        let (setting, scheme) = if site.is_https() { (&self.https, "https") } else { (&self.http, "http") };
        let Some(setting) = setting else { return Ok(Way::Direct(DirectReason::NoProxy(scheme))) };
        // A web server passes the header `Proxy` of any request as HTTP_PROXY.
        if self.is_cgi && !site.is_https() {
            return Ok(Way::Direct(DirectReason::Cgi));
        }
        if let Some(reason) = self.exclusion(site.host(), site.port()) {
            return Ok(Way::Direct(reason));
        }
        let invalid = |problem: &str| {
            let variable = setting.variable;
            CallFailure::new(ErrorKind::ProxySetting).with_detail(format!("the proxy in {variable} {problem}"))
        };
        // Neither the address nor the cause is shown: both may contain a password.
        let url = parsed(&setting.url).ok_or_else(|| invalid("is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") {
            let (scheme, host) = (url.scheme(), url.host_str().unwrap_or_default());
            return Err(invalid(&format!("has the scheme {scheme} for {host}, and a proxy has http or https")));
        }
        Ok(Way::Proxy(Route { url, variable: setting.variable }))
    }

    /// The proxies for a client.
    pub(super) fn interceptor(config: &Arc<Config>) -> reqwest::Proxy {
        let config = Arc::clone(config);
        reqwest::Proxy::custom(move |url| {
            let site = url.as_str().parse().ok()?;
            Some(config.proxies.route(&site).ok()??.url)
        })
    }

    fn exclusion(&self, host: &str, port: u16) -> Option<DirectReason> {
        let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
        if host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
            return Some(DirectReason::Loopback);
        }
        let entries = self.no_proxy.as_deref().unwrap_or_default().split(',').map(|entry| entry.trim().to_lowercase());
        let mut entries = entries.filter(|entry| !entry.is_empty());
        entries.find(|entry| excludes(entry, host, ip, port)).map(DirectReason::Excluded)
    }
}

/// Parses the address of a proxy, `host:port` too.
fn parsed(text: &str) -> Option<Url> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    Url::parse(&with_scheme).ok().filter(Url::has_host)
}

/// Whether an entry of NO_PROXY, in lower case, is about a host and port.
fn excludes(entry: &str, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some(network) = Network::parse(entry) {
        return ip.is_some_and(|ip| network.contains(ip));
    }
    let (name, wanted_port) = split_port(entry).unwrap_or((entry, ""));
    let is_port = wanted_port.is_empty() || wanted_port == port.to_string();
    if let Ok(excluded) = name.parse::<IpAddr>() {
        return ip == Some(excluded.to_canonical()) && is_port;
    }
    if name.is_empty() || ip.is_some() {
        return false;
    }
    let name = name.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(name);
    let (domain, takes_itself) = name.strip_prefix('.').map_or((name, true), |domain| (domain, false));
    let domain = ascii(domain);
    let below = host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.ends_with('.'));
    is_port && (below || takes_itself && host == domain)
}

/// A domain as it is looked up.
fn ascii(domain: &str) -> String {
    let url = (!domain.is_ascii()).then(|| Url::parse(&format!("http://{domain}")).ok()).flatten();
    url.as_ref().and_then(Url::host_str).unwrap_or(domain).to_owned()
}

/// Splits `host:port` and `[host]:port`.
fn split_port(entry: &str) -> Option<(&str, &str)> {
    let (before, port) = entry.rsplit_once(':')?;
    let host = match before.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|host| !host.contains(']'))?,
        None if before.contains(':') => return None,
        None => before,
    };
    let has_bracket = |text: &str| text.contains(['[', ']']);
    (!has_bracket(host) && !has_bracket(port)).then_some((host, port))
}

/// A range of addresses.
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let is_number = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits: u32 = is_number.then(|| bits.parse().ok()).flatten()?;
        match address.parse().ok()? {
            IpAddr::V4(_) if bits > 32 => None,
            IpAddr::V6(_) if bits > 128 => None,
            IpAddr::V6(address) => Some(match address.to_ipv4_mapped() {
                Some(mapped) if bits >= 96 => Self { address: mapped.into(), bits: bits - 96 },
                Some(_) | None => Self { address: address.into(), bits },
            }),
            address @ IpAddr::V4(_) => Some(Self { address, bits }),
        }
    }

    fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(own), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - self.bits).unwrap_or(0);
                Ipv4Addr::to_bits(own) & mask == Ipv4Addr::to_bits(ip) & mask
            }
            (IpAddr::V6(own), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - self.bits).unwrap_or(0);
                Ipv6Addr::to_bits(own) & mask == Ipv6Addr::to_bits(ip) & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl fmt::Display for Route {
    /// `http://proxy.example.com:3128 of HTTPS_PROXY`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port_or_known_default().unwrap_or_default();
        write!(formatter, "{}://{host}:{port} of {}", self.url.scheme(), self.variable)
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Route {
    /// The host and the port of the proxy.
    pub(super) fn host_and_port(&self) -> (String, u16) {
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        (host, self.url.port_or_known_default().unwrap_or_default())
    }

    /// Blames the proxy for a failure that is its own, and names it in any other.
    pub(super) async fn blamed(&self, site: &Site, failure: CallFailure, within: Duration) -> CallFailure {
        let refused = |status, source| CallFailure {
            kind: ErrorKind::ProxyRefused,
            status,
            source,
            detail: Some(format!("the proxy {self} does not connect to {}", site.url.authority())),
            ..CallFailure::new(ErrorKind::ProxyRefused)
        };
        let asks_for_password = || match self.url.username() {
            "" => format!("the proxy {self} requires a user name and password"),
            _ => format!("the proxy {self} does not accept the user name and password in its URL"),
        };
        let unreachable = |failure| CallFailure {
            kind: ErrorKind::ProxyUnreachable,
            detail: Some(format!("cannot connect to the proxy {self}")),
            ..failure
        };
        match (failure.kind, tunnel_problem(&failure).as_deref()) {
            (ErrorKind::ProxyAuthentication, _) => CallFailure { detail: Some(asks_for_password()), ..failure },
            (_, Some("proxy authorization required")) => CallFailure {
                status: Some(407),
                ..CallFailure::new(ErrorKind::ProxyAuthentication).with_detail(asks_for_password())
            },
            (_, Some("unsuccessful")) => refused(self.refusal(site, within).await, None),
            (_, Some("failed to create underlying connection")) => unreachable(failure),
            (_, Some(_)) => refused(None, failure.source),
            (ErrorKind::Connect | ErrorKind::ConnectTimeout | ErrorKind::NameLookup, None) if !site.url.is_https() => {
                unreachable(failure)
            }
            (kind, None) if kind.may_be_of_proxy() => {
                let detail = failure.detail.as_ref().map(|detail| format!("{detail}, ")).unwrap_or_default();
                CallFailure { detail: Some(format!("{detail}by way of the proxy {self}")), ..failure }
            }
            (_, None) => failure,
        }
    }

    /// The status with which the proxy refuses a tunnel: the library that asks for one does not keep it. Nothing is sent through
    /// a tunnel if the proxy opens it now.
    async fn refusal(&self, site: &Site, within: Duration) -> Option<u16> {
        let tls = TlsProfile::Plain.config(&SystemRoots::default()).ok()?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .retry(reqwest::retry::never())
            .redirect(reqwest::redirect::Policy::none())
            .http1_only()
            .no_proxy()
            .proxy(reqwest::Proxy::all(self.url.clone()).ok()?)
            .timeout(within)
            .build()
            .ok()?;
        let host = Url::parse(site.url.as_str()).ok()?.host_str()?.to_owned();
        let request = client.request(Method::CONNECT, format!("http://{host}:{}", site.url.port()));
        let status = request.send().await.ok()?.status();
        (!status.is_success()).then_some(status.as_u16())
    }
}

/// What went wrong with the tunnel through a proxy, by the library's words.
fn tunnel_problem(failure: &CallFailure) -> Option<String> {
    let mut cause: Option<&(dyn StdError + 'static)> = failure.source.as_deref().map(|cause| cause as _);
    while let Some(error) = cause {
        if let Some(problem) = error.to_string().strip_prefix("tunnel error: ") {
            return Some(problem.to_owned());
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::ProxySetting;
    use super::*;

    fn proxies(no_proxy: &str) -> Proxies {
        let setting = |variable| Some(ProxySetting { url: "proxy.example.com:3128".to_owned(), variable });
        let no_proxy = Some(no_proxy.to_owned());
        Proxies { https: setting("HTTPS_PROXY"), http: setting("HTTP_PROXY"), no_proxy, is_cgi: false }
    }

    fn is_direct(proxies: &Proxies, url: &str) -> bool {
        proxies.route(&url.parse().unwrap()).unwrap().is_none()
    }

    /// Addresses that no entry of the table excludes by itself, with the port 443 unless they have another one.
    const HOSTS: &str = "example.com example.com:8443 example.com:80 www.example.com foo.bar.example.com notexample.com \
         192.168.1.1 192.168.1.1:8443 192.168.2.1 10.1.2.3 172.16.5.4 foo.localhost [fd00::1] [fd00::1]:8443 [fe80::1] \
         [::ffff:192.168.1.1] 0.0.0.0 example.com. bücher.example";

    const EXAMPLE: &str = "example.com example.com:8443 example.com:80 www.example.com foo.bar.example.com";
    const BELOW: &str = "www.example.com foo.bar.example.com";
    const ADDRESS: &str = "192.168.1.1 192.168.1.1:8443 [::ffff:192.168.1.1]";
    const V4: &str = "192.168.1.1 192.168.1.1:8443 192.168.2.1 10.1.2.3 172.16.5.4 [::ffff:192.168.1.1] 0.0.0.0";

    #[test]
    fn the_way_is_the_one_that_gos_library_takes() {
        // Each line was compared with the answers of `http.ProxyFromEnvironment` of Go 1.26.
        let table = [
            ("*", HOSTS),
            (" * ", HOSTS),
            ("a,*,b", HOSTS),
            ("", ""),
            (",, ,", ""),
            ("example.com", EXAMPLE),
            ("EXAMPLE.COM", EXAMPLE),
            ("example.com:", EXAMPLE),
            (".example.com", BELOW),
            ("*.example.com", BELOW),
            ("*.example.com:443", BELOW),
            ("[.example.com]:443", BELOW),
            ("example.com:443", "example.com www.example.com foo.bar.example.com"),
            ("example.com:8443", "example.com:8443"),
            ("example.com:https", ""),
            (".example.com:8443", ""),
            ("foo.bar.example.com", "foo.bar.example.com"),
            ("bar.example.com", "foo.bar.example.com"),
            ("com", "example.com example.com:8443 example.com:80 www.example.com foo.bar.example.com notexample.com"),
            (
                " example.com , 10.1.2.3 ",
                "example.com example.com:8443 example.com:80 www.example.com foo.bar.example.com 10.1.2.3",
            ),
            ("example.com.", "example.com."),
            (".", "example.com."),
            ("*.", "example.com."),
            ("bücher.example", "bücher.example"),
            ("localhost", "foo.localhost"),
            ("192.168.1.1", ADDRESS),
            ("192.168.1.1:", ADDRESS),
            ("192.168.1.1:443", "192.168.1.1 [::ffff:192.168.1.1]"),
            ("[192.168.1.1]:443", "192.168.1.1 [::ffff:192.168.1.1]"),
            ("::ffff:192.168.1.1", ADDRESS),
            ("192.168.1.0/24", ADDRESS),
            ("192.168.1.1/24", ADDRESS),
            ("192.168.1.0/024", ADDRESS),
            ("::ffff:192.168.1.0/120", ADDRESS),
            ("::ffff:c0a8:101/128", ADDRESS),
            ("10.0.0.0/8,172.16.0.0/12", "10.1.2.3 172.16.5.4"),
            ("0.0.0.0/0", V4),
            ("0.0.0.0", "0.0.0.0"),
            ("::/0", "[fd00::1] [fd00::1]:8443 [fe80::1]"),
            ("fd00::1", "[fd00::1] [fd00::1]:8443"),
            ("fd00::/8", "[fd00::1] [fd00::1]:8443"),
            ("[fd00::1]:443", "[fd00::1]"),
            ("[fd00::1]:8443", "[fd00::1]:8443"),
            // Go takes brackets only before a port.
            ("[fd00::1]", ""),
            ("[192.168.1.1]", ""),
            ("fd00::1%eth0", ""),
            ("[fd00::1", ""),
            ("[]:443", ""),
            ("[]", ""),
            ("::", ""),
            (":443", ""),
            ("*:443", ""),
            ("*example.com", ""),
            ("ex*mple.com", ""),
            ("*.*.example.com", ""),
            ("..example.com", ""),
            ("example.com example.org", ""),
            ("http://example.com", ""),
            ("192.168.1.0/33", ""),
            ("192.168.1.0/+24", ""),
            ("192.168.001.1", ""),
            ("192.168.1", ""),
            ("192.168.1.", ""),
            ("192.168.1.*", ""),
            ("192.168.1.1.", ""),
        ];
        for (no_proxy, direct) in table {
            let proxies = proxies(no_proxy);
            let is_listed = |host: &&str| direct.split_whitespace().any(|listed| listed == *host);
            for host in HOSTS.split_whitespace() {
                assert_eq!(is_direct(&proxies, &format!("https://{host}")), is_listed(&host), "{no_proxy:?} {host}");
            }
            for host in ["localhost", "localhost:8443", "127.0.0.1", "127.8.8.8:1", "[::1]:2", "[::ffff:127.0.0.1]"] {
                assert!(is_direct(&proxies, &format!("https://{host}")), "{no_proxy:?} {host}");
                assert!(is_direct(&proxies, &format!("http://{host}")), "{no_proxy:?} {host}");
            }
        }
    }

    #[test]
    fn the_ports_of_both_schemes_have_defaults() {
        assert!(is_direct(&proxies("example.com:80"), "http://example.com"));
        assert!(!is_direct(&proxies("example.com:443"), "http://example.com"));
    }

    #[test]
    fn in_a_cgi_program_only_https_has_a_proxy() {
        let cgi = Proxies { is_cgi: true, ..proxies("") };
        assert!(is_direct(&cgi, "http://example.com") && !is_direct(&cgi, "https://example.com"));
    }

    #[test]
    fn a_proxy_needs_no_scheme_and_is_shown_without_its_password() {
        let shown = |url: &str| {
            let https = Some(ProxySetting { url: url.to_owned(), variable: "https_proxy" });
            let route = Proxies { https, ..Proxies::default() }.route(&"https://x".parse().unwrap());
            route.map(|route| format!("{route:?}")).map_err(|failure| failure.detail.unwrap())
        };
        let some = |text: &str| Ok(format!("Some({text} of https_proxy)"));
        assert_eq!(shown("proxy:3128"), some("http://proxy:3128"));
        assert_eq!(shown("me:secret@proxy:3128"), some("http://proxy:3128"));
        assert_eq!(shown("https://me:secret@proxy/"), some("https://proxy:443"));
        for (url, problem) in [
            (
                "htp://me:secret@proxy",
                "the proxy in https_proxy has the scheme htp for proxy, and a proxy has http or https",
            ),
            (
                "socks5://me:secret@proxy",
                "the proxy in https_proxy has the scheme socks5 for proxy, and a proxy has http or https",
            ),
            ("http://me:secret@[bad", "the proxy in https_proxy is not a URL"),
        ] {
            assert_eq!(shown(url), Err(problem.to_owned()));
        }
    }
}

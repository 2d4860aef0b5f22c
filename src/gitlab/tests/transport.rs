//! Connections: their number and their failures.

use std::error::Error as _;

use tokio::net::{TcpListener, TcpSocket};

use super::*;

const ACCEPTED: &str = r#"{"id":42,"token":"glrt-runner-secret"}"#;

#[tokio::test]
async fn only_verifications_reuse_a_connection() {
    let server = ScriptedServer::start(vec![Reply::json(200, ACCEPTED); 5]).await;
    let client = client();
    for _ in 0..3 {
        call(&client, &server.site(), Endpoint::Verify).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
    for _ in 0..2 {
        call(&client, &server.site(), Endpoint::Reset).await.unwrap();
    }
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn a_closed_idle_connection_repeats_no_request() {
    let Reply::Keep(bytes) = Reply::json(200, ACCEPTED) else { unreachable!() };
    let server = ScriptedServer::start(vec![Reply::Close(bytes); 10]).await;
    let client = client();
    for sent in 1..=5 {
        call(&client, &server.site(), Endpoint::Verify).await.unwrap();
        assert_eq!(server.requests().len(), 2 * sent - 1);
        call(&client, &server.site(), Endpoint::Reset).await.unwrap();
        assert_eq!(server.requests().len(), 2 * sent);
    }
}

#[tokio::test]
async fn a_cut_answer_repeats_no_request() {
    for &endpoint in Endpoint::ALL {
        let warm_up = if endpoint == Endpoint::Verify { Some(Reply::json(200, ACCEPTED)) } else { None };
        let server = ScriptedServer::start(warm_up.iter().cloned().chain([Reply::Close(Vec::new())])).await;
        let client = client();
        if warm_up.is_some() {
            call(&client, &server.site(), endpoint).await.unwrap();
        }
        let error = call(&client, &server.site(), endpoint).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionLost);
        assert_eq!(server.requests().len(), 1 + usize::from(warm_up.is_some()));
    }
}

#[tokio::test]
async fn a_new_token_that_arrived_whole_before_a_cut_is_read() {
    let cut = |body: &str| {
        let Reply::Keep(bytes) = Reply::json(201, ACCEPTED) else { unreachable!() };
        let whole = String::from_utf8(bytes).unwrap();
        Reply::Close(whole.replace(ACCEPTED, body).into_bytes())
    };
    for (body, is_whole) in [(&ACCEPTED[..ACCEPTED.len() - 1], true), (&ACCEPTED[..ACCEPTED.len() - 3], false)] {
        let server = ScriptedServer::start(vec![cut(body); 2]).await;
        let (client, token) = (client(), Token::parse("old").unwrap());
        let system_id = "s_0123456789ab".parse().unwrap();
        match client.reset(&server.site(), &token, &system_id).await {
            Ok(answer) => {
                assert!(is_whole && matches!(answer.value.shape, Shape::Odd(_)));
                assert_eq!(answer.value.token.expose(), "glrt-runner-secret");
            }
            Err(error) => assert!(!is_whole && error.kind() == ErrorKind::ConnectionLost, "{error:?}"),
        }
        // A verification has to be whole: its token is no news.
        let error = call(&client, &server.site(), Endpoint::Verify).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionLost);
    }
}

#[tokio::test]
async fn a_refused_connection_executed_nothing() {
    // Bound without listening, so no other process can take the port.
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let free = deaf.local_addr().unwrap();
    let error = call(&client(), &site(&format!("http://{free}")), Endpoint::Reset).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(!error.may_have_reached_rails());
    assert_eq!(error.disposition(), Disposition::NotExecuted { retry_after: None });
    assert_eq!(error.class(), ErrorClass::Unreachable);
    assert_eq!(error.to_string(), format!("cannot rotate the runner's token at {free}: cannot connect"));
    assert!(error.source().unwrap().to_string().contains("refused"));
}

#[tokio::test]
async fn an_ipv6_literal_is_a_valid_host() {
    let deaf = TcpSocket::new_v6().unwrap();
    let Ok(()) = deaf.bind("[::1]:0".parse().unwrap()) else { return };
    let free = deaf.local_addr().unwrap();
    let error = call(&client(), &site(&format!("http://{free}/")), Endpoint::Verify).await.unwrap_err();
    assert_eq!((error.kind(), error.host()), (ErrorKind::Connect, free.to_string().as_str()));
}

#[tokio::test]
async fn an_unknown_name_executed_nothing() {
    let patient = Client::new(Config::default());
    let error = call(&patient, &site("http://gitlab.invalid"), Endpoint::Reset).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NameLookup, "{error:?}");
    assert!(!error.may_have_reached_rails());
    assert_eq!(error.disposition(), Disposition::NotExecuted { retry_after: None });
}

#[tokio::test]
async fn a_handshake_timeout_executed_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(Config { connect_timeout: Duration::from_millis(100), ..Config::default() });
    let site = site(&format!("https://{}", listener.local_addr().unwrap()));
    let error = call(&client, &site, Endpoint::Reset).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectTimeout, "{error:?}");
    assert!(!error.may_have_reached_rails());
    assert_eq!(error.disposition(), Disposition::NotExecuted { retry_after: None });
}

#[tokio::test]
async fn silence_after_sending_is_a_timeout() {
    let error = failure(Endpoint::Reset, Reply::Silence).await;
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains(error.request_id()), "{error}");
}

#[tokio::test]
async fn requests_to_one_host_wait_for_a_free_slot() {
    let server = ScriptedServer::start(vec![Reply::Silence; 4]).await;
    let client = Client::new(Config {
        in_flight_per_host: Some(2),
        request_timeout: Duration::from_millis(300),
        ..Config::default()
    });
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let (client, site) = (client.clone(), server.site());
            tokio::spawn(async move { call(&client, &site, Endpoint::Verify).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(server.requests().len(), 2);
    for call in calls {
        call.await.unwrap().unwrap_err();
    }
    assert_eq!(server.requests().len(), 4);
}

fn setting(url: &str, variable: &'static str) -> Option<ProxySetting> {
    Some(ProxySetting { url: url.to_owned(), variable })
}

#[tokio::test]
async fn a_proxy_is_used_and_its_password_is_not_shown() {
    let proxy = ScriptedServer::start([Reply::html(407), Reply::html(502)]).await;
    let proxies = |no_proxy: &str| Proxies {
        http: setting(&format!("http://user:proxy-secret@{}", proxy.authority), "HTTP_PROXY"),
        no_proxy: Some(no_proxy.to_owned()),
        ..Proxies::default()
    };
    let through = Client::new(Config { proxies: proxies("other.example.com"), ..Config::default() });
    let error = call(&through, &site("http://gitlab.invalid"), Endpoint::Reset).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ProxyAuthentication);
    assert!(!error.may_have_reached_rails());
    assert_eq!(error.disposition(), Disposition::NotExecuted { retry_after: None });
    let error = call(&through, &site("http://gitlab.invalid"), Endpoint::Reset).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Unknown { retry_after: None });
    assert_eq!(proxy.requests()[0].line, "POST http://gitlab.invalid/api/v4/runners/reset_authentication_token");
    let config = Config { proxies: proxies("gitlab.invalid"), ..Config::default() };
    assert!(!format!("{error:?} {config:?}").contains("proxy-secret"));
    let error = call(&Client::new(config), &site("http://gitlab.invalid"), Endpoint::Reset).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NameLookup);
}

#[tokio::test]
async fn a_failed_proxy_tunnel_executed_nothing() {
    // The second one is asked again for its status.
    let replies = [Reply::html(407), Reply::html(502), Reply::html(502), Reply::Close(Vec::new())];
    let proxy = ScriptedServer::start(replies).await;
    let https = setting(&format!("http://user:proxy-secret@{}", proxy.authority), "HTTPS_PROXY");
    let client = Client::new(Config { proxies: Proxies { https, ..Proxies::default() }, ..Config::default() });
    let (authentication, refused) = (ErrorKind::ProxyAuthentication, ErrorKind::ProxyRefused);
    for (kind, status) in [(authentication, Some(407)), (refused, Some(502)), (refused, None)] {
        let error = call(&client, &site("https://gitlab.invalid"), Endpoint::Reset).await.unwrap_err();
        assert_eq!((error.kind(), error.status()), (kind, status), "{error:?}");
        assert_eq!(error.disposition(), Disposition::NotExecuted { retry_after: None }, "{error:?}");
        assert!(!format!("{error:?}").contains("proxy-secret"));
    }
    assert_eq!(proxy.requests()[0].line, "CONNECT gitlab.invalid:443");
}

#[tokio::test]
async fn an_invalid_proxy_url_is_a_local_error() {
    let https = setting("http://user:proxy-secret@[bad", "HTTPS_PROXY");
    let client = Client::new(Config { proxies: Proxies { https, ..Proxies::default() }, ..Config::default() });
    let error = call(&client, &site("https://gitlab.invalid"), Endpoint::Verify).await.unwrap_err();
    assert_eq!((error.kind(), error.class()), (ErrorKind::ProxySetting, ErrorClass::Local));
    assert!(!format!("{error} {error:?}").contains("proxy-secret"));
}

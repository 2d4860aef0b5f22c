//! Every documented answer keeps its meaning, and no other answer has one.

use std::time::Duration;

use super::super::fuzzing::{RawAnswer, read_deleted, read_probe, read_registered, read_reset, read_verify};
use super::super::{Answer, Disposition, Endpoint, Error, Reason, Shape};
use crate::secret::Token;
use Disposition::{Gone, MustAct, Refused, RotationClosed, Unsupported};
use Endpoint::{
    Assign, Create, DeleteById, DeleteManager, DeleteRunner, DeleteV1, ListAll, ListManagers, ListOfProject, Probe,
    Register, RegisterV1, Reset, ResetById, Show, Unassign, Update, Verify,
};

const JSON: &str = "application/json";
const META: (&str, &str) = ("x-gitlab-meta", r#"{"correlation_id":"01JXYZ","version":"1"}"#);
const NOT_EXECUTED: Disposition = Disposition::NotExecuted { retry_after: None };
const UNKNOWN: Disposition = Disposition::Unknown { retry_after: None };

/// What a call made of an answer.
enum Read {
    /// It took a token from it.
    Token(Shape),
    /// It took it for a success without a token.
    Accepted,
    Failed(Error),
}

fn sent() -> Token {
    Token::parse("glrt-sent").unwrap()
}

/// Reads an answer as the client does.
fn read(endpoint: Endpoint, answer: &RawAnswer) -> Read {
    fn read<T>(read: Result<Answer<T>, Error>, accepted: impl Fn(T) -> Read) -> Read {
        read.map_or_else(Read::Failed, |answer| accepted(answer.value))
    }
    match endpoint {
        Verify => read(read_verify(answer, &sent()), |_| Read::Accepted),
        Probe => read(read_probe(answer), |()| Read::Accepted),
        Reset | ResetById => read(read_reset(endpoint, answer, &sent()), |reset| Read::Token(reset.shape)),
        Register | RegisterV1 | Create => {
            read(read_registered(endpoint, answer, &sent()), |registered| Read::Token(registered.shape))
        }
        // Error answers are read in the same way for all other calls.
        _ => read(read_deleted(endpoint, answer, &sent()), |()| Read::Accepted),
    }
}

fn raw(status: u16, content_type: &str, body: &str, more: &[(&'static str, &str)]) -> RawAnswer {
    let mut headers = vec![("content-type", content_type.to_owned())];
    headers.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    RawAnswer { status, headers, body: body.as_bytes().to_vec() }
}

fn error(endpoint: Endpoint, status: u16, body: &str, more: &[(&'static str, &str)]) -> Error {
    match read(endpoint, &raw(status, JSON, body, more)) {
        Read::Failed(error) => error,
        Read::Token(_) | Read::Accepted => panic!("{endpoint} {status} {body} is no error"),
    }
}

const BY_RUNNER: &[Endpoint] = &[Verify, DeleteRunner, DeleteManager, Reset];
const BY_ACCESS: &[Endpoint] =
    &[ResetById, ListAll, ListOfProject, Show, Update, DeleteById, ListManagers, Assign, Unassign, Create];
const ABOUT_ONE: &[Endpoint] = &[ResetById, ListOfProject, Show, Update, DeleteById, ListManagers, Assign, Unassign];
const LIFECYCLE: &[Endpoint] = &[Register, Verify, DeleteRunner, DeleteManager, Reset, ResetById, Create];

/// The documented error answers: calls, status, body, and what they mean.
#[rustfmt::skip]
const GENUINE: &[(&[Endpoint], u16, &str, Disposition)] = &[
    (LIFECYCLE, 400, r#"{"error":"token is missing"}"#, MustAct(Reason::Parameters)),
    (LIFECYCLE, 400, r#"{"error":"token is missing, system_id is missing"}"#, MustAct(Reason::Parameters)),
    (&[Register], 400, r#"{"error":"paused, active are mutually exclusive"}"#, MustAct(Reason::Parameters)),
    (&[Update], 400, r#"{"error":"description, paused are missing, at least one parameter must be provided"}"#, MustAct(Reason::Parameters)),
    (&[Create], 400, r#"{"error":"runner_type is missing, runner_type does not have a valid value"}"#, MustAct(Reason::Parameters)),
    (&[Register], 400, r#"{"message":{"tags_list":["can not be empty when runner is not allowed to pick untagged jobs"]}}"#, MustAct(Reason::Parameters)),
    (&[Register], 400, r#"{"message":{"maximum_timeout":["needs to be at least 10 minutes"]}}"#, MustAct(Reason::Parameters)),
    (&[Register], 400, r#"{"message":{"runner_projects.base":["Maximum number of ci registered project runners (1) exceeded"]}}"#, MustAct(Reason::Parameters)),
    (&[Create, Assign], 400, r#"{"message":"400 Bad request - Missing/invalid group"}"#, MustAct(Reason::Parameters)),
    (&[Register, Verify, DeleteRunner, DeleteManager, Reset, RegisterV1, DeleteV1], 400, r#"{"message":"400 (Bad request) \"token\" not given"}"#, MustAct(Reason::Parameters)),
    (&[Register, RegisterV1], 403, r#"{"message":"403 Forbidden"}"#, MustAct(Reason::RegistrationRefused)),
    (&[Register], 403, r#"{"message":"403 Forbidden - invalid token supplied"}"#, MustAct(Reason::RegistrationRefused)),
    (&[Register], 410, r#"{"message":"410 Gone - runner registration disallowed"}"#, MustAct(Reason::RegistrationDisabled)),
    (&[RegisterV1], 404, r#"{"message":"404 Not Found"}"#, MustAct(Reason::Parameters)),
    (BY_RUNNER, 403, r#"{"message":"403 Forbidden"}"#, Refused),
    (&[DeleteV1], 403, r#"{"message":"403 Forbidden"}"#, Refused),
    (BY_RUNNER, 403, r#"{"message":"403 Forbidden - Runner is orphaned"}"#, MustAct(Reason::Orphaned)),
    (BY_RUNNER, 422, r#"{"message":"Runner is orphaned"}"#, MustAct(Reason::Orphaned)),
    (&[DeleteManager], 404, r#"{"message":"404 Runner manager not found Not Found"}"#, Gone),
    (&[DeleteManager], 404, r#"{"message":"404 Not found"}"#, Gone),
    (&[DeleteManager], 401, r#"{"message":"401 Unauthorized"}"#, Unsupported),
    (&[Reset, ResetById, DeleteManager, Create, ListManagers], 404, r#"{"error":"404 Not Found"}"#, Unsupported),
    (&[Reset, ResetById, DeleteManager, Create], 405, r#"{"error":"405 Not Allowed"}"#, Unsupported),
    (&[Reset, ResetById], 403, r#"{"error":"Token rotation deadline has passed"}"#, RotationClosed),
    (&[Reset, ResetById], 403, r#"{"message":"403 Forbidden - Token rotation deadline has passed"}"#, RotationClosed),
    (&[Reset, ResetById], 422, r#"{"error":"Runner must be assigned to at least one project"}"#, MustAct(Reason::Unassigned)),
    (BY_ACCESS, 401, r#"{"message":"401 Unauthorized"}"#, MustAct(Reason::AccessToken)),
    (BY_ACCESS, 401, r#"{"error":"invalid_token","error_description":"Token was revoked. You have to re-authorize from the user."}"#, MustAct(Reason::AccessToken)),
    (BY_ACCESS, 403, r#"{"error":"insufficient_scope","error_description":"x","scope":"api"}"#, MustAct(Reason::AccessTokenRights)),
    (BY_ACCESS, 403, r#"{"error":"insufficient_granular_scope"}"#, MustAct(Reason::AccessTokenRights)),
    (BY_ACCESS, 403, r#"{"message":"403 Forbidden"}"#, MustAct(Reason::AccessTokenRights)),
    (BY_ACCESS, 403, r#"{"message":"403 Forbidden - No access granted"}"#, MustAct(Reason::AccessTokenRights)),
    (&[Create], 403, r#"{"message":"403 Forbidden - Insufficient permissions"}"#, MustAct(Reason::AccessTokenRights)),
    (&[Assign, Unassign], 403, r#"{"message":"403 Forbidden - Runner is locked"}"#, MustAct(Reason::Parameters)),
    (&[DeleteById], 403, r#"{"message":"403 Forbidden - Runner associated with more than one project"}"#, MustAct(Reason::Parameters)),
    (ABOUT_ONE, 404, r#"{"message":"404 Not found"}"#, Gone),
    (ABOUT_ONE, 404, r#"{"message":"404 Not Found"}"#, Gone),
    (ABOUT_ONE, 404, r#"{"message":"404 Runner Not Found"}"#, Gone),
    (&[ListOfProject, Assign, Unassign], 404, r#"{"message":"404 Project Not Found"}"#, Gone),
    (LIFECYCLE, 403, r#"{"message":"You cannot perform write operations on a read-only instance"}"#, NOT_EXECUTED),
    (LIFECYCLE, 409, r#"{"message":"409 Conflict: Resource lock"}"#, NOT_EXECUTED),
    (LIFECYCLE, 412, r#"{"message":"412 Precondition Failed"}"#, NOT_EXECUTED),
    (LIFECYCLE, 429, r#"{"message":"Executing database migrations. Please retry later."}"#, NOT_EXECUTED),
    (LIFECYCLE, 500, r#"{"message":"500 Internal Server Error"}"#, UNKNOWN),
];

#[test]
fn every_documented_answer_has_its_meaning() {
    for (calls, status, body, disposition) in GENUINE {
        for &endpoint in *calls {
            for headers in [&[][..], &[META], &[("x-gitlab-meta", "no JSON")]] {
                let error = error(endpoint, *status, body, headers);
                assert_eq!(error.disposition(), *disposition, "{endpoint} {error}");
                assert_eq!(error.disposition_if_proven(), *disposition, "{endpoint} {error}");
                assert!(error.is_understood() && error.unproven().is_none(), "{endpoint} {error}");
                assert!(error.may_have_reached_rails(), "{endpoint} {error}");
            }
        }
    }
}

#[test]
fn a_documented_answer_to_another_call_has_none() {
    for (calls, status, body) in [
        (&[Register, ResetById, Create][..], 422, r#"{"message":"Runner is orphaned"}"#),
        (&[Register, Verify, DeleteRunner, Create], 403, r#"{"error":"Token rotation deadline has passed"}"#),
        (&[Register, Verify, DeleteRunner, Reset], 401, r#"{"message":"401 Unauthorized"}"#),
        (&[Register, Verify, DeleteRunner, DeleteManager, Reset], 403, r#"{"error":"insufficient_scope"}"#),
        (&[Register, Verify, DeleteRunner, Reset, Create], 404, r#"{"message":"404 Not found"}"#),
        (&[Register, Verify, DeleteRunner], 405, r#"{"error":"405 Not Allowed"}"#),
        (&[Verify, DeleteRunner, Reset, ResetById], 410, r#"{"message":"410 Gone - runner registration disallowed"}"#),
        (&[Verify, Reset, DeleteRunner], 400, r#"{"message":{"maximum_timeout":["is odd"]}}"#),
    ] {
        for &endpoint in calls {
            let error = error(endpoint, status, body, &[]);
            assert_eq!(error.disposition(), NOT_EXECUTED, "{endpoint} {error}");
            assert!(!error.is_understood() && error.unproven().is_none(), "{endpoint} {error}");
        }
    }
}

/// Answers with the status and shape of a documented one and another text, and what they mean if they are GitLab's.
#[rustfmt::skip]
const NOVEL: &[(Endpoint, u16, &str, Disposition)] = &[
    (Verify, 403, r#"{"message":"403 Forbidden - Runner token was retired"}"#, Refused),
    (Verify, 403, r#"{"message":"403 Verboten"}"#, Refused),
    (Verify, 400, r#"{"error":"system_id looks odd"}"#, MustAct(Reason::Parameters)),
    (Verify, 422, r#"{"message":"The runner has no owner"}"#, MustAct(Reason::Orphaned)),
    (Reset, 403, r#"{"message":"403 Verboten"}"#, Refused),
    (Reset, 422, r#"{"error":"The runner has no project"}"#, MustAct(Reason::Unassigned)),
    (DeleteRunner, 403, r#"{"message":"403 Verboten"}"#, Refused),
    (DeleteManager, 403, r#"{"message":"403 Verboten"}"#, Refused),
    (Register, 403, r#"{"message":"403 Forbidden - runners of this type are not allowed"}"#, MustAct(Reason::RegistrationRefused)),
    (Register, 410, r#"{"message":"410 Gone - use another call"}"#, MustAct(Reason::RegistrationDisabled)),
    (Register, 400, r#"{"message":{"novel":["is odd"]}}"#, MustAct(Reason::Parameters)),
    (Create, 400, r#"{"message":"400 Ungültig"}"#, MustAct(Reason::Parameters)),
    (Create, 403, r#"{"message":"403 Verboten"}"#, MustAct(Reason::AccessTokenRights)),
    (ResetById, 401, r#"{"message":"401 Unbekannt"}"#, MustAct(Reason::AccessToken)),
    (ResetById, 404, r#"{"message":"404 Kein Runner"}"#, Gone),
    (DeleteById, 404, r#"{"message":"404 Kein Runner"}"#, Gone),
];

#[test]
fn an_unknown_text_counts_only_from_gitlab() {
    for (endpoint, status, body, disposition) in NOVEL {
        let bare = error(*endpoint, *status, body, &[("x-request-id", "1f")]);
        assert_eq!(bare.disposition(), NOT_EXECUTED, "{bare}");
        assert_eq!(bare.disposition_if_proven(), *disposition, "{bare}");
        assert!(!bare.is_understood() && !bare.may_have_reached_rails(), "{bare}");
        let text = bare.unproven().unwrap();
        assert_eq!((text.status, bare.server_message()), (*status, Some(text.text.as_str())));
        let proven = bare.into_proven();
        assert_eq!(proven.disposition(), *disposition, "{proven}");
        assert!(proven.is_understood() && proven.unproven().is_none(), "{proven}");
        let genuine = error(*endpoint, *status, body, &[META]);
        assert_eq!(genuine.disposition(), *disposition, "{genuine}");
        assert!(genuine.is_understood() && genuine.unproven().is_none(), "{genuine}");
    }
}

#[test]
fn only_the_exact_text_closes_a_rotation_or_a_call() {
    for (endpoint, status, body) in [
        (Reset, 403, r#"{"error":"Token rotation is not allowed here"}"#),
        (Reset, 404, r#"{"error":"404 Not Here"}"#),
        (Reset, 404, r#"{"message":"404 Not Found"}"#),
        (Reset, 405, r#"{"error":"405 Nope"}"#),
        (Reset, 410, r#"{"message":"410 Gone"}"#),
        (Reset, 501, r#"{"message":"501 Not Implemented"}"#),
        (DeleteManager, 404, r#"{"message":"404 No such manager"}"#),
        (DeleteManager, 404, r#"{"message":"404 Runner Not Found"}"#),
        (DeleteManager, 401, r#"{"message":"401 Who are you"}"#),
        (DeleteRunner, 404, r#"{"message":"404 Not found"}"#),
        (Verify, 404, r#"{"message":"404 Not found"}"#),
        (Verify, 404, r#"{"error":"404 Not Found"}"#),
        (Register, 404, r#"{"error":"404 Not Found"}"#),
    ] {
        for headers in [&[][..], &[META]] {
            let error = error(endpoint, status, body, headers);
            let expected = if status < 500 { NOT_EXECUTED } else { UNKNOWN };
            assert_eq!((error.disposition(), error.disposition_if_proven()), (expected, expected), "{error}");
        }
    }
}

#[test]
fn maintenance_needs_retry_after_and_gitlabs_header_or_text() {
    let after = ("retry-after", "900");
    let waits = Disposition::NotExecuted { retry_after: Some(Duration::from_secs(900)) };
    let may_wait = Disposition::Unknown { retry_after: Some(Duration::from_secs(900)) };
    let (default, own) = (r#"{"message":"GitLab is undergoing maintenance"}"#, r#"{"message":"Back at noon"}"#);
    for (body, headers, expected) in [
        (default, &[after][..], waits),
        (own, &[after, META], waits),
        (default, &[], UNKNOWN),
        (own, &[META], UNKNOWN),
        (own, &[after], may_wait),
        (r#"{"message":"Service Unavailable"}"#, &[after, META], may_wait),
        (r#"{"error":"GitLab is undergoing maintenance"}"#, &[after], may_wait),
    ] {
        for &endpoint in LIFECYCLE {
            assert_eq!(error(endpoint, 503, body, headers).disposition(), expected, "{endpoint} {body} {headers:?}");
        }
    }
}

/// What gateways, proxies and portals answer: content type and body.
const FOREIGN: &[(&str, &str)] = &[
    (JSON, r#"{"message":"no Route matched with those values"}"#),
    (JSON, r#"{"message":"Service Unavailable"}"#),
    (JSON, r#"{"message":"Forbidden"}"#),
    (JSON, r#"{"message":"Missing Authentication Token"}"#),
    (JSON, r#"{"message":"Unauthorized"}"#),
    (JSON, r#"{"message":"failure to get a peer from the ring-balancer"}"#),
    (JSON, r#"{"message":"Endpoint request timed out"}"#),
    (JSON, r#"{"message":"Not Found"}"#),
    (JSON, r#"{"message":""}"#),
    (JSON, r#"{"message":null}"#),
    (JSON, r#"{"message":"Something of a gateway"}"#),
    (JSON, r#"{"message":{"error":"something"}}"#),
    (JSON, r#"{"error":"Forbidden"}"#),
    (JSON, r#"{"error":"something of a gateway"}"#),
    (JSON, r#"{"error":"access_denied","error_description":"Sign in first"}"#),
    (JSON, r#"{"error":{"code":404,"message":"404 Not found"}}"#),
    (JSON, r#"{"title":"Error 1020","status":403,"cloudflare_error":true}"#),
    (JSON, "{}"),
    (JSON, "[]"),
    (JSON, "null"),
    (JSON, "true"),
    (JSON, ""),
    (JSON, r#"{"token":"x"}"#),
    (JSON, r#"{"token":"glrt-sent"}"#),
    (JSON, r#"{"id":42,"token":"x","token_expires_at":"never"}"#),
    (JSON, r#"{"id":42}"#),
    (JSON, r#"{"status":200}"#),
    (JSON, "<html><body>403 Forbidden</body></html>"),
    ("text/html", "<html><body>403 Forbidden</body></html>"),
    ("text/html", r#"{"message":"403 Forbidden"}"#),
    ("text/plain", "403 Forbidden"),
    ("text/plain", "no healthy upstream"),
    ("text/plain", "404 page not found"),
    ("text/plain", "OK"),
    ("text/plain", ""),
    ("", ""),
    ("application/problem+json", r#"{"title":"Forbidden","status":403}"#),
];

#[test]
fn no_answer_of_a_gateway_is_a_verdict() {
    let mut count = 0;
    for (content_type, body) in FOREIGN {
        for status in 200..=599 {
            for &endpoint in &[LIFECYCLE, &[Probe, DeleteById, Show]].concat() {
                let answer = raw(status, content_type, body, &[("retry-after", "5"), ("x-request-id", "1f")]);
                assert_proves_nothing(endpoint, &answer);
                count += 1;
            }
        }
    }
    assert_eq!(count, FOREIGN.len() * 400 * 10);
}

fn assert_proves_nothing(endpoint: Endpoint, answer: &RawAnswer) {
    let (status, body) = (answer.status, String::from_utf8_lossy(&answer.body));
    let is_success = (200..=299).contains(&status);
    let place = format!("{endpoint} {status} {:?} {body}", answer.headers[0].1);
    match read(endpoint, answer) {
        // The only copy of a token, if it is one; a verification decides.
        Read::Token(shape) => {
            assert!(is_success && body.contains(r#""token":""#) && matches!(shape, Shape::Odd(_)), "{place}");
        }
        // This is GitLab's answer, whatever its body.
        Read::Accepted => {
            assert!(status == 204 && matches!(endpoint, DeleteRunner | DeleteManager | DeleteById | Show), "{place}")
        }
        Read::Failed(error) => {
            let is_client_error = (400..=499).contains(&status) && status != 408;
            let is_turned_away = is_client_error || (300..=399).contains(&status);
            let disposition = error.disposition();
            assert_eq!(matches!(disposition, Disposition::NotExecuted { .. }), is_turned_away, "{place}");
            assert_eq!(matches!(disposition, Disposition::Unknown { .. }), !is_turned_away, "{place}");
            // A throttle has no text of its own.
            assert_eq!(error.is_understood(), status == 429, "{place}");
            assert_eq!(error.may_have_reached_rails(), !is_turned_away || status == 429, "{place}");
            assert!(error.unproven().is_none_or(|text| is_client_error && text.status == status), "{place}");
        }
    }
}

#[test]
fn gitlabs_header_does_not_make_a_gateways_text_a_verdict() {
    let known = FOREIGN.iter().filter(|(_, body)| !body.contains("omething") && !body.contains("access_denied"));
    for (content_type, body) in known {
        for status in 400..=499 {
            for &endpoint in LIFECYCLE {
                let Read::Failed(error) = read(endpoint, &raw(status, content_type, body, &[META])) else {
                    panic!("{endpoint} {status} {body} is no error");
                };
                let is_unknown = matches!(error.disposition(), Disposition::Unknown { .. });
                assert!(is_unknown == (status == 408), "{error}");
                assert!(is_unknown || matches!(error.disposition(), Disposition::NotExecuted { .. }), "{error}");
                assert!(error.unproven().is_none(), "{error}");
            }
        }
    }
}

//! The table of the error answers that GitLab documents.

use super::texts::Texts;
use crate::gitlab::error_body::Form;
use crate::gitlab::{Endpoint, ErrorKind};
use Endpoint::{
    Assign, Create, DeleteById, DeleteManager, DeleteRunner, DeleteV1, ListAll, ListJobs, ListManagers, ListOfGroup,
    ListOfProject, ListOwned, ListProjects, Probe, Register, RegisterV1, Reset, ResetById, ResetGroupRegistrationToken,
    ResetInstanceRegistrationToken, ResetProjectRegistrationToken, RotateAccessToken, RotateGroupAccessToken,
    RotateProjectAccessToken, Show, ShowAccessToken, ShowGroup, ShowProject, Unassign, Update, Verify,
};
use Form::{Error, Fields, Message, OAuth};
use Others::{Count, DoNotCount};
use Texts::{ADescribed, AMissing, AParameter, APrefix, Is, OfModel};

/// One documented error answer.
pub(super) struct Row {
    /// The calls that it answers.
    calls: &'static [Endpoint],
    status: u16,
    form: Form,
    pub(super) texts: Texts,
    pub(super) kind: ErrorKind,
    pub(super) others: Others,
}

/// What another text of the same calls, status and shape is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// Probably the same answer of another release: it counts if the answer is GitLab's.
    Count,
    /// Anything else: the texts of this row are exact.
    DoNotCount,
}

impl Row {
    pub(super) fn is_about(&self, endpoint: Endpoint, status: u16, form: Form) -> bool {
        self.status == status && self.form == form && self.calls.contains(&endpoint)
    }
}

const fn row(
    (status, form): (u16, Form),
    calls: &'static [Endpoint],
    texts: Texts,
    kind: ErrorKind,
    others: Others,
) -> Row {
    Row { calls, status, form, texts, kind, others }
}

/// The calls of a runner's own token.
const BY_RUNNER: &[Endpoint] = &[Verify, DeleteRunner, DeleteManager, Reset];

/// The calls of an access token.
const BY_ACCESS: &[Endpoint] = &[
    ResetById,
    ListOwned,
    ListAll,
    ListOfProject,
    ListOfGroup,
    Show,
    Update,
    DeleteById,
    ListJobs,
    ListManagers,
    ListProjects,
    Assign,
    Unassign,
    ResetInstanceRegistrationToken,
    ResetProjectRegistrationToken,
    ResetGroupRegistrationToken,
    Create,
    ShowProject,
    ShowGroup,
    ShowAccessToken,
    RotateAccessToken,
    RotateGroupAccessToken,
    RotateProjectAccessToken,
];

/// The calls about one runner, project or group, which may be missing.
const ABOUT_ONE: &[Endpoint] = &[
    ResetById,
    ListOfProject,
    ListOfGroup,
    Show,
    Update,
    DeleteById,
    ListJobs,
    ListManagers,
    ListProjects,
    Assign,
    Unassign,
    ResetProjectRegistrationToken,
    ResetGroupRegistrationToken,
    ShowProject,
    ShowGroup,
    RotateGroupAccessToken,
    RotateProjectAccessToken,
];

/// The calls that some release does not have: `POST …/runners` and `DELETE …/runners` are as old as the API.
const SINCE_SOME_RELEASE: &[Endpoint] = &[
    DeleteManager,
    Reset,
    ResetById,
    ListOwned,
    ListAll,
    ListOfProject,
    ListOfGroup,
    Show,
    Update,
    DeleteById,
    ListJobs,
    ListManagers,
    ListProjects,
    Assign,
    Unassign,
    ResetInstanceRegistrationToken,
    ResetProjectRegistrationToken,
    ResetGroupRegistrationToken,
    Create,
    ShowAccessToken,
    RotateAccessToken,
    RotateGroupAccessToken,
    RotateProjectAccessToken,
];

/// The calls that replace an access token.
const ROTATES_ACCESS: &[Endpoint] = &[RotateAccessToken, RotateGroupAccessToken, RotateProjectAccessToken];

/// The calls that a runner can be in the way of, not the user's rights: it is locked, of another type, or assigned to
/// other projects too.
const HINDERED_BY_RUNNER: &[Endpoint] = &[Assign, Unassign, DeleteById];

/// Every error answer that GitLab documents, but for throttles, redirects and failures of the server, which answer any
/// call. The first row that fits decides. Source: docs/api/runners and users, GitLab's `lib/api/ci` and its specs.
#[rustfmt::skip]
pub(super) static DOCUMENTED: &[Row] = &[
    // Parameters, in any call.
    row((400, Error), Endpoint::ALL, AParameter, ErrorKind::InvalidParameters, Count),
    row((400, Message), &[Register, Verify, Probe, DeleteRunner, DeleteManager, Reset, RegisterV1, DeleteV1],
        Is(&[super::texts::TOKEN_NOT_GIVEN]), ErrorKind::InvalidParameters, DoNotCount),
    row((400, Fields), &[Register, Create, Update, Assign], OfModel, ErrorKind::InvalidParameters, Count),
    row((400, Message), BY_ACCESS, APrefix("400 Bad request"), ErrorKind::InvalidParameters, Count),
    // Old releases answer so if the runner is already assigned.
    row((409, Message), &[Assign], APrefix("409 Conflict -"), ErrorKind::InvalidParameters, DoNotCount),

    // A registration token.
    row((403, Message), &[Register, RegisterV1],
        Is(&["403 Forbidden", "403 Forbidden - invalid token supplied"]), ErrorKind::RegistrationRefused, Count),
    row((410, Message), &[Register],
        Is(&["410 Gone - runner registration disallowed"]), ErrorKind::RegistrationDisabled, Count),
    // The API of 2016 answers so to invalid parameters.
    row((404, Message), &[RegisterV1], Is(&["404 Not Found"]), ErrorKind::InvalidParameters, DoNotCount),

    // A rotation.
    row((403, Error), &[Reset, ResetById],
        Is(&["Token rotation deadline has passed"]), ErrorKind::RotationClosed, DoNotCount),
    row((403, Message), &[Reset, ResetById],
        Is(&["403 Forbidden - Token rotation deadline has passed"]), ErrorKind::RotationClosed, DoNotCount),
    row((422, Error), &[Reset, ResetById],
        ADescribed("assigned to at least one project"), ErrorKind::Unassigned, Count),

    // A runner's token.
    row((403, Message), BY_RUNNER, Is(&["403 Forbidden - Runner is orphaned"]), ErrorKind::Orphaned, DoNotCount),
    row((403, Message), BY_RUNNER, Is(&["403 Forbidden"]), ErrorKind::TokenRefused, Count),
    row((403, Message), &[DeleteV1], Is(&["403 Forbidden"]), ErrorKind::TokenRefused, Count),
    row((422, Message), BY_RUNNER, Is(&["Runner is orphaned"]), ErrorKind::Orphaned, Count),
    row((404, Message), &[DeleteManager],
        Is(&["404 Runner manager not found Not Found", "404 Runner manager not found", "404 Not found"]),
        ErrorKind::NotFound, DoNotCount),
    // A server without the call takes `managers` for a runner's id and asks for an access token.
    row((401, Message), &[DeleteManager], Is(&["401 Unauthorized"]), ErrorKind::Unsupported, DoNotCount),

    // An access token.
    row((401, Message), BY_ACCESS, Is(&["401 Unauthorized"]), ErrorKind::AccessTokenRefused, Count),
    row((401, OAuth), BY_ACCESS, APrefix("invalid_token: Token"), ErrorKind::AccessTokenRefused, Count),
    row((403, OAuth), BY_ACCESS, APrefix("insufficient_scope"), ErrorKind::AccessTokenRights, Count),
    row((403, OAuth), BY_ACCESS, APrefix("insufficient_granular_scope"), ErrorKind::AccessTokenRights, Count),
    row((403, Message), BY_ACCESS,
        Is(&["403 Forbidden", "403 Forbidden - No access granted", "403 Forbidden - Insufficient permissions"]),
        ErrorKind::AccessTokenRights, DoNotCount),
    row((403, Message), HINDERED_BY_RUNNER, APrefix("403 Forbidden -"), ErrorKind::Forbidden, DoNotCount),
    row((403, Message), BY_ACCESS, APrefix("403 Forbidden -"), ErrorKind::AccessTokenRights, Count),
    // The token is not one that this call rotates.
    row((405, Message), ROTATES_ACCESS, Is(&["405 Method Not Allowed"]), ErrorKind::Unsupported, DoNotCount),
    // A release without the call takes `self` for the id of a token.
    row((404, Message), &[ShowAccessToken, RotateAccessToken], AMissing, ErrorKind::Unsupported, DoNotCount),
    row((404, Message), ABOUT_ONE, AMissing, ErrorKind::NotFound, Count),

    // A route that the release does not have.
    row((404, Error), SINCE_SOME_RELEASE, Is(&["404 Not Found"]), ErrorKind::Unsupported, DoNotCount),
    row((405, Error), SINCE_SOME_RELEASE, Is(&["405 Not Allowed"]), ErrorKind::Unsupported, DoNotCount),
    row((405, Error), &[ListJobs], APrefix("Keyset pagination"), ErrorKind::Unsupported, DoNotCount),

    // The state of the server, in any call.
    row((403, Message), Endpoint::ALL,
        Is(&["You cannot perform write operations on a read-only instance"]), ErrorKind::ReadOnly, DoNotCount),
    row((409, Message), Endpoint::ALL, Is(&["409 Conflict: Resource lock"]), ErrorKind::Locked, DoNotCount),
    row((412, Message), Endpoint::ALL, Is(&["412 Precondition Failed"]), ErrorKind::PreconditionFailed, DoNotCount),
];

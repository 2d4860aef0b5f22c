//! What the page shows of many runners: filter, order and page, as the query of its address says.

use std::cmp::Ordering;

use super::html::Escaped;
use crate::model::{RunnerReport, StateName, Timestamp, encode_query, query_parameters};
use crate::status::RunnerStatus;

/// How many runners a page shows.
pub(super) const ROWS: usize = 100;

/// Maximum length of the text that is searched for, in characters.
const MAX_SEARCH: usize = 200;

/// The order of the runners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// Those that need attention first, then by expiry.
    #[default]
    Attention,
    /// By name.
    Name,
    /// By server, then by name.
    Server,
    /// By expiry; tokens that do not expire come last.
    Expires,
    /// By the time of the next step.
    Next,
}

impl Sort {
    /// Every order, as the page offers them.
    pub(super) const ALL: [Self; 5] = [Self::Attention, Self::Name, Self::Server, Self::Expires, Self::Next];

    /// Its name in an address.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Attention => "attention",
            Self::Name => "name",
            Self::Server => "server",
            Self::Expires => "expires",
            Self::Next => "next",
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|sort| sort.as_str() == name)
    }

    /// Its name for people.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Attention => "Attention first",
            Self::Name => "Name",
            Self::Server => "Server",
            Self::Expires => "Expiry",
            Self::Next => "Next step",
        }
    }
}

/// How a runner is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tone {
    Bad,
    Doubt,
    Good,
    Quiet,
}

impl Tone {
    pub(super) fn of(state: StateName, is_ready: bool) -> Self {
        match state {
            StateName::Active if is_ready => Self::Good,
            StateName::Active
            | StateName::Unregistered
            | StateName::Uncertain
            | StateName::NotRenewable
            | StateName::Unknown => Self::Doubt,
            StateName::Rejected | StateName::Expired | StateName::Failed | StateName::Unusable => Self::Bad,
            StateName::Retired => Self::Quiet,
        }
    }

    /// The class of its elements.
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Bad => "bad",
            Self::Doubt => "doubt",
            Self::Good => "good",
            Self::Quiet => "quiet",
        }
    }
}

/// What the page shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// What names, servers, ids, executors and problems are searched for.
    pub(super) search: String,
    /// The only state that is shown.
    pub(super) state: Option<StateName>,
    pub(super) sort: Sort,
    /// The number of the page, from 1.
    pub(super) page: usize,
}

impl View {
    /// Reads a query. What is not understood is ignored.
    pub(super) fn parse(query: &str) -> Self {
        let mut view = Self { page: 1, ..Self::default() };
        for (name, value) in query_parameters(query) {
            match name.as_str() {
                "q" => view.search = value.trim().chars().take(MAX_SEARCH).collect(),
                "state" => view.state = StateName::from_name(&value),
                "sort" => view.sort = Sort::from_name(&value).unwrap_or_default(),
                "page" => view.page = value.parse().ok().filter(|page| *page > 0).unwrap_or(1),
                _ => {}
            }
        }
        view
    }

    /// The address of the view, for an attribute.
    pub(super) fn address(&self) -> String {
        let page = self.page.to_string();
        let mut parameters = vec![];
        if !self.search.is_empty() {
            parameters.push(("q", self.search.as_str()));
        }
        parameters.extend(self.state.map(|state| ("state", state.as_str())));
        if self.sort != Sort::default() {
            parameters.push(("sort", self.sort.as_str()));
        }
        if self.page > 1 {
            parameters.push(("page", page.as_str()));
        }
        let query = encode_query(&parameters);
        if query.is_empty() { "/".to_owned() } else { Escaped(format!("/?{query}")).to_string() }
    }

    /// Whether all runners are shown.
    pub(super) fn is_whole(&self) -> bool {
        self.search.is_empty() && self.state.is_none()
    }

    /// Whether a runner is shown, whose report is that of now.
    pub(super) fn shows(&self, status: &RunnerStatus, state: StateName) -> bool {
        self.state.is_none_or(|wanted| wanted == state) && self.is_found(status)
    }

    fn is_found(&self, status: &RunnerStatus) -> bool {
        if self.search.is_empty() {
            return true;
        }
        let wanted = self.search.to_lowercase();
        let has = |text: &str| text.to_lowercase().contains(&wanted);
        let RunnerReport { id, executor, error, .. } = &status.report;
        has(status.label())
            || status.report.url.as_ref().is_some_and(|url| has(url.as_str()))
            || id.is_some_and(|id| id.to_string() == wanted)
            || executor.as_deref().is_some_and(has)
            || status.not_ready_because.as_deref().or(error.as_deref()).is_some_and(has)
    }
}

/// What a runner is ordered by.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SortKey {
    tone: Option<Tone>,
    text: Option<String>,
    millis: i64,
    name: Option<String>,
    number: u64,
}

impl SortKey {
    pub(super) fn of(sort: Sort, number: u64, status: &RunnerStatus, tone: Tone) -> Self {
        let millis = |at: Option<Timestamp>| at.map_or(i64::MAX, Timestamp::as_millis);
        let (expires, next) =
            (millis(status.report.token_expires_at), millis(status.report.next.as_ref().map(|next| next.at)));
        let none = Self { tone: None, text: None, millis: 0, name: None, number };
        let name = || Some(status.label().to_lowercase());
        match sort {
            Sort::Attention => Self { tone: Some(tone), millis: expires, ..none },
            Sort::Name => Self { text: name(), ..none },
            Sort::Server => Self { text: Some(status.host()), name: name(), ..none },
            Sort::Expires => Self { millis: expires, ..none },
            Sort::Next => Self { millis: next, ..none },
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

/// Orders keys, and returns the numbers of the runners on the view's page, and how many pages there are.
pub(super) fn page_of(view: &mut View, mut keys: Vec<SortKey>) -> (Vec<u64>, usize) {
    keys.sort_unstable_by(|left, right| left.partial_cmp(right).unwrap_or(Ordering::Equal));
    let pages = keys.len().div_ceil(ROWS).max(1);
    view.page = view.page.min(pages);
    let shown = keys.iter().skip((view.page - 1) * ROWS).take(ROWS);
    (shown.map(SortKey::number).collect(), pages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::tests::status;

    #[test]
    fn an_address_leads_to_the_view_that_it_was_made_of() {
        assert_eq!(View::parse("").address(), "/");
        let view = View { search: "a\"<b>&".to_owned(), state: Some(StateName::Rejected), sort: Sort::Name, page: 3 };
        let address = view.address();
        assert!(!address.contains(['"', '<', '>']), "{address}");
        assert_eq!(View::parse(address.trim_start_matches("/?").replace("&amp;", "&").as_str()), view);
        let odd = View::parse("sort=odd&state=odd&page=0&page=-1&x=1");
        assert_eq!(odd, View { page: 1, ..View::default() });
    }

    #[test]
    fn runners_are_found_by_name_server_id_and_problem() {
        let mut runner = status("Build-1", Some(7), StateName::Active);
        runner.not_ready_because = Some("the token is not verified yet".to_owned());
        let finds =
            |search: &str| View { search: search.to_owned(), ..View::default() }.shows(&runner, StateName::Active);
        for search in ["", "build", "GITLAB.example", "7", "not verified"] {
            assert!(finds(search), "{search}");
        }
        assert!(!finds("99") && !finds("build-2"));
        let rejected = View { state: Some(StateName::Rejected), ..View::default() };
        assert!(!rejected.shows(&runner, StateName::Active) && rejected.shows(&runner, StateName::Rejected));
    }

    #[test]
    fn each_order_has_its_first_runner() {
        let mut good = status("b", Some(1), StateName::Active);
        good.report.next = None;
        let mut bad = status("c", Some(2), StateName::Rejected);
        bad.report.token_expires_at = None;
        let mut other = status("a", Some(3), StateName::Active);
        other.report.url = Some("https://a.example.com".parse().unwrap());
        other.report.token_expires_at = Some("2027-01-01T02:00:00Z".parse().unwrap());
        let runners = [(0, good), (1, bad), (2, other)];
        for (sort, expected) in [
            (Sort::Attention, [1, 0, 2]),
            (Sort::Name, [2, 0, 1]),
            (Sort::Server, [2, 0, 1]),
            (Sort::Expires, [0, 2, 1]),
            (Sort::Next, [1, 2, 0]),
        ] {
            let key = |(number, status): &(u64, RunnerStatus)| {
                SortKey::of(sort, *number, status, Tone::of(status.report.state, true))
            };
            let mut view = View::parse("page=9");
            assert_eq!(page_of(&mut view, runners.iter().map(key).collect()), (expected.to_vec(), 1), "{sort:?}");
            assert_eq!(view.page, 1);
        }
    }
}

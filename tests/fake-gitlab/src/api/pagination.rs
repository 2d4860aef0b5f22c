//! Pagination of lists.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::Call;
use crate::Answer;

/// The default length of a page.
const USUAL_LENGTH: usize = 20;
/// The maximum length of a page; longer ones are silently reduced.
const LONGEST: usize = 100;
/// Lists with more rows than this omit the total.
const COUNTED_ROWS: usize = 10_000;

/// The requested page.
pub(super) struct Page {
    number: usize,
    length: usize,
    has_totals: bool,
}

impl Page {
    /// Reads `page` and `per_page`, or refuses with 400.
    pub(super) fn read(call: &Call<'_>) -> Result<Self, Answer> {
        let positive = |name: &str, usual: usize| match call.parameters.integer(name)? {
            None => Ok(usual),
            Some(number) => usize::try_from(number)
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| Answer::raw_error(400, format!("{name} does not have a valid value"))),
        };
        let number = positive("page", 1)?;
        let length = positive("per_page", USUAL_LENGTH)?.min(LONGEST);
        Ok(Self { number, length, has_totals: true })
    }

    /// Omits the total number of rows.
    pub(super) fn without_totals(self) -> Self {
        Self { has_totals: false, ..self }
    }

    /// Answers with this page of all rows.
    pub(super) fn of<T>(&self, call: &Call<'_>, rows: Vec<T>, show: impl Fn(T) -> Value) -> Answer {
        let total = rows.len();
        let pages = total.div_ceil(self.length).max(1);
        let has_totals = self.has_totals && total <= COUNTED_ROWS;
        let next = (self.number < pages).then_some(self.number + 1);
        let previous = (self.number > 1).then(|| self.number - 1);
        let start = (self.number - 1).saturating_mul(self.length);
        let listed: Vec<Value> = rows.into_iter().skip(start).take(self.length).map(show).collect();

        let mut links = Vec::new();
        let mut link = |page: Option<usize>, relation: &str| {
            if let Some(page) = page {
                links.push(format!("<{}>; rel=\"{relation}\"", self.address(call, page)));
            }
        };
        link(previous, "prev");
        link(next, "next");
        link(Some(1), "first");
        link(has_totals.then_some(pages), "last");

        let text = |page: Option<usize>| page.map(|page| page.to_string()).unwrap_or_default();
        let answer = Answer::json(200, json!(listed))
            .with_header("X-Page", self.number.to_string())
            .with_header("X-Per-Page", self.length.to_string())
            .with_header("X-Next-Page", text(next))
            .with_header("X-Prev-Page", text(previous))
            .with_header("Link", links.join(", "));
        if !has_totals {
            return answer;
        }
        answer.with_header("X-Total", total.to_string()).with_header("X-Total-Pages", pages.to_string())
    }

    /// Answers with one page of rows after a cursor, the id of the last row before them. Keeps the given order and sends
    /// no page numbers.
    pub(super) fn behind_cursor<T>(
        &self,
        call: &Call<'_>,
        rows: Vec<T>,
        number: impl Fn(&T) -> u64,
        show: impl Fn(T) -> Value,
    ) -> Result<Answer, Answer> {
        let cursor = call.parameters.text("cursor")?.map(|cursor| cursor.parse::<u64>());
        let cursor = cursor.transpose().map_err(|_| Answer::raw_error(400, "cursor is invalid"))?;
        let start = cursor.and_then(|cursor| rows.iter().position(|row| number(row) == cursor)).map_or(0, |at| at + 1);
        let has_more = rows.len() > start + self.length;
        let listed: Vec<T> = rows.into_iter().skip(start).take(self.length).collect();
        let next = listed.last().filter(|_| has_more).map(|row| number(row).to_string());
        let shown: Vec<Value> = listed.into_iter().map(show).collect();
        let answer = Answer::json(200, json!(shown)).with_header("X-Per-Page", self.length.to_string());
        Ok(match next {
            None => answer,
            Some(next) => {
                let address = self.address_with(call, &["cursor"], &format!("cursor={next}"));
                answer.with_header("X-NEXT-CURSOR", next).with_header("Link", format!("<{address}>; rel=\"next\""))
            }
        })
    }

    /// The URL of a page with all other parameters of the request, as GitLab builds it.
    fn address(&self, call: &Call<'_>, page: usize) -> String {
        self.address_with(call, &["page"], &format!("page={page}"))
    }

    fn address_with(&self, call: &Call<'_>, replaced: &[&str], place: &str) -> String {
        let mut query = Vec::new();
        for (name, value) in &call.parameters.0 {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if !replaced.contains(&name.as_str()) && name != "per_page" {
                query.push(format!("{name}={}", utf8_percent_encode(&text, NON_ALPHANUMERIC)));
            }
        }
        query.push(place.to_owned());
        query.push(format!("per_page={}", self.length));
        format!("{}?{}", call.address, query.join("&"))
    }
}

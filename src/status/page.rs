//! The page at `/`: one HTML document with everything in it, made on the server.
//!
//! It shows the facts without JavaScript. With it, the page asks for itself again when `/events` reports a change. Texts
//! from outside are escaped (`html.rs`), and the policy of its headers lets nothing run or load but its own text.

mod html;
mod rows;
mod view;

use std::fmt::{self, Write as _};

use super::pages::{PAGE, Page, PageError};
use super::registry::StatusRegistry;
use crate::clock::Reading;
use crate::model::{DaemonReport, StateName};
use html::{At, Escaped};
use rows::{Row, state_at, write_access_token, write_event};
use view::{Sort, SortKey, Tone, View, page_of};

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

/// `Content-Security-Policy`: its own style and script by their hashes, and requests to this daemon.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'sha256-++zsDJtCIP4+C2Q/CCH9jlXKsnHKgLYRY44gb+JJP4Y='; script-src 'sha256-HXYvwXDJ+Ycwl+JMhjhrWc14iNZG6HsqGsa+vwgoiBg='; connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(super) const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// How many rows are made at once.
const ROWS_AT_ONCE: usize = 25;

/// The parts of the page for a query.
pub(super) fn pages(registry: &StatusRegistry, query: &str, reading: Reading) -> impl Iterator<Item = Page> + use<> {
    let mut maker = Maker {
        registry: registry.clone(),
        reading,
        view: View::parse(query),
        keys: Vec::new(),
        counts: Counts::default(),
    };
    let mut stage = Some(Stage::Look { numbers: registry.numbers() });
    std::iter::from_fn(move || {
        let (html, next) = match maker.make(stage.take()?) {
            Ok(made) => made,
            Err(error) => return Some(Err(PageError::from(error))),
        };
        stage = next;
        Some(Ok(html))
    })
}

/// The page for those who have not opened it with a code: what `/healthz` says.
pub(super) fn closed_page(health: &str) -> String {
    let health = Escaped(health.trim_end());
    format!(
        "{}<title>runner-agent</title></head><body><main><h1>runner-agent</h1><p id=\"summary\" class=\"quiet\">{health}</p>\
         <p>To see the runners, run <code>runner-agent open</code> as the user of the daemon, and open the address that it prints. If you have, <a href=\"/\">load this page again</a>.</p>\
         </main></body></html>\n",
        head()
    )
}

/// The page after a code that is not valid.
pub(super) fn refused_page() -> String {
    format!(
        "{}<title>runner-agent</title></head><body><main><h1>runner-agent</h1><p id=\"summary\" class=\"bad\">This code is not valid.</p>\
         <p>A code can be used once, within a minute. Run <code>runner-agent open</code> for a new one.</p></main></body></html>\n",
        head()
    )
}

fn head() -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><link rel=\"icon\" href=\"data:,\"><style>{STYLE}</style>"
    )
}

/// How many runners are how.
#[derive(Debug, Default)]
struct Counts {
    all: usize,
    bad: usize,
    doubtful: usize,
    /// By the order of [`StateName::ALL`].
    states: [usize; StateName::ALL.len()],
}

enum Stage {
    /// Looks at the runners, some at a time.
    Look {
        /// Those that were not looked at.
        numbers: std::ops::Range<u64>,
    },
    /// Everything before the rows.
    Begin,
    /// Some of the rows.
    Rows {
        /// The runners whose rows are to be made.
        numbers: std::vec::IntoIter<u64>,
        /// How many pages there are.
        pages: usize,
    },
}

struct Maker {
    registry: StatusRegistry,
    reading: Reading,
    view: View,
    keys: Vec<SortKey>,
    counts: Counts,
}

type Made = (String, Option<Stage>);

impl Maker {
    fn make(&mut self, stage: Stage) -> Result<Made, fmt::Error> {
        let mut html = String::new();
        let next = match stage {
            Stage::Look { mut numbers } => {
                self.look(&mut numbers);
                if numbers.is_empty() { Stage::Begin } else { Stage::Look { numbers } }
            }
            Stage::Begin => {
                let shown = self.keys.len();
                let (numbers, pages) = page_of(&mut self.view, std::mem::take(&mut self.keys));
                self.begin(shown, &mut html)?;
                Stage::Rows { numbers: numbers.into_iter(), pages }
            }
            Stage::Rows { mut numbers, pages } => {
                self.rows(numbers.by_ref().take(ROWS_AT_ONCE), &mut html)?;
                if numbers.len() == 0 {
                    self.end(pages, &mut html)?;
                    return Ok((html, None));
                }
                Stage::Rows { numbers, pages }
            }
        };
        Ok((html, Some(next)))
    }

    /// Counts runners, and collects those that are shown.
    fn look(&mut self, numbers: &mut std::ops::Range<u64>) {
        let Self { registry, reading, view, .. } = self;
        let looked = registry.page(numbers, PAGE, |number, status| {
            let state = state_at(status, status.time.now(*reading));
            let tone = Tone::of(state, status.not_ready_because.is_none());
            (state, tone, view.shows(status, state).then(|| SortKey::of(view.sort, number, status, tone)))
        });
        for (state, tone, key) in looked {
            self.counts.all += 1;
            self.counts.bad += usize::from(tone == Tone::Bad);
            self.counts.doubtful += usize::from(tone == Tone::Doubt);
            let count = StateName::ALL.iter().position(|name| *name == state);
            count.into_iter().for_each(|index| self.counts.states[index] += 1);
            self.keys.extend(key);
        }
    }

    fn begin(&self, shown: usize, html: &mut String) -> fmt::Result {
        let daemon = self.registry.daemon();
        let summary = self.registry.headline(self.counts.bad, self.reading);
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (title, host) = (summary.split([';', ',']).next().unwrap_or_default(), Escaped(host));
        let tone = self.tone(&daemon).class();
        html.push_str(&head());
        write!(
            html,
            "<title>{} – runner-agent on {host}</title></head><body><header><h1>runner-agent on {host}</h1>\
             <span class=\"dim\" id=\"live\" role=\"status\" hidden></span></header><main>\
             <p id=\"summary\" role=\"status\" class=\"{tone}\">{}.</p>",
            Escaped(title),
            Escaped(capitalized(&summary))
        )?;
        write_problems(&daemon, html)?;
        html.push_str("<section aria-labelledby=\"runners-heading\"><h2 id=\"runners-heading\">Runners</h2>");
        self.filter(html)?;
        self.table(shown, html)
    }

    fn tone(&self, daemon: &DaemonReport) -> Tone {
        let is_outdated = daemon.settings_error.is_some() || daemon.config_error.is_some();
        let lacks_access = daemon.access_tokens.iter().any(|report| report.state.needs_person());
        if is_outdated || lacks_access || self.counts.bad > 0 {
            Tone::Bad
        } else if self.counts.doubtful > 0 || !self.registry.is_ready() {
            Tone::Doubt
        } else {
            Tone::Good
        }
    }

    fn filter(&self, html: &mut String) -> fmt::Result {
        write!(
            html,
            "<form id=\"filter\" role=\"search\" aria-label=\"Runners\" method=\"get\" action=\"/\">\
             <label>Search<input type=\"search\" name=\"q\" value=\"{}\" autocomplete=\"off\"></label>\
             <label>State<select name=\"state\"><option value=\"\">All states ({})</option>",
            Escaped(&self.view.search),
            self.counts.all
        )?;
        for (state, count) in StateName::ALL.iter().zip(self.counts.states) {
            if count > 0 || self.view.state == Some(*state) {
                let selected = if self.view.state == Some(*state) { " selected" } else { "" };
                let name = state.as_str();
                write!(html, "<option value=\"{name}\"{selected}>{} ({count})</option>", name.replace('_', " "))?;
            }
        }
        html.push_str("</select></label><label>Order<select name=\"sort\">");
        for sort in Sort::ALL {
            let selected = if self.view.sort == sort { " selected" } else { "" };
            write!(html, "<option value=\"{}\"{selected}>{}</option>", sort.as_str(), sort.label())?;
        }
        html.push_str("</select></label><button>Show</button></form>");
        Ok(())
    }

    fn table(&self, shown: usize, html: &mut String) -> fmt::Result {
        let all = self.counts.all;
        let count = match (self.view.is_whole(), all) {
            (true, 1) => "1 runner".to_owned(),
            (true, _) => format!("{all} runners"),
            (false, _) => format!("{shown} of {all} runners"),
        };
        write!(
            html,
            "<div id=\"runners\"><div class=\"bar\"><p class=\"dim\">{count}</p><p class=\"dim key\" aria-hidden=\"true\">{}{}{}{}{}</p></div>\
             <div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-labelledby=\"runners-heading\"><table><caption class=\"hidden\">{count}</caption><thead><tr>",
            key("start", "obtained"),
            key("check", "verified"),
            key("now", "now"),
            key("plan", "planned rotation"),
            key("end", "expiry"),
        )?;
        for (heading, sort) in [
            ("Runner", Sort::Name),
            ("Server", Sort::Server),
            ("State", Sort::Attention),
            ("Life of the token", Sort::Expires),
            ("Next step", Sort::Next),
        ] {
            let sorted = if self.view.sort == sort { " aria-sort=\"ascending\"" } else { "" };
            let address = View { sort, page: 1, ..self.view.clone() }.address();
            let sort = sort.as_str();
            write!(
                html,
                "<th scope=\"col\"{sorted}><a id=\"by-{sort}\" data-view=\"{sort}\" href=\"{address}\">{heading}</a></th>"
            )?;
        }
        html.push_str("</tr></thead><tbody>\n");
        if shown == 0 {
            let none = if all == 0 { "The daemon serves no runners." } else { "No runner matches." };
            write!(html, "<tr><td colspan=\"5\">{none}</td></tr>")?;
        }
        Ok(())
    }

    fn rows(&self, numbers: impl Iterator<Item = u64>, html: &mut String) -> fmt::Result {
        let numbers: Vec<_> = numbers.collect();
        let rows = self.registry.look_up_runners(&numbers);
        rows.into_iter().try_for_each(|(number, status, verified_before)| {
            Row { number, status, verified_before }.write(self.reading, html)
        })
    }

    fn end(&self, pages: usize, html: &mut String) -> fmt::Result {
        html.push_str("</tbody></table></div>");
        if pages > 1 {
            self.links(pages, html)?;
        }
        html.push_str("</div></section>");
        self.access_tokens(html)?;
        html.push_str(
            "<section aria-labelledby=\"events-heading\"><h2 id=\"events-heading\">Events</h2><div id=\"events\">\
             <div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-labelledby=\"events-heading\"><table><caption class=\"hidden\">The last events, newest first</caption>\
             <thead><tr><th scope=\"col\">Time</th><th scope=\"col\">Event</th><th scope=\"col\">Runner</th><th scope=\"col\">What</th></tr></thead><tbody>\n",
        );
        let events = self.registry.events_after(0);
        events.iter().rev().try_for_each(|event| write_event(event, html))?;
        if events.is_empty() {
            html.push_str("<tr><td colspan=\"4\">Nothing has happened since the daemon started.</td></tr>");
        }
        writeln!(
            html,
            "</tbody></table></div></div></section></main><footer class=\"dim\" id=\"made\">As of {} · runner-agent {}</footer>\
             <script>{SCRIPT}</script></body></html>",
            At(self.reading.wall),
            env!("CARGO_PKG_VERSION")
        )
    }

    fn links(&self, pages: usize, html: &mut String) -> fmt::Result {
        let View { page, sort, .. } = self.view;
        let sort = sort.as_str();
        let link = |page: usize| View { page, ..self.view.clone() }.address();
        html.push_str("<nav aria-label=\"Pages\">");
        if page > 1 {
            write!(
                html,
                "<a id=\"previous\" rel=\"prev\" data-view=\"{sort}\" href=\"{}\">Previous</a>",
                link(page - 1)
            )?;
        }
        write!(html, "<span>Page {page} of {pages}</span>")?;
        if page < pages {
            write!(html, "<a id=\"next\" rel=\"next\" data-view=\"{sort}\" href=\"{}\">Next</a>", link(page + 1))?;
        }
        html.push_str("</nav>");
        Ok(())
    }

    fn access_tokens(&self, html: &mut String) -> fmt::Result {
        html.push_str("<div id=\"tokens\">");
        let tokens = self.registry.daemon().access_tokens;
        if !tokens.is_empty() {
            html.push_str(
                "<section aria-labelledby=\"tokens-heading\"><h2 id=\"tokens-heading\">Access tokens</h2><div class=\"scroll\" tabindex=\"0\" role=\"group\" aria-labelledby=\"tokens-heading\"><table>\
                 <thead><tr><th scope=\"col\">Server</th><th scope=\"col\">Name</th><th scope=\"col\">State</th><th scope=\"col\">Ends</th><th scope=\"col\">Next rotation</th></tr></thead><tbody>\n",
            );
            tokens.iter().try_for_each(|report| write_access_token(report, self.reading.wall, html))?;
            html.push_str("</tbody></table></div></section>");
        }
        html.push_str("</div>");
        Ok(())
    }
}

/// Why files on the disk are not in force, a line each.
fn write_problems(daemon: &DaemonReport, html: &mut String) -> fmt::Result {
    html.push_str("<ul id=\"problems\">");
    let mut problems = daemon.settings_error.iter().chain(&daemon.config_error).flat_map(|errors| errors.lines());
    problems.try_for_each(|line| write!(html, "<li class=\"bad\">{}</li>", Escaped(line)))?;
    html.push_str("</ul>");
    Ok(())
}

/// An entry of the key to the lines.
fn key(class: &str, meaning: &str) -> String {
    format!("<span><svg viewBox=\"0 0 8 14\"><rect class=\"{class}\" width=\"8\" height=\"14\"/></svg>{meaning}</span>")
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests;

//! A documented request.

use std::collections::BTreeMap;

use fake_gitlab::{Gitlab, Request};
use serde_json::Value;

use test_support::http::exchange;

/// The access token of the documents' `<your_access_token>`.
pub(crate) const ACCESS_TOKEN: &str = "glpat-of-the-documents";

/// The tokens of their `<registration_token>` and `<authentication_token>`.
pub(crate) const OTHER_TOKEN: &str = "token-of-the-documents";

/// Parameters that this client adds to a documented request: the page and the machine.
const ADDED: [&str; 7] = ["page", "per_page", "pagination", "order_by", "sort", "system_id", "with_projects"];

/// A documented request.
#[derive(Clone, Debug)]
pub(crate) struct Documented {
    pub(crate) text: String,
    pub(crate) method: String,
    /// The path with its query.
    pub(crate) path: String,
    access_token: Option<String>,
    form: Vec<(String, String)>,
}

impl Documented {
    /// Parses a curl line, or a line such as `GET /runners/:id`, whose names are replaced by numbers.
    pub(crate) fn parse(text: &str) -> Self {
        let filled = text
            .replace("<your_access_token>", ACCESS_TOKEN)
            .replace("<registration_token>", OTHER_TOKEN)
            .replace("<authentication_token>", OTHER_TOKEN)
            .replace("<current token>", OTHER_TOKEN)
            .replace("t0k3n", OTHER_TOKEN)
            .replace(":runner_id", "9")
            .replace(":id", "6");
        let mut words = words(&filled).into_iter();
        let is_curl = filled.starts_with("curl ");
        let mut documented = Self {
            text: text.to_owned(),
            method: if is_curl { "GET".to_owned() } else { words.next().unwrap() },
            path: String::new(),
            access_token: (!is_curl && needs_access(&filled)).then(|| ACCESS_TOKEN.to_owned()),
            form: Vec::new(),
        };
        while let Some(word) = words.next() {
            match word.as_str() {
                "curl" => {}
                "--request" => documented.method = words.next().unwrap(),
                "--header" => {
                    let header = words.next().unwrap();
                    documented.access_token = Some(header.strip_prefix("PRIVATE-TOKEN: ").unwrap().to_owned());
                }
                "--form" => {
                    let (name, value) =
                        words.next().unwrap().split_once('=').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
                    documented.form.push((name, value));
                }
                url => documented.path = path(url),
            }
        }
        documented.fill_in();
        documented
    }

    /// The same request for the list without `/all`.
    pub(crate) fn without_all(&self) -> Self {
        Self { path: self.path.replace("/runners/all", "/runners"), ..self.clone() }
    }

    /// Sends it as curl does: `--form` makes a multipart body.
    pub(crate) fn send(&self, gitlab: &Gitlab) {
        let mut body = String::new();
        for (name, value) in &self.form {
            body.push_str(&format!("--part\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"));
        }
        let mut headers = Vec::new();
        if !body.is_empty() {
            body.push_str("--part--\r\n");
            headers.push(("Content-Type", "multipart/form-data; boundary=part"));
        }
        if let Some(token) = &self.access_token {
            headers.push(("PRIVATE-TOKEN", token));
        }
        exchange(gitlab.address(), &self.method, &self.path, &headers, body.as_bytes()).unwrap();
    }

    /// Adds the parameters that the call requires but the document omits.
    fn fill_in(&mut self) {
        let needs_token = self.access_token.is_none() && self.form.is_empty();
        if needs_token {
            self.form.push(("token".to_owned(), OTHER_TOKEN.to_owned()));
        }
        if self.form.is_empty() && self.method == "PUT" {
            self.form.push(("description".to_owned(), "new".to_owned()));
        }
        if self.form.is_empty() && self.method == "POST" && self.path.ends_with("/runners") {
            self.form.push(("runner_id".to_owned(), "9".to_owned()));
        }
    }
}

/// Splits a line at spaces, except within quotes.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (position, part) in text.split('"').enumerate() {
        if position % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn path(url: &str) -> String {
    let path = url.strip_prefix("https://gitlab.example.com").unwrap_or(url);
    if path.starts_with("/api") || path.starts_with("/ci") { path.to_owned() } else { format!("/api/v4{path}") }
}

/// Whether a line such as `DELETE /runners` stands for a call with an access token.
fn needs_access(line: &str) -> bool {
    let by_other_tokens =
        ["POST /ci", "DELETE /ci", "POST /runners/verify", "POST /runners/reset_authentication_token"];
    !matches!(line, "POST /runners" | "DELETE /runners") && !by_other_tokens.iter().any(|start| line.starts_with(start))
}

/// The parameters of a request without those that this client adds to every request.
pub(crate) fn essential(request: &Request, documented: &Request) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let is_added = |name: &str| ADDED.contains(&name) && !documented.parameters.contains_key(name);
    let parameters = request.parameters.iter().filter(|(name, _)| !is_added(name));
    parameters.map(|(name, value)| (name.clone(), text(value))).collect()
}

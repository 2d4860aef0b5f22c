//! Reads a complete request and its parameters from query and body.

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::{HeaderMap, Method, Uri};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use crate::api::parameters::Parameters;

/// A complete request.
pub(super) struct Received {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) parameters: Parameters,
}

impl Received {
    /// Reads the body and collects the parameters.
    ///
    /// # Errors
    /// The client disconnects before the request is complete.
    pub(super) async fn read(request: hyper::Request<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let mut parameters = Map::new();
        add_pairs(&mut parameters, head.uri.query().unwrap_or_default());
        add_body(&mut parameters, &head.headers, &body).await;
        Ok(Self { method: head.method, uri: head.uri, headers: head.headers, body, parameters: Parameters(parameters) })
    }

    /// Whether the body is declared as JSON.
    pub(super) fn is_json(&self) -> bool {
        content_type(&self.headers).starts_with("application/json")
    }
}

async fn add_body(parameters: &mut Map<String, Value>, headers: &HeaderMap, body: &Bytes) {
    let content_type = content_type(headers);
    if content_type.starts_with("application/json") {
        // JSON other than an object has no parameters; the official client sends `null`.
        if let Ok(Value::Object(fields)) = serde_json::from_slice(body) {
            parameters.extend(fields);
        }
    } else if content_type.starts_with("application/x-www-form-urlencoded") {
        add_pairs(parameters, &String::from_utf8_lossy(body));
    } else if let Ok(boundary) = multer::parse_boundary(content_type) {
        add_parts(parameters, boundary, body).await;
    }
}

async fn add_parts(parameters: &mut Map<String, Value>, boundary: String, body: &Bytes) {
    let chunks = http_body_util::Full::new(body.clone()).into_data_stream();
    let mut parts = multer::Multipart::new(chunks, boundary);
    while let Ok(Some(part)) = parts.next_field().await {
        let Some(name) = part.name().map(str::to_owned) else {
            continue;
        };
        if let Ok(text) = part.text().await {
            insert(parameters, &name, text);
        }
    }
}

fn add_pairs(parameters: &mut Map<String, Value>, pairs: &str) {
    for pair in pairs.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        insert(parameters, &decoded(name), decoded(value));
    }
}

/// Sets a parameter; `a[b]` is the field `b` of the object `a`, and `a[]` adds to the array `a`.
fn insert(parameters: &mut Map<String, Value>, name: &str, text: String) {
    let nested = name.strip_suffix(']').and_then(|name| name.split_once('['));
    match nested {
        None => {
            parameters.insert(name.to_owned(), Value::String(text));
        }
        Some((array, "")) => {
            let items = parameters.entry(array).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(items) = items {
                items.push(Value::String(text));
            }
        }
        Some((object, field)) => {
            let fields = parameters.entry(object).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(fields) = fields {
                insert(fields, &field.replacen("][", "[", 1), text);
            }
        }
    }
}

fn decoded(text: &str) -> String {
    percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned()
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(pairs: &str) -> Value {
        let mut parameters = Map::new();
        add_pairs(&mut parameters, pairs);
        Value::Object(parameters)
    }

    #[test]
    fn form_pairs_are_decoded() {
        assert_eq!(parsed("a=1%202+3&b"), serde_json::json!({ "a": "1 2 3", "b": "" }));
    }

    #[test]
    fn brackets_make_nested_parameters() {
        let expected = serde_json::json!({ "info": { "name": "x" }, "tags": ["a", "b"] });
        assert_eq!(parsed("info[name]=x&tags[]=a&tags[]=b"), expected);
    }
}

//! Parses config.toml into entries and their positions.

use std::ops::Range;
use std::path::{Path, PathBuf};

use toml_edit::{Document, Item, TableLike, Value};

use super::entry::{Entry, EntryProblem, EntryToken};
use super::error::Error;
use super::patch::{line_breaks, line_number, syntax_error};
use crate::files::Exposure;
use crate::model::{Expiry, RunnerId, ServerUrl, Timestamp, TlsPaths};
use crate::secret::{Token, TokenError};

/// In config.toml: the token never expires, or the time is unknown.
pub(super) const NEVER: &str = "0001-01-01T00:00:00Z";

/// The feature flag that disables rotation of an entry's token.
const NO_ROTATION: &str = "FF_DISABLE_AUTOMATIC_TOKEN_ROTATION";

/// The parser's context.
#[derive(Clone, Copy, Debug)]
pub(super) struct ParseContext<'a> {
    /// For messages.
    pub(super) path: &'a Path,
    /// Looks an environment variable up.
    pub(super) variables: fn(&str) -> Option<String>,
    /// How another user could have written the file.
    pub(super) exposure: Option<Exposure>,
}

/// A parsed config.toml.
pub(super) struct ConfigFile<'t> {
    pub(super) text: &'t str,
    pub(super) document: Document<&'t str>,
    path: PathBuf,
    variables: fn(&str) -> Option<String>,
}

impl<'t> ConfigFile<'t> {
    /// Parses a text.
    ///
    /// # Errors
    /// [`Error::Syntax`] or [`Error::RunnersShape`].
    pub(super) fn parse(text: &'t str, reading: ParseContext<'_>) -> Result<Self, Error> {
        let document = Document::parse(text).map_err(|error| {
            let (line, column, message) = syntax_error(text, &error);
            Error::Syntax { path: reading.path.to_owned(), line, column, message }
        })?;
        let file = Self { text, document, path: reading.path.to_owned(), variables: reading.variables };
        file.check_shape()?;
        Ok(file)
    }

    /// The tables of the entries, in the order of the file.
    pub(super) fn tables(&self) -> Vec<&dyn TableLike> {
        match self.document.get("runners") {
            Some(Item::ArrayOfTables(tables)) => tables.iter().map(|table| table as &dyn TableLike).collect(),
            Some(Item::Value(Value::Array(array))) => {
                array.iter().filter_map(Value::as_inline_table).map(|table| table as &dyn TableLike).collect()
            }
            Some(Item::None | Item::Table(_) | Item::Value(_)) | None => Vec::new(),
        }
    }

    /// The span of `runners = [...]`, if the entries are inline.
    pub(super) fn inline_array(&self) -> Option<Range<usize>> {
        match self.document.get("runners") {
            Some(Item::Value(Value::Array(array))) => array.span(),
            Some(Item::None | Item::Table(_) | Item::Value(_) | Item::ArrayOfTables(_)) | None => None,
        }
    }

    /// The entries themselves.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let (mut line, mut counted) = (1, 0);
        let mut entries = Vec::new();
        for (table, span) in self.tables().into_iter().zip(self.table_spans()) {
            line += line_breaks(self.text.get(counted..span.start).unwrap_or_default());
            counted = counted.max(span.start);
            entries.push(self.entry(entries.len(), line, table));
        }
        entries
    }

    /// The span of each entry's header or inline table.
    pub(super) fn table_spans(&self) -> Vec<Range<usize>> {
        match self.document.get("runners") {
            Some(Item::ArrayOfTables(tables)) => tables.iter().map(|table| table.span().unwrap_or_default()).collect(),
            Some(Item::Value(Value::Array(array))) => {
                array.iter().map(|value| value.span().unwrap_or_default()).collect()
            }
            Some(Item::None | Item::Table(_) | Item::Value(_)) | None => Vec::new(),
        }
    }

    fn check_shape(&self) -> Result<(), Error> {
        let start = match self.document.get_key_value("runners") {
            None | Some((_, Item::None | Item::ArrayOfTables(_))) => return Ok(()),
            Some((_, Item::Value(Value::Array(array)))) if array.iter().all(Value::is_inline_table) => return Ok(()),
            Some((key, item)) => item.span().or_else(|| key.span()).unwrap_or_default().start,
        };
        Err(Error::RunnersShape { path: self.path.clone(), line: line_number(self.text, start) })
    }

    fn entry(&self, position: usize, line: usize, table: &dyn TableLike) -> Entry {
        let mut keys = EntryReader { table, problems: Vec::new() };
        let url = keys.url();
        let token = keys.token(self.variables);
        let id = keys.id();
        let tls = TlsPaths {
            ca_file: keys.text("tls-ca-file").map(PathBuf::from),
            cert_file: keys.text("tls-cert-file").map(PathBuf::from),
            key_file: keys.text("tls-key-file").map(PathBuf::from),
        };
        Entry {
            position,
            line,
            url,
            id,
            token,
            tls: tls.into(),
            name: keys.text("name"),
            obtained_at: keys.time("token_obtained_at").at(),
            expiry: keys.time("token_expires_at"),
            executor: keys.text("executor").map(Into::into),
            rotation_disabled: is_rotation_disabled(table),
            problems: keys.problems,
        }
    }
}

/// Reads the keys of one entry and collects problems.
struct EntryReader<'t> {
    table: &'t dyn TableLike,
    problems: Vec<EntryProblem>,
}

impl EntryReader<'_> {
    fn url(&mut self) -> Option<ServerUrl> {
        let Some(text) = self.text("url") else {
            if !self.table.contains_key("url") {
                self.problems.push(EntryProblem::NoUrl);
            }
            return None;
        };
        match text.parse() {
            Ok(url) => Some(url),
            Err(problem) => {
                self.problems.push(EntryProblem::Url(problem));
                None
            }
        }
    }

    fn token(&mut self, variables: fn(&str) -> Option<String>) -> EntryToken {
        let Some(text) = self.text("token") else {
            if !self.table.contains_key("token") {
                self.problems.push(EntryProblem::NoToken);
            }
            return EntryToken::Absent;
        };
        let token = understood_token(&text, variables);
        match &token {
            EntryToken::Placeholder if text.is_empty() => self.problems.push(EntryProblem::NoToken),
            EntryToken::Placeholder => self.problems.push(EntryProblem::PlaceholderToken),
            EntryToken::Unusable(problem) => self.problems.push(EntryProblem::Token(*problem)),
            EntryToken::Variable { name, token: None } => self.problems.push(EntryProblem::Variable(name.clone())),
            EntryToken::Absent
            | EntryToken::Literal(_)
            | EntryToken::Padded(_)
            | EntryToken::Variable { token: Some(_), .. } => {}
        }
        token
    }

    fn id(&mut self) -> Option<RunnerId> {
        let item = self.table.get("id")?;
        let number = item.as_integer().and_then(|number| u64::try_from(number).ok());
        if number.is_none() {
            self.problems.push(EntryProblem::WrongType { key: "id", expected: "a runner's number" });
        }
        RunnerId::try_new(number?).ok()
    }

    fn text(&mut self, key: &'static str) -> Option<String> {
        let item = self.table.get(key)?;
        if item.as_str().is_none() {
            self.problems.push(EntryProblem::WrongType { key, expected: "text in quotes" });
        }
        item.as_str().map(str::to_owned)
    }

    fn time(&mut self, key: &'static str) -> Expiry {
        let Some(item) = self.table.get(key) else { return Expiry::Unknown };
        let text = match item.as_value() {
            Some(Value::Datetime(time)) => Some(time.value().to_string()),
            Some(Value::String(text)) => Some(text.value().clone()),
            Some(Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Array(_) | Value::InlineTable(_))
            | None => None,
        };
        match text {
            Some(text) if text.starts_with("0001-01-01") => Expiry::Never,
            Some(text) if text.parse::<Timestamp>().is_ok() => text.parse().map_or(Expiry::Unknown, Expiry::At),
            Some(_) | None => {
                self.problems.push(EntryProblem::WrongType { key, expected: "a time such as 2026-01-31T12:00:00Z" });
                Expiry::Unknown
            }
        }
    }
}

fn understood_token(text: &str, variables: fn(&str) -> Option<String>) -> EntryToken {
    let bare = text.trim();
    if bare.is_empty() || bare.contains(|character: char| matches!(character, '<' | '>') || character.is_whitespace()) {
        return EntryToken::Placeholder;
    }
    if bare != text {
        return Token::parse(bare).map_or_else(EntryToken::Unusable, EntryToken::Padded);
    }
    let Some(variable) = text.strip_prefix('$') else {
        return Token::parse(text).map_or_else(EntryToken::Unusable, EntryToken::Literal);
    };
    let name = variable.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(variable);
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return EntryToken::Unusable(TokenError::Character);
    }
    let token = variables(name).and_then(|value| Token::parse(value.trim()).ok());
    EntryToken::Variable { name: name.to_owned(), token }
}

fn is_rotation_disabled(table: &dyn TableLike) -> bool {
    let flag = table.get("feature_flags").and_then(|flags| flags.get(NO_ROTATION));
    if let Some(flag) = flag {
        return flag.as_bool() == Some(true) || flag.as_str().is_some_and(is_true);
    }
    let environment = table.get("environment").and_then(Item::as_array);
    environment.into_iter().flatten().filter_map(Value::as_str).any(|variable| {
        variable.split_once('=').is_some_and(|(name, value)| name.trim() == NO_ROTATION && is_true(value))
    })
}

fn is_true(text: &str) -> bool {
    matches!(text.trim(), "true" | "TRUE" | "True" | "1" | "t" | "T")
}

//! Where a secret is stored: `{ file = "…" }`, `{ credential = "…" }` or `{ env = "…" }`.

use std::path::Path;

use super::Environment;
use super::diagnostics::{Diagnostics, Place, Placed};
use super::table::TableReader;
use crate::secret::{Source, Token};

/// Reads where a secret is stored: exactly one of `file`, `credential`, `env`.
pub(super) fn source(
    table: &mut TableReader<'_>,
    key: &'static str,
    environment: &Environment,
    diagnostics: &mut Diagnostics,
) -> Option<Placed<Source>> {
    let expected = "{ file = \"…\" }, { credential = \"…\" } or { env = \"…\" }";
    let mut table = table.table(key, expected, diagnostics)?;
    let before = diagnostics.len();
    let given = GivenSource::read(&mut table, diagnostics);
    let place = table.place().clone();
    table.finish(diagnostics);
    given.one(key, &place, diagnostics.len() == before, environment, diagnostics)
}

/// The keys of a source as they were given.
pub(super) struct GivenSource {
    file: Option<Placed<Source>>,
    credential: Option<Placed<String>>,
    variable: Option<Placed<String>>,
}

impl GivenSource {
    pub(super) fn read(table: &mut TableReader<'_>, diagnostics: &mut Diagnostics) -> Self {
        Self {
            file: table.path("file", diagnostics).map(|path| path.map(Source::File)),
            credential: table.text("credential", diagnostics),
            variable: table.text("env", diagnostics),
        }
    }

    /// The only source. None and several are reported if the table had no other mistake.
    pub(super) fn one(
        self,
        key: &'static str,
        place: &Place,
        is_flawless: bool,
        environment: &Environment,
        diagnostics: &mut Diagnostics,
    ) -> Option<Placed<Source>> {
        match (self.file, self.credential, self.variable) {
            (Some(file), None, None) => Some(file),
            (None, Some(name), None) => credential(&name, environment, diagnostics),
            (None, None, Some(name)) => variable(&name, environment, diagnostics),
            _ => {
                if is_flawless {
                    diagnostics.add(place, format!("`{key}` needs exactly one of `file`, `credential` and `env`"));
                }
                None
            }
        }
    }
}

fn credential(
    name: &Placed<String>,
    environment: &Environment,
    diagnostics: &mut Diagnostics,
) -> Option<Placed<Source>> {
    let is_plain = Path::new(&name.value).file_name().is_some_and(|plain| plain == name.value.as_str());
    if !is_plain {
        diagnostics.add(&name.place, "`credential` is the name in the unit's LoadCredential=, not a path");
        return None;
    }
    Some(Placed::new(super::credential(&name.value, environment), name.place.clone()))
}

fn variable(name: &Placed<String>, environment: &Environment, diagnostics: &mut Diagnostics) -> Option<Placed<Source>> {
    let Some(value) = environment.text(&name.value) else {
        diagnostics.add(&name.place, format!("the variable `{}` is not set", name.value));
        return None;
    };
    let invalid =
        |error: &_| diagnostics.add(&name.place, format!("the variable `{}` holds no token: {error}", name.value));
    let token = Token::parse(value.trim()).inspect_err(invalid).ok()?;
    Some(Placed::new(Source::Value { token, origin: name.value.clone() }, name.place.clone()))
}

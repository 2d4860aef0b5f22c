//! Checks `src/` against the tables in the docs of `src/lib.rs`: which room imports which, and which room uses which
//! crate. Also checks that the docs list every dependency, and that no file of `src/` includes a file from `tests/`.
//! Test-only code is skipped.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

#[test]
fn rooms_and_crates_are_used_as_the_tables_allow() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = root.join("src");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let library = fs::read_to_string(source.join("lib.rs")).unwrap();
    let violations = Tables::parse(&library, &rooms(&library)).and_then(|tables| {
        let mut checker = Checker::new(&tables);
        checker.violations = tables.check_dependencies(&manifest);
        for room in rooms(&library) {
            checker.check_module(&source.join(format!("{room}.rs")), &[room]);
        }
        if checker.violations.is_empty() { Ok(()) } else { Err(checker.violations) }
    });
    assert_eq!(violations, Ok(()));
}

#[test]
fn fields_of_the_log_are_words_and_no_debug_output() {
    let mut found = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") && !is_log_itself(&path) {
                let tokens: TokenStream = fs::read_to_string(&path).unwrap().parse().unwrap();
                let lines = debug_fields(tokens).into_iter();
                found.extend(lines.map(|line| format!("{}:{line}", path.display())));
            }
        }
    }
    assert_eq!(found, [""; 0], "use a word of the type, as by `as_str`, or `%`");
    let tokens = "tracing::info!(a, ?b, \"c\"); tracing::warn!(a = ?b, \"c\"); tracing::warn!(a = b?.c, \"c\");";
    assert_eq!(debug_fields(tokens.parse().unwrap()), [1, 1]);
}

/// The tests of the log are about its formats, of which one is that of Debug.
fn is_log_itself(path: &Path) -> bool {
    path.starts_with(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/log"))
}

/// The lines of the fields that a macro of `tracing` writes by Debug.
fn debug_fields(tokens: TokenStream) -> Vec<usize> {
    let tokens: Vec<_> = tokens.into_iter().collect();
    let mut lines = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let TokenTree::Group(group) = token else { continue };
        let before: Vec<_> = tokens[at.saturating_sub(5)..at].iter().map(ToString::to_string).collect();
        if matches!(&before[..], [tracing, _, _, _, mark] if tracing == "tracing" && mark == "!") {
            let inner: Vec<_> = group.stream().into_iter().collect();
            let is_mark = |token: &TokenTree, marks: &[char]| matches!(token, TokenTree::Punct(punct) if marks.contains(&punct.as_char()));
            for (at, token) in inner.iter().enumerate() {
                let begins = at.checked_sub(1).is_none_or(|before| is_mark(&inner[before], &['=', ',']));
                if begins && is_mark(token, &['?']) {
                    lines.push(token.span().start().line);
                }
            }
        }
        lines.extend(debug_fields(group.stream()));
    }
    lines
}

/// The tables of `src/lib.rs`.
struct Tables {
    rooms: BTreeSet<String>,
    /// The rooms that each room may import.
    imports: BTreeMap<String, BTreeSet<String>>,
    /// The room of each crate, by its name in code.
    crates: BTreeMap<String, BTreeSet<String>>,
    /// The crates that every room may use, by their names in code.
    shared_crates: BTreeSet<String>,
}

impl Tables {
    /// Reads the tables from the docs of a library with these rooms.
    fn parse(library: &str, rooms: &BTreeSet<String>) -> Result<Self, Vec<String>> {
        let mut tables = Self {
            rooms: rooms.clone(),
            imports: BTreeMap::new(),
            crates: BTreeMap::new(),
            shared_crates: shared_crates(library),
        };
        for [names, allowed] in rows(library, "| room | imports |") {
            let listed = in_backticks(&allowed);
            let allowed = match allowed.as_str() {
                "nothing of ours" => BTreeSet::new(),
                all if all.starts_with("all rooms") => rooms - &listed,
                _ => listed,
            };
            tables.imports.extend(in_backticks(&names).into_iter().map(|name| (name, allowed.clone())));
        }
        for [names, owners] in rows(library, "| crate | room |") {
            let names = in_backticks(&names);
            tables.crates.extend(names.iter().map(|name| (name_in_code(name), in_backticks(&owners))));
        }
        let in_table: BTreeSet<String> = tables.imports.keys().cloned().collect();
        let named: BTreeSet<String> =
            tables.imports.values().chain(tables.crates.values()).flatten().cloned().collect();
        let missing = (rooms - &in_table).into_iter().map(|room| format!("room `{room}` is not in the import table"));
        let unknown =
            (&(&in_table | &named) - rooms).into_iter().map(|name| format!("`{name}` is in a table, but no room"));
        let errors: Vec<String> = missing.chain(unknown).collect();
        if errors.is_empty() { Ok(tables) } else { Err(errors) }
    }

    /// Compares the listed crates with the dependencies of a Cargo.toml.
    fn check_dependencies(&self, manifest: &str) -> Vec<String> {
        let manifest: toml::Table = manifest.parse().unwrap();
        let dependencies: BTreeSet<String> =
            manifest["dependencies"].as_table().unwrap().keys().map(|name| name_in_code(name)).collect();
        let listed: BTreeSet<String> = self.crates.keys().chain(&self.shared_crates).cloned().collect();
        let unlisted = (&dependencies - &listed).into_iter().map(|name| format!("the crate `{name}` is not listed"));
        let unknown =
            (&listed - &dependencies).into_iter().map(|name| format!("`{name}` is listed, but no dependency"));
        unlisted.chain(unknown).collect()
    }
}

fn name_in_code(crate_name: &str) -> String {
    crate_name.replace('-', "_")
}

/// The crates of the paragraph that allows their use in every room.
fn shared_crates(library: &str) -> BTreeSet<String> {
    let lines: Vec<&str> = library.lines().filter_map(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let paragraphs = lines.split(|line| line.is_empty()).map(|lines| lines.join(" "));
    let shared: Vec<String> = paragraphs.filter(|text| text.contains("used wherever they are needed")).collect();
    assert_eq!(shared.len(), 1, "paragraphs about crates that are used wherever they are needed");
    in_backticks(&shared[0]).iter().map(|name| name_in_code(name)).collect()
}

/// The public modules that a library declares.
fn rooms(library: &str) -> BTreeSet<String> {
    let items = syn::parse_file(library).unwrap().items;
    items
        .iter()
        .filter_map(|item| if let syn::Item::Mod(it) = item { Some(it.ident.to_string()) } else { None })
        .collect()
}

/// The rows of the table with this heading, two cells each.
fn rows(library: &str, heading: &str) -> Vec<[String; 2]> {
    let lines = library.lines().filter_map(|line| line.strip_prefix("//!")).map(str::trim);
    let table = lines.skip_while(|line| *line != heading).skip(2).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows: Vec<[String; 2]> = table.map(|line| cells(line).try_into().unwrap()).collect();
    assert!(!rows.is_empty(), "no table `{heading}`");
    rows
}

fn in_backticks(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Visits the files of a room and its modules.
struct Checker<'a> {
    tables: &'a Tables,
    file: PathBuf,
    /// The current module, from its room on.
    module: Vec<String>,
    violations: Vec<String>,
}

impl<'a> Checker<'a> {
    fn new(tables: &'a Tables) -> Self {
        Self { tables, file: PathBuf::new(), module: Vec::new(), violations: Vec::new() }
    }

    /// Checks the file of a module.
    fn check_module(&mut self, path: &Path, module: &[String]) {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.check_text(path, module, &text);
    }

    fn check_text(&mut self, path: &Path, module: &[String], text: &str) {
        let outer = (self.file.clone(), self.module.clone());
        (self.file, self.module) = (path.to_owned(), module.to_vec());
        let file = syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.visit_file(&file);
        (self.file, self.module) = outer;
    }

    fn report(&mut self, line: usize, what: &str) {
        self.violations.push(format!("{}:{line}: {what}", self.file.display()));
    }

    /// The segments below the root of the crate; `None` if the path does not start there.
    fn below_root<'s>(&self, segments: &'s [String]) -> Option<&'s [String]> {
        let segments = segments.strip_prefix(&["self".to_owned()]).unwrap_or(segments);
        let supers = segments.iter().take_while(|segment| *segment == "super").count();
        match segments.first().map(String::as_str) {
            Some("crate") => Some(&segments[1..]),
            Some("super") if supers == self.module.len() => Some(&segments[supers..]),
            _ => None,
        }
    }

    /// Checks a path from its first segments on.
    fn check_path(&mut self, segments: &[String], line: usize) {
        let room = self.module[0].clone();
        if let Some([imported, ..]) = self.below_root(segments)
            && self.tables.rooms.contains(imported)
            && *imported != room
            && !self.tables.imports[&room].contains(imported)
        {
            self.report(line, &format!("`{room}` must not import `{imported}` ({})", segments.join("::")));
        }
        if let [name, _, ..] = segments {
            self.check_crate(name, line);
        }
    }

    /// Checks the use of a crate; any other name passes.
    fn check_crate(&mut self, name: &str, line: usize) {
        let room = self.module[0].clone();
        if let Some(owners) = self.tables.crates.get(name).filter(|owners| !owners.contains(&room)) {
            let owners = owners.iter().cloned().collect::<Vec<_>>().join(", ");
            self.report(line, &format!("`{room}` must not use the crate `{name}` of `{owners}`"));
        }
    }

    /// Checks every path of a `use` declaration.
    fn check_use(&mut self, tree: &syn::UseTree, prefix: &[String]) {
        let extended = |ident: &syn::Ident| [prefix, &[ident.to_string()]].concat();
        match tree {
            syn::UseTree::Path(it) => self.check_use(&it.tree, &extended(&it.ident)),
            syn::UseTree::Group(it) => it.items.iter().for_each(|tree| self.check_use(tree, prefix)),
            syn::UseTree::Name(it) => self.check_imported(&extended(&it.ident), it.ident.span().start().line),
            syn::UseTree::Rename(it) => {
                let path = extended(&it.ident);
                self.check_imported(&path, it.ident.span().start().line);
                self.check_root_is_not_hidden(&path, it.ident.span().start().line);
            }
            syn::UseTree::Glob(it) => {
                self.check_imported(prefix, it.star_token.span.start().line);
                self.check_root_is_not_hidden(prefix, it.star_token.span.start().line);
            }
        }
    }

    /// Checks the path of an import, which can also be a crate alone.
    fn check_imported(&mut self, path: &[String], line: usize) {
        self.check_path(path, line);
        if let [name] = path {
            self.check_crate(name, line);
        }
    }

    /// Reports a glob or an alias of the crate's root, behind which any room can be imported.
    fn check_root_is_not_hidden(&mut self, path: &[String], line: usize) {
        let path = path.strip_suffix(&["self".to_owned()]).unwrap_or(path);
        if self.below_root(path).is_some_and(<[String]>::is_empty) {
            self.report(line, &format!("`{}` must import rooms by their names", self.module[0]));
        }
    }

    /// Checks every path among the tokens of a macro call or an attribute.
    fn check_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let (mut line, mut colons) = (0, 0);
        for token in tokens {
            match &token {
                TokenTree::Ident(ident) if colons == 2 && !path.is_empty() => path.push(ident.to_string()),
                TokenTree::Ident(ident) => {
                    self.check_path(&path, line);
                    (path, line) = (vec![ident.to_string()], ident.span().start().line);
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => {
                    colons += 1;
                    continue;
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) | TokenTree::Group(_) => {
                    self.check_path(&path, line);
                    path.clear();
                }
            }
            if let TokenTree::Group(group) = token {
                self.check_tokens(group.stream());
            }
            colons = 0;
        }
        self.check_path(&path, line);
    }

    /// Reports a file that is included from `tests/`.
    fn check_included(&mut self, tokens: &TokenStream, line: usize) {
        if tokens.to_string().contains("tests/") {
            self.report(line, &format!("includes a file from tests/: {tokens}"));
        }
    }
}

impl<'ast> Visit<'ast> for Checker<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        for attribute in attributes(item).iter().filter(|it| it.path().is_ident("path")) {
            self.check_included(&meta_tokens(attribute), attribute.span().start().line);
        }
        if !attributes(item).iter().any(is_test_only) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !item.attrs.iter().any(is_test_only) {
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let module = [&self.module[..], &[item.ident.to_string()]].concat();
        if item.content.is_some() {
            let outer = std::mem::replace(&mut self.module, module);
            visit::visit_item_mod(self, item);
            self.module = outer;
        } else {
            let directory = self.file.with_extension("");
            self.check_module(&directory.join(format!("{}.rs", item.ident)), &module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.check_use(&item.tree, &[]);
        visit::visit_item_use(self, item);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.check_crate(&item.ident.to_string(), item.ident.span().start().line);
        visit::visit_item_extern_crate(self, item);
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.check_tokens(list.tokens.clone());
        visit::visit_meta_list(self, list);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.check_path(&segments, path.span().start().line);
        visit::visit_path(self, path);
    }

    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if call.path.segments.last().is_some_and(|name| name.ident.to_string().starts_with("include")) {
            self.check_included(&call.tokens, call.span().start().line);
        }
        self.visit_path(&call.path);
        self.check_tokens(call.tokens.clone());
    }
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(it) => &it.attrs,
        syn::Item::Enum(it) => &it.attrs,
        syn::Item::ExternCrate(it) => &it.attrs,
        syn::Item::Fn(it) => &it.attrs,
        syn::Item::Impl(it) => &it.attrs,
        syn::Item::Macro(it) => &it.attrs,
        syn::Item::Mod(it) => &it.attrs,
        syn::Item::Static(it) => &it.attrs,
        syn::Item::Struct(it) => &it.attrs,
        syn::Item::Trait(it) => &it.attrs,
        syn::Item::Type(it) => &it.attrs,
        syn::Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

/// Whether an attribute is `cfg(test)` or `cfg(any(test, …))`.
fn is_test_only(attribute: &syn::Attribute) -> bool {
    let is_any = |tokens: TokenStream| {
        let mut tokens = tokens.into_iter();
        match (tokens.next(), tokens.next()) {
            (Some(TokenTree::Ident(any)), Some(TokenTree::Group(group))) => {
                any == "any" && group.delimiter() == Delimiter::Parenthesis && has_test(group.stream())
            }
            (Some(TokenTree::Ident(test)), None) => test == "test",
            _ => false,
        }
    };
    attribute.path().is_ident("cfg") && is_any(meta_tokens(attribute))
}

fn has_test(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| matches!(token, TokenTree::Ident(ident) if ident == "test"))
}

fn meta_tokens(attribute: &syn::Attribute) -> TokenStream {
    match &attribute.meta {
        syn::Meta::List(list) => list.tokens.clone(),
        syn::Meta::NameValue(pair) => match &pair.value {
            syn::Expr::Lit(it) => TokenTree::from(proc_macro2::Literal::string(&literal_text(&it.lit))).into(),
            _ => TokenStream::new(),
        },
        syn::Meta::Path(_) => TokenStream::new(),
    }
}

fn literal_text(literal: &syn::Lit) -> String {
    if let syn::Lit::Str(text) = literal { text.value() } else { String::new() }
}

/// The checker's own tests, on a library of three rooms.
mod checker {
    use super::*;

    const LIBRARY: &str = "\
//! | room | imports |
//! |---|---|
//! | `low` | nothing of ours |
//! | `middle` | `low` |
//! | `high` | all rooms |
//!
//! | crate | room |
//! |---|---|
//! | `two-words` | [`low`] |
//!
//! `shared` and `also-shared` (in two lines) are
//! used wherever they are needed.
pub mod low;
pub mod middle;
pub mod high;
";

    /// The violations in a module of a room, without the name of the file.
    fn violations(module: &[&str], text: &str) -> Vec<String> {
        let Ok(tables) = Tables::parse(LIBRARY, &rooms(LIBRARY)) else { panic!("the tables do not parse") };
        let mut checker = Checker::new(&tables);
        let module: Vec<String> = module.iter().map(|&name| name.to_owned()).collect();
        checker.check_text(Path::new("f"), &module, text);
        checker.violations
    }

    #[track_caller]
    fn assert_violation(module: &[&str], text: &str, expected: &str) {
        let found = violations(module, text);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{text}: {found:?}");
    }

    #[test]
    fn allowed_imports_pass() {
        assert_eq!(violations(&["middle"], "use crate::low::A; use crate::middle::B; use two::C;"), [""; 0]);
        assert_eq!(violations(&["high"], "use crate::{low, middle::{self, C}}; pub use super::low;"), [""; 0]);
        assert_eq!(
            violations(&["low", "inner"], "use super::A; pub(in crate::low) fn f() { two_words::g() }"),
            [""; 0]
        );
    }

    #[test]
    fn wrong_imports_are_reported_with_their_line() {
        let wrong = "f:2: `low` must not import `high`";
        for import in ["use crate::high::A;", "pub use crate::high;", "use crate::{low::A, high::{B, self as c}};"] {
            let found = violations(&["low"], &format!("\n{import}"));
            assert!(!found.is_empty() && found.iter().all(|it| it.starts_with(wrong)), "{import}: {found:?}");
        }
        assert_violation(&["low", "inner"], "\nuse super::super::high::A;", wrong);
        assert_violation(&["low"], "\nmod inner { use super::super::high::A; }", wrong);
        assert_violation(&["low"], "\nfn f() -> u8 { crate::high::metrics() }", wrong);
        assert_violation(&["low"], "\nfn f(it: &crate::high::A) {}", wrong);
        assert_violation(&["low"], "\nfn f() { println!(\"{}\", crate::high::metrics()) }", wrong);
    }

    #[test]
    fn crates_of_other_rooms_are_reported() {
        let wrong = "f:1: `high` must not use the crate `two_words` of `low`";
        for text in ["use two_words::A;", "fn f() { two_words::g() }", "fn f() { assert!(two_words::g()) }"] {
            assert_violation(&["high"], text, wrong);
        }
    }

    #[test]
    fn renamed_and_bare_crates_are_reported() {
        let wrong = "f:1: `high` must not use the crate `two_words` of `low`";
        for text in [
            "use two_words;",
            "use two_words as t;",
            "use {two_words as t};",
            "use ::two_words as t;",
            "use two_words::{self as t};",
            "use two_words::*;",
            "extern crate two_words;",
            "extern crate two_words as t;",
        ] {
            assert_violation(&["high"], text, wrong);
            assert_eq!(violations(&["low"], text), [""; 0]);
        }
    }

    #[test]
    fn globs_and_aliases_of_the_root_are_reported() {
        let wrong = "f:1: `low` must import rooms by their names";
        for text in ["use crate::*;", "pub use super::*;", "use self::super::*;", "use crate as c;", "use super as c;"]
        {
            assert_violation(&["low"], text, wrong);
        }
        assert_violation(&["low"], "use crate::{self as c};", wrong);
        assert_violation(&["low"], "use crate::{low::A, *};", wrong);
        assert_violation(&["low"], "mod inner { use super::super::*; }", wrong);
        assert_eq!(violations(&["low", "inner"], "use super::*; use crate::low::*; use self::A as B;"), [""; 0]);
    }

    #[test]
    fn paths_in_attributes_are_checked() {
        let wrong = "f:1: `high` must not use the crate `two_words` of `low`";
        for text in [
            "#[derive(two_words::A)] struct B;",
            "#[derive(Debug, two_words::A)] enum B {}",
            "#[cfg_attr(unix, derive(two_words::A))] struct B;",
            "#[two_words::attribute] fn f() {}",
            "struct B { #[field(default = two_words::f())] c: u8 }",
        ] {
            assert_violation(&["high"], text, wrong);
        }
        assert_violation(&["low"], "#[derive(crate::high::A)] struct B;", "f:1: `low` must not import `high`");
    }

    #[test]
    fn every_dependency_is_listed_and_no_other_crate() {
        let Ok(tables) = Tables::parse(LIBRARY, &rooms(LIBRARY)) else { panic!("the tables do not parse") };
        let errors = |names: &[&str]| {
            let lines: Vec<_> = names.iter().map(|name| format!("{name} = \"1\"\n")).collect();
            tables.check_dependencies(&format!(
                "[dependencies]\n{}[dev-dependencies]\ntempfile = \"3\"\n",
                lines.concat()
            ))
        };
        assert_eq!(errors(&["also-shared", "shared", "two-words"]), [""; 0]);
        assert_eq!(errors(&["also-shared", "new-one", "shared", "two-words"]), ["the crate `new_one` is not listed"]);
        assert_eq!(errors(&["also-shared", "two-words"]), ["`shared` is listed, but no dependency"]);
    }

    #[test]
    fn test_only_code_is_skipped() {
        for attribute in ["#[cfg(test)]", "#[cfg(any(test, fuzzing))]"] {
            assert_eq!(violations(&["low"], &format!("{attribute} mod tests {{ use crate::high::A; }}")), [""; 0]);
            assert_eq!(violations(&["low"], &format!("{attribute} mod tests;")), [""; 0]);
        }
        assert_eq!(violations(&["low"], "#[cfg(not(test))] use crate::high::A;").len(), 1);
    }

    #[test]
    fn files_from_tests_are_reported() {
        let wrong = "f:1: includes a file from tests/";
        assert_violation(&["low"], "#[cfg(test)] #[path = \"../tests/a.rs\"] mod a;", wrong);
        assert_violation(&["low"], "const A: &str = include_str!(\"../tests/a\");", wrong);
    }

    #[test]
    fn tables_name_every_room_and_no_other() {
        let missing = LIBRARY.replace("//! | `middle` | `low` |\n", "");
        let unknown = LIBRARY.replace("| [`low`] |", "| [`cellar`] |");
        let errors = |library: &str| Tables::parse(library, &rooms(library)).err();
        assert_eq!(errors(&missing), Some(vec!["room `middle` is not in the import table".to_owned()]));
        assert_eq!(errors(&unknown), Some(vec!["`cellar` is in a table, but no room".to_owned()]));
    }
}

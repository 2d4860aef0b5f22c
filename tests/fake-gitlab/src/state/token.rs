//! Tokens in the format of each release. They are random, but fit only for tests.

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::Version;
use crate::state::runner::{Origin, RunnerType};

const HEX: &[u8] = b"0123456789abcdef";
const BASE36: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const FRIENDLY: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_-abcdefghijklmnopqrstuvwxyz";

/// The part of a routable token that carries its route, in characters.
const ROUTE_CHARACTERS: usize = 36;

/// Generates unique tokens.
#[derive(Default)]
pub(crate) struct Tokens {
    seed: RandomState,
    drawn: u64,
}

impl Tokens {
    /// A runner's authentication token.
    ///
    /// The checksum of routable tokens is random, because no client may check it.
    pub(crate) fn runner(&mut self, version: Version, runner_type: RunnerType, origin: Origin) -> String {
        if !version.is_at_least(10, 0) {
            return self.characters(HEX, 30);
        }
        let prefix = match origin {
            Origin::Created => "glrt-",
            Origin::Registered if version.is_at_least(17, 11) => "glrtr-",
            Origin::Registered => "",
        };
        let is_routable = !prefix.is_empty()
            && (version.is_at_least(17, 11) || (version.is_at_least(17, 10) && runner_type != RunnerType::Instance));
        if is_routable {
            let route = self.characters(FRIENDLY, ROUTE_CHARACTERS);
            let checksum = self.characters(BASE36, 7);
            return format!("{prefix}{route}.01.10{checksum}");
        }
        let partition = if version.is_at_least(17, 6) { partition(runner_type) } else { "" };
        format!("{prefix}{partition}{}", self.characters(FRIENDLY, 20))
    }

    /// A registration token; the instance's has no prefix.
    pub(crate) fn registration(&mut self, version: Version, is_for_instance: bool) -> String {
        let prefix = if version.is_at_least(14, 9) && !is_for_instance { "GR1348941" } else { "" };
        format!("{prefix}{}", self.characters(FRIENDLY, 20))
    }

    /// A personal access token.
    pub(crate) fn access(&mut self) -> String {
        format!("glpat-{}", self.characters(FRIENDLY, 20))
    }

    /// An id for a request without one.
    pub(crate) fn request_id(&mut self) -> String {
        self.characters(HEX, 32)
    }

    fn characters(&mut self, alphabet: &[u8], count: usize) -> String {
        (0..count).map(|_| char::from(alphabet[self.draw(alphabet.len())])).collect()
    }

    fn draw(&mut self, below: usize) -> usize {
        self.drawn += 1;
        let mut hasher = self.seed.build_hasher();
        hasher.write_u64(self.drawn);
        let below = u64::try_from(below).expect("an alphabet is short");
        usize::try_from(hasher.finish() % below).expect("below the length of an alphabet")
    }
}

fn partition(runner_type: RunnerType) -> &'static str {
    match runner_type {
        RunnerType::Instance => "t1_",
        RunnerType::Group => "t2_",
        RunnerType::Project => "t3_",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(version: &str, runner_type: RunnerType, origin: Origin) -> String {
        Tokens::default().runner(version.into(), runner_type, origin)
    }

    #[test]
    fn token_format_depends_on_the_release() {
        assert_eq!(token("9", RunnerType::Instance, Origin::Registered).len(), 30);
        assert_eq!(token("15.1", RunnerType::Instance, Origin::Registered).len(), 20);
        assert!(token("17.7", RunnerType::Project, Origin::Registered).starts_with("t3_"));
        assert!(token("18", RunnerType::Project, Origin::Registered).starts_with("glrtr-"));
        assert_eq!(token("16", RunnerType::Group, Origin::Created).len(), 25);
        assert!(token("17.7", RunnerType::Group, Origin::Created).starts_with("glrt-t2_"));
        assert!(token("18", RunnerType::Instance, Origin::Created).contains(".01."));
    }

    #[test]
    fn tokens_are_unique() {
        let mut tokens = Tokens::default();
        let drawn: std::collections::BTreeSet<_> = (0..1000).map(|_| tokens.access()).collect();
        assert_eq!(drawn.len(), 1000);
    }
}

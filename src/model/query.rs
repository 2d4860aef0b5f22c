//! The query of an address: `?q=build&page=2`.

use url::form_urlencoded;

/// The parameters of a query without its question mark, decoded.
#[must_use]
pub fn query_parameters(query: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

/// Encodes parameters as a query without its question mark.
#[must_use]
pub fn encode_query(parameters: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_read_as_it_was_written() {
        let query = encode_query(&[("q", "a&b=ü <x>"), ("page", "2")]);
        assert_eq!(query, "q=a%26b%3D%C3%BC+%3Cx%3E&page=2");
        assert_eq!(query_parameters(&query), [("q".into(), "a&b=ü <x>".into()), ("page".into(), "2".into())]);
        assert_eq!(query_parameters("%ff=%"), [("\u{fffd}".to_owned(), "%".to_owned())]);
    }
}

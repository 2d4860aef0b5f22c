//! Lenient reading of what releases of ten years send: an odd value in one field does not reject its row.

use serde::{Deserialize, Deserializer};

use crate::model::{RunnerId, Timestamp};

/// A number, which old releases send as a string of digits.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum NumberOrDigits {
    Number(u64),
    Digits(String),
}

impl NumberOrDigits {
    pub(super) fn value(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Digits(digits) => digits.parse().ok(),
        }
    }
}

/// Reads a required number.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    optional_number(deserializer)?.ok_or_else(|| serde::de::Error::custom("not a number"))
}

/// Reads a runner's id.
pub(super) fn runner_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RunnerId, D::Error> {
    RunnerId::try_new(number(deserializer)?).map_err(serde::de::Error::custom)
}

/// Reads a number that may be missing.
pub(super) fn optional_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<NumberOrDigits>::deserialize(deserializer)?.and_then(|number| number.value()))
}

/// Reads a point in time; `None` if it is missing or invalid.
pub(super) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use crate::gitlab::fleet::{FleetRunner, Manager};

    #[test]
    fn an_id_is_a_number_or_a_string_of_digits() {
        for id in [json!(6), json!("6")] {
            assert_eq!(from_value::<FleetRunner>(json!({ "id": id })).unwrap().id.number(), 6);
        }
        for id in [json!(0), json!(-1), json!("x"), json!(null), json!([]), json!("9223372036854775808")] {
            assert!(from_value::<FleetRunner>(json!({ "id": id })).is_err(), "{id}");
        }
    }

    #[test]
    fn only_the_id_is_required() {
        let bare: FleetRunner = from_value(json!({ "id": 1, "novel": [1], "online": null, "status": null })).unwrap();
        assert_eq!((bare.online, bare.status, bare.paused, bare.created_at), (None, None, None, None));
        let odd: Manager = from_value(json!({ "id": 1, "contacted_at": "yesterday" })).unwrap();
        assert_eq!(odd.contacted_at, None);
    }
}

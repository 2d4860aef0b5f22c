//! Reading what releases of ten years send: what is odd in one field spoils no row.

use serde::{Deserialize, Deserializer};

use crate::model::{RunnerId, Timestamp};

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Digits(u64),
    Text(String),
}

impl Number {
    fn value(&self) -> Option<u64> {
        match self {
            Self::Digits(number) => Some(*number),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

/// A number, which old releases send as a text.
pub(super) fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = Number::deserialize(deserializer)?.value();
    number.ok_or_else(|| serde::de::Error::custom("not a number"))
}

/// The number of a runner.
pub(super) fn runner_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RunnerId, D::Error> {
    RunnerId::try_new(number(deserializer)?).map_err(serde::de::Error::custom)
}

/// A number that may be missing.
pub(super) fn optional_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<Number>::deserialize(deserializer)?.and_then(|number| number.value()))
}

/// A point in time, or none where there is none or a text that is not one.
pub(super) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.and_then(|text| text.parse().ok()))
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use crate::gitlab::fleet::{FleetRunner, Manager};

    #[test]
    fn an_id_is_a_number_or_its_digits() {
        for id in [json!(6), json!("6")] {
            assert_eq!(from_value::<FleetRunner>(json!({ "id": id })).unwrap().id.number(), 6);
        }
        for id in [json!(0), json!(-1), json!("x"), json!(null), json!([]), json!("9223372036854775808")] {
            assert!(from_value::<FleetRunner>(json!({ "id": id })).is_err(), "{id}");
        }
    }

    #[test]
    fn everything_but_the_id_may_be_missing_null_or_new() {
        let bare: FleetRunner = from_value(json!({ "id": 1, "novel": [1], "online": null, "status": null })).unwrap();
        assert_eq!((bare.online, bare.status, bare.paused, bare.created_at), (None, None, None, None));
        let odd: Manager = from_value(json!({ "id": 1, "contacted_at": "yesterday" })).unwrap();
        assert_eq!(odd.contacted_at, None);
    }
}

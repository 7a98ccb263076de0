//! Strict JSON, as the cloud contract demands it: integers only, no member twice, bounded depth;
//! and the canonical form over which digests are made.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The largest integer that every JSON implementation keeps exactly: 2^53 − 1.
pub const MAX_INTEGER: u64 = (1 << 53) - 1;

/// Objects and arrays within each other. The contract's deepest message needs six; the rest is for
/// members that a newer cloud may add, and little enough for the stack.
pub const MAX_DEPTH: u8 = 32;

/// Why bytes are not strict JSON. The text names a position, never content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not strict JSON: {0}")]
pub struct JsonError(String);

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// One JSON value, with nothing after it.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict::value().deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// One JSON object, with nothing after it. What a type reads of a [`Value`] may be an array of its
/// members too, which no message is.
pub fn parse_object(bytes: &[u8]) -> Result<Value, JsonError> {
    match parse(bytes)? {
        object @ Value::Object(_) => Ok(object),
        _ => Err(JsonError("it is no object".into())),
    }
}

/// RFC 8785: members sorted by UTF-16 code units, no white space, shortest escapes.
pub fn canonical(value: &Value) -> Vec<u8> {
    serde_json_canonicalizer::to_vec(value).expect("a parsed value has string keys and no NaN")
}

/// The same, faster, for a value and the text that it was parsed from.
///
/// UTF-8 and UTF-16 sort alike unless there are characters beyond the basic plane, and serde_json
/// keeps members sorted and writes strings as RFC 8785 wants them.
pub fn canonical_of(value: &Value, text: &[u8]) -> Vec<u8> {
    let beyond = text.iter().any(|byte| *byte >= 0xF0) || text.windows(2).any(|two| two == b"\\u");
    if beyond { canonical(value) } else { value.to_string().into_bytes() }
}

/// Deserializes a [`Value`] strictly.
#[derive(Clone, Copy)]
pub(crate) struct Strict {
    /// Levels that may still be opened.
    depth: u8,
}

impl Strict {
    /// A whole message, or a member of one.
    pub(crate) fn value() -> Self {
        Self { depth: MAX_DEPTH }
    }

    fn inner<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without fractions")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        if value > MAX_INTEGER {
            return Err(E::custom("an integer beyond 2^53-1"));
        }
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        if value.unsigned_abs() > MAX_INTEGER {
            return Err(E::custom("an integer beyond 2^53-1"));
        }
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Value, E> {
        Err(E::custom("a number that is not an integer within 2^53-1"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(inner)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a member twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// The members of an object in their order, as they stand there.
#[derive(Default)]
pub(crate) struct Members<'a>(pub(crate) Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Members<'de>, A::Error> {
        let mut all = Vec::new();
        while let Some(member) = members.next_entry()? {
            all.push(member);
        }
        Ok(Members(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_everything_that_is_strict() {
        let text = r#"{"a":[1,-2,null,true,"x"],"b":{"c":9007199254740991},"d":-9007199254740991}"#;

        let value = parse(text.as_bytes()).expect("strict");

        assert_eq!(value.to_string(), text);
    }

    #[test]
    fn refuses_a_member_twice_at_any_depth() {
        assert!(parse(br#"{"a":1,"a":1}"#).is_err());
        assert!(parse(br#"[{"b":{"a":1,"\u0061":2}}]"#).is_err());
    }

    #[test]
    fn refuses_numbers_that_are_not_exact_integers() {
        let numbers =
            ["1.5", "1.0", "1e3", "9007199254740992", "-9007199254740992", "18446744073709551616"];
        for number in numbers {
            assert!(parse(format!("{{\"n\":{number}}}").as_bytes()).is_err(), "{number}");
        }
    }

    #[test]
    fn refuses_what_is_nested_too_deeply_or_trails() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(nested(usize::from(MAX_DEPTH)).as_bytes()).is_ok());
        assert!(parse(nested(usize::from(MAX_DEPTH) + 1).as_bytes()).is_err());
        assert!(parse(nested(100_000).as_bytes()).is_err());
        assert!(parse(b"{} {}").is_err());
        assert!(parse(b"").is_err());
        assert!(parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn an_object_is_nothing_else() {
        assert!(parse_object(br#" {"a":[1]}"#).is_ok());
        for other in ["[]", "[1]", "\"{}\"", "null", "7", "true", ""] {
            assert!(parse_object(other.as_bytes()).is_err(), "{other}");
        }
    }

    #[test]
    fn errors_do_not_repeat_content() {
        let error = parse(br#"{"uid":"04A2B3C4","04A2B3C4":1,"04A2B3C4":2}"#).expect_err("twice");

        assert!(!error.to_string().contains("04A2"), "{error}");
    }

    /// RFC 8785, section 3.2.3: UTF-16 order puts U+1F600 before U+FB33.
    #[test]
    fn canonical_form_is_that_of_rfc_8785() {
        let text = r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":"\u001f\/\"\u20ac"}"#;

        let bytes = canonical(&parse(text.as_bytes()).expect("strict"));

        let expected = "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":\"\\u001f/\\\"€\",\"€\":1,\"😀\":5,\"\u{fb33}\":3}";
        assert_eq!(String::from_utf8(bytes).expect("UTF-8"), expected);
    }

    #[test]
    fn the_faster_way_gives_the_same_canonical_form() {
        let controls: String = (1..0x20_u8).map(char::from).collect();
        let controls = serde_json::to_string(&controls).expect("a string");
        let texts = [
            r#"{ "b" : [ 1, -2, 9007199254740991 ], "a" : {"\u00e9":null, "è":true, "e":"\/\"\\"} }"#,
            r#"{"\u20ac":1,"\ufb33":3,"\ud83d\ude00":5,"\n\t\b\f\r":"\u007f"}"#,
            "{\"\u{1F600}\":1,\"\u{FB33}\":2,\"zz\":{\"y\":[],\"x\":{}}}",
            &format!("{{\"c\":{controls},\"del\":\"\u{7f}\",\"ß\":\"\u{FFFD}\"}}"),
        ];
        for text in texts {
            let value = parse(text.as_bytes()).expect("strict");
            assert_eq!(canonical_of(&value, text.as_bytes()), canonical(&value), "{text}");
        }
    }
}

//! The names of things: what the config calls stations, readers and devices, and what the operator
//! calls badges and residents. Opaque, cheap to clone, never mixed up with each other.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.into())
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}

names! {
    /// A station: a washing machine, dryer or charger (`washer-1`).
    StationId,
    /// A PC/SC reader as the config names it (`laundry-door`).
    ReaderId,
    /// A slave on a bus (`meter-washer-1`).
    DeviceId,
    /// One Modbus line or TCP endpoint (`laundry`).
    BusId,
    /// The operator's id of a badge, at most 64 of `[A-Za-z0-9._-]` (`b-1042`).
    BadgeId,
    /// A resident, same form as a badge id (`u-77`).
    UserId,
}

/// True where `name` may be a badge or user id: 1 to 64 of `[A-Za-z0-9._-]`.
pub fn is_opaque_id(name: &str) -> bool {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

/// One use of one station by one resident: a UUID, drawn (version 7) by the shell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SessionId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "a session id is a UUID such as 0190b5a0-7c3e-7d4e-8f00-000000000001";
        let digits: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
        if digits.len() != 32 {
            return Err(FORM);
        }
        let mut bytes = [0; 16];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| FORM)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| FORM)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for SessionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_id_reads_what_it_writes() {
        let id =
            SessionId([0x01, 0x90, 0xb5, 0xa0, 0x7c, 0x3e, 0x7d, 0x4e, 0x8f, 0, 1, 2, 3, 4, 5, 6]);

        assert_eq!(id.to_string(), "0190b5a0-7c3e-7d4e-8f00-010203040506");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("0190b5a0".parse::<SessionId>().is_err());
    }

    #[test]
    fn opaque_ids_are_short_and_plain() {
        assert!(is_opaque_id("b-1042"));
        assert!(!is_opaque_id(""));
        assert!(!is_opaque_id("b 1042"));
        assert!(!is_opaque_id(&"x".repeat(65)));
    }
}

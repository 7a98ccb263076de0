//! Broken messages, always the same ones: a valid message and what can become of it.

/// A generator that gives the same numbers every time (splitmix64).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}

/// Values where another was expected.
const VALUES: [&str; 12] = [
    "null",
    "true",
    "-1",
    "0",
    "1e400",
    "1.5",
    "18446744073709551616",
    "\"\"",
    "\"\\u0000\"",
    "[]",
    "{}",
    "[[[[[[[[]]]]]]]]",
];

/// One way in which a message breaks.
pub(crate) fn mutated(message: &[u8], dice: &mut Dice) -> Vec<u8> {
    let named = std::str::from_utf8(message).ok().filter(|text| !members(text).is_empty());
    match (dice.below(8), named) {
        (6, Some(text)) => with_other_value(text, dice).into_bytes(),
        (7, Some(text)) => without_a_member(text, dice),
        (way, _) => broken(message, way, dice),
    }
}

/// One way in which bytes break, whatever they are.
fn broken(bytes: &[u8], way: usize, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if bytes.is_empty() {
        return dice.bytes(way);
    }
    let at = dice.below(bytes.len());
    match way {
        0 => bytes.truncate(at),
        1 => bytes[at] ^= 1 << dice.below(8),
        2 => bytes.insert(at, dice.below(256) as u8),
        3 => drop(bytes.remove(at)),
        4 => bytes = dice.bytes(at),
        _ => bytes.extend_from_within(at..),
    }
    bytes
}

/// The places of the members' names, each with its quotes and colon.
fn members(message: &str) -> Vec<(usize, usize)> {
    let colons = message.match_indices("\":").map(|(at, _)| at);
    colons.filter_map(|end| Some((message[..end].rfind('"')?, end + 2))).collect()
}

fn with_other_value(message: &str, dice: &mut Dice) -> String {
    let members = members(message);
    let (_, value) = members[dice.below(members.len())];
    let rest = &message[value..];
    let end = rest.find([',', '}', ']']).unwrap_or(rest.len());
    let other = VALUES[dice.below(VALUES.len())];
    format!("{}{other}{}", &message[..value], &rest[end..])
}

/// A member's name becomes another: it is missing, and an unknown one is there.
fn without_a_member(message: &str, dice: &mut Dice) -> Vec<u8> {
    let members = members(message);
    let (name, _) = members[dice.below(members.len())];
    let mut bytes = message.as_bytes().to_vec();
    bytes.insert(name + 1, b'x');
    bytes
}

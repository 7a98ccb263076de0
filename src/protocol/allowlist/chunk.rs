//! One chunk of a part, as it comes down: `{"sha256":"…","i":0,"n":3,"data":"<base64>"}`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::{BadMessage, bad, is_sha256, plain};

/// A chunk before base64: one message of 64 KiB carries it.
pub const MAX_CHUNK_BYTES: u64 = 45 * 1024;

/// Chunks of one part. The contract's size makes 94; the rest is for clouds with small messages,
/// and little enough to keep a mark for each.
pub const MAX_CHUNKS: u64 = 64 * 1024;

/// With or without padding: the length says the same.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A piece of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The part that it belongs to, lower-case hex.
    pub sha256: String,
    /// Its place, from 0.
    pub i: u64,
    /// Of how many.
    pub n: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Chunk {
    /// A chunk from what was published.
    pub fn parse(payload: &[u8]) -> Result<Chunk, BadMessage> {
        #[derive(Deserialize)]
        struct Wire<'a> {
            #[serde(borrow)]
            sha256: Cow<'a, str>,
            i: u64,
            n: u64,
            #[serde(borrow)]
            data: Cow<'a, str>,
        }
        let wire: Wire<'_> =
            serde_json::from_slice(payload).map_err(|error| BadMessage(plain(&error)))?;
        if !is_sha256(&wire.sha256) {
            return Err(bad("sha256"));
        }
        if !(1..=MAX_CHUNKS).contains(&wire.n) || wire.i >= wire.n {
            return Err(bad("i or n"));
        }
        // Three bytes take four characters: longer text is refused before it is decoded.
        if wire.data.len() as u64 > MAX_CHUNK_BYTES.div_ceil(3) * 4 {
            return Err(bad("data"));
        }
        let bytes = BASE64.decode(wire.data.as_bytes()).map_err(|_| bad("data"))?;
        if bytes.is_empty() || bytes.len() as u64 > MAX_CHUNK_BYTES {
            return Err(bad("data"));
        }
        Ok(Chunk { sha256: wire.sha256.into_owned(), i: wire.i, n: wire.n, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn wire(i: &str, n: &str, data: &str) -> String {
        format!(r#"{{"sha256":"{NAME}","i":{i},"n":{n},"data":"{data}","later":null}}"#)
    }

    #[test]
    fn a_chunk_is_read_with_and_without_padding() {
        for data in ["AQID/w==", "AQID/w"] {
            let chunk = Chunk::parse(wire("1", "3", data).as_bytes()).expect("good");
            assert_eq!((chunk.i, chunk.n, chunk.bytes), (1, 3, vec![1, 2, 3, 255]));
            assert_eq!(chunk.sha256, NAME);
        }
    }

    #[test]
    fn a_chunk_of_the_wrong_form_is_refused() {
        let long = "A".repeat(MAX_CHUNK_BYTES as usize * 2);
        let wrong = [
            String::new(),
            "[]".into(),
            wire("3", "3", "AQID"),
            wire("-1", "3", "AQID"),
            wire("0", "0", "AQID"),
            wire("0", "65537", "AQID"),
            wire("0", "1.0", "AQID"),
            wire("0", "1", ""),
            wire("0", "1", "A*ID"),
            wire("0", "1", &long),
            wire("0", "1", "AQID").replace(NAME, "E3"),
            wire("0", "1", "AQID").replace("\"n\"", "\"i\""),
            wire("0", "1", "AQID").replace(",\"n\":1", ""),
        ];
        for payload in wrong {
            assert!(Chunk::parse(payload.as_bytes()).is_err(), "{payload:.90}");
        }
    }
}

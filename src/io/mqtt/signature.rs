//! Signatures of what comes down: JWS in compact form (RFC 7515), EdDSA (RFC 8037) and nothing
//! else.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// The keys that this gateway trusts.
#[derive(Clone, Debug)]
pub struct TrustedKeys {
    keys: Vec<VerifyingKey>,
    /// Whether any key is configured, usable or not: an unusable key never means "accept anything".
    required: bool,
    gateway_id: String,
}

/// A payload that is not surely from the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BadSignature {
    #[error("it is not a JWS in compact form; sign it, or remove [cloud] trusted_keys")]
    Unsigned,
    #[error("its JWS header is not readable or does not say alg EdDSA; sign it with Ed25519")]
    Algorithm,
    #[error("its JWS header has jwk, jku, x5u or crit; sign it without them")]
    Header,
    #[error("no trusted key has signed it; check [cloud] trusted_keys")]
    UntrustedKey,
    #[error("it is signed for another gateway, or does not say once which; check gw")]
    OtherGateway,
    #[error("it is signed as another type of message or has no typ; sign each for its topic")]
    OtherType,
    #[error("what is signed is no JSON object")]
    NoObject,
}

impl TrustedKeys {
    /// Keys as configured; one that is no point on the curve verifies nothing.
    pub fn new(keys: &[[u8; 32]], gateway_id: &str) -> TrustedKeys {
        let usable = |key| VerifyingKey::from_bytes(key).ok().filter(|key| !key.is_weak());
        TrustedKeys {
            required: !keys.is_empty(),
            keys: keys.iter().filter_map(usable).collect(),
            gateway_id: gateway_id.to_owned(),
        }
    }

    /// Whether what passes is signed.
    pub(super) fn required(&self) -> bool {
        self.required
    }

    /// The JSON that a payload of type `typ` carries. Without keys, the payload is that JSON.
    pub fn verify(&self, payload: &[u8], typ: &str) -> Result<Vec<u8>, BadSignature> {
        if !self.required {
            return Ok(payload.to_vec());
        }
        let jws = std::str::from_utf8(payload).map_err(|_| BadSignature::Unsigned)?.trim_end();
        let (signed, signature) = jws.rsplit_once('.').ok_or(BadSignature::Unsigned)?;
        let (header, content) = signed.split_once('.').ok_or(BadSignature::Unsigned)?;
        check_header(&decode(header)?)?;
        let content = decode(content)?;
        let signature =
            Signature::from_slice(&decode(signature)?).map_err(|_| BadSignature::Unsigned)?;
        let signs = |key: &VerifyingKey| key.verify_strict(signed.as_bytes(), &signature).is_ok();
        if !self.keys.iter().any(signs) {
            return Err(BadSignature::UntrustedKey);
        }
        self.check_audience(&content, typ)?;
        Ok(content)
    }

    fn check_audience(&self, content: &[u8], typ: &str) -> Result<(), BadSignature> {
        #[derive(Deserialize)]
        struct Audience {
            gw: Option<String>,
            typ: Option<String>,
        }
        let content = std::str::from_utf8(content).map_err(|_| BadSignature::NoObject)?;
        let object: Result<BTreeMap<String, IgnoredAny>, _> = serde_json::from_str(content);
        object.map_err(|_| BadSignature::NoObject)?;
        let audience: Audience =
            serde_json::from_str(content).map_err(|_| BadSignature::OtherGateway)?;
        if audience.gw.as_deref() != Some(&self.gateway_id) {
            return Err(BadSignature::OtherGateway);
        }
        if audience.typ.as_deref() != Some(typ) {
            return Err(BadSignature::OtherType);
        }
        Ok(())
    }
}

fn check_header(header: &[u8]) -> Result<(), BadSignature> {
    let header: Map<String, Value> =
        serde_json::from_slice(header).map_err(|_| BadSignature::Algorithm)?;
    if header.get("alg").and_then(Value::as_str) != Some("EdDSA") {
        return Err(BadSignature::Algorithm);
    }
    // A key or a rule that the message itself brings along is worth nothing.
    let brought = ["jwk", "jku", "x5u", "crit"].iter().any(|member| header.contains_key(*member));
    if brought { Err(BadSignature::Header) } else { Ok(()) }
}

fn decode(part: &str) -> Result<Vec<u8>, BadSignature> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| BadSignature::Unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer as _, SigningKey};

    const CONTENT: &str = r#"{"gw":"gw-1","typ":"ack","upto":1}"#;

    fn sign(header: &str, content: &str) -> String {
        let key = SigningKey::from_bytes(&[7; 32]);
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(content));
        let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes());
        format!("{signed}.{signature}")
    }

    fn keys() -> TrustedKeys {
        let trusted = SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
        TrustedKeys::new(&[[9; 32], trusted], "gw-1")
    }

    #[test]
    fn accepts_what_a_trusted_key_signed_for_this_gateway_and_topic() {
        for header in [r#"{"alg":"EdDSA"}"#, r#"{"alg":"EdDSA","kid":"2026-1","typ":"JWT"}"#] {
            let jws = sign(header, CONTENT);
            assert_eq!(keys().verify(jws.as_bytes(), "ack"), Ok(CONTENT.as_bytes().to_vec()));
        }
    }

    #[test]
    fn refuses_everything_unsigned_where_keys_are_set() {
        for payload in [CONTENT, "", "a.b", "a.b.c", "..", "\u{fffd}.x.y"] {
            let refused = keys().verify(payload.as_bytes(), "ack");
            assert!(refused.is_err(), "{payload}");
        }
        let unusable = TrustedKeys { keys: vec![], ..keys() };
        assert_eq!(unusable.verify(CONTENT.as_bytes(), "ack"), Err(BadSignature::Unsigned));
    }

    #[test]
    fn accepts_plain_json_without_keys() {
        let keys = TrustedKeys::new(&[], "gw-1");
        assert_eq!(keys.verify(CONTENT.as_bytes(), "ack"), Ok(CONTENT.as_bytes().to_vec()));
    }

    #[test]
    fn refuses_other_algorithms_and_keys_that_come_along() {
        let cases = [
            (r#"{"alg":"none"}"#, BadSignature::Algorithm),
            (r#"{"alg":"HS256"}"#, BadSignature::Algorithm),
            (r#"{"alg":"eddsa"}"#, BadSignature::Algorithm),
            ("{}", BadSignature::Algorithm),
            (r#"{"alg":"EdDSA","jwk":{}}"#, BadSignature::Header),
            (r#"{"alg":"EdDSA","jku":"https://x"}"#, BadSignature::Header),
            (r#"{"alg":"EdDSA","x5u":"https://x"}"#, BadSignature::Header),
            (r#"{"alg":"EdDSA","crit":["exp"]}"#, BadSignature::Header),
        ];
        for (header, refusal) in cases {
            let jws = sign(header, CONTENT);
            assert_eq!(keys().verify(jws.as_bytes(), "ack"), Err(refusal), "{header}");
        }
    }

    #[test]
    fn refuses_what_is_signed_for_another_gateway_or_topic() {
        let good = r#"{"alg":"EdDSA"}"#;
        let cases = [
            (r#"{"gw":"gw-2","typ":"ack"}"#, BadSignature::OtherGateway),
            (r#"{"typ":"ack"}"#, BadSignature::OtherGateway),
            (r#"{"gw":"gw-1","gw":"gw-1","typ":"ack"}"#, BadSignature::OtherGateway),
            (r#"{"gw":7,"typ":"ack"}"#, BadSignature::OtherGateway),
            (r#"["gw-1","ack"]"#, BadSignature::NoObject),
            (r#"{"gw":"gw-1","typ":"ack""#, BadSignature::NoObject),
            (r#"{"gw":"gw-1","typ":"cmd"}"#, BadSignature::OtherType),
            (r#"{"gw":"gw-1"}"#, BadSignature::OtherType),
        ];
        for (content, refusal) in cases {
            let jws = sign(good, content);
            assert_eq!(keys().verify(jws.as_bytes(), "ack"), Err(refusal), "{content}");
        }
    }

    #[test]
    fn takes_the_golden_acknowledgement() {
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes();
        let keys = TrustedKeys::new(&[key], "ch-lausanne-012-a");
        let jws = include_bytes!("../../../tests/wire/v1/down-ack.jws");
        let ack = keys.verify(jws, "ack").expect("version 1 of the contract");
        assert!(crate::protocol::cloud::Ack::parse(&ack).is_ok());
    }

    #[test]
    fn refuses_a_changed_payload_and_an_unknown_key() {
        let jws = sign(r#"{"alg":"EdDSA"}"#, CONTENT);
        let mut parts: Vec<String> = jws.split('.').map(str::to_owned).collect();
        parts[1] = URL_SAFE_NO_PAD.encode(CONTENT.replace('1', "2"));
        let changed = parts.join(".");
        assert_eq!(keys().verify(changed.as_bytes(), "ack"), Err(BadSignature::UntrustedKey));

        let others = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        let others = TrustedKeys::new(&[others], "gw-1");
        assert_eq!(others.verify(jws.as_bytes(), "ack"), Err(BadSignature::UntrustedKey));
    }
}

//! What a reader's driver answers without a card: attributes and escape commands.
//!
//! No virtual reader has these, so what is asked goes through a trait that tests answer from
//! recorded sequences.

use std::ffi::{CStr, c_ulong};

use pcsc::{Attribute, Context, Error, Protocols, ShareMode, ctl_code};

use super::card::Connection;

/// CM_IOCTL_GET_FEATURE_REQUEST (PC/SC part 10, section 2.2).
const GET_FEATURES: c_ulong = ctl_code(3400);

/// FEATURE_CCID_ESC_COMMAND: the driver takes escape commands under the code that it names. libccid
/// lists it only where its configuration allows them.
const ESCAPE_FEATURE: u8 = 0x13;

/// The code of ACS's own driver, which lists no feature.
const ACS_ESCAPE: c_ulong = ctl_code(3500);

/// The longest answer to a request of this module.
const ANSWER_MAX: usize = 264;

/// A connection to a reader, whether or not a card is there.
pub(super) trait DirectReader {
    /// An attribute, where the driver has it.
    fn attribute(&self, which: Attribute) -> Option<Vec<u8>>;
    /// A request to the driver.
    fn control(&self, code: c_ulong, request: &[u8]) -> Result<Vec<u8>, Error>;
}

impl DirectReader for Connection {
    fn attribute(&self, which: Attribute) -> Option<Vec<u8>> {
        self.get_attribute_owned(which).ok()
    }

    fn control(&self, code: c_ulong, request: &[u8]) -> Result<Vec<u8>, Error> {
        let mut answer = [0; ANSWER_MAX];
        (**self).control(code, request, &mut answer).map(<[u8]>::to_vec)
    }
}

/// Connects to the reader itself.
pub(super) fn connect_directly(context: &Context, name: &CStr) -> Result<Connection, Error> {
    context.connect(name, ShareMode::Direct, Protocols::UNDEFINED).map(Connection::new)
}

/// Sends an escape command under the code that the driver names for it.
pub(super) fn escape(reader: &impl DirectReader, command: &[u8]) -> Result<Vec<u8>, Error> {
    let features = reader.control(GET_FEATURES, &[]).unwrap_or_default();
    reader.control(escape_code(&features).unwrap_or(ACS_ESCAPE), command)
}

/// The code among the features: tag, length, value, and so on; a code has four bytes, big-endian.
fn escape_code(mut features: &[u8]) -> Option<c_ulong> {
    while let [tag, length, rest @ ..] = features {
        let (value, after) = rest.split_at_checked(usize::from(*length))?;
        if *tag == ESCAPE_FEATURE {
            return Some(u32::from_be_bytes(value.try_into().ok()?).into());
        }
        features = after;
    }
    None
}

#[cfg(test)]
pub(super) mod recorded {
    use std::cell::RefCell;

    use super::*;

    /// Answers as drivers were seen to.
    #[derive(Default)]
    pub(in super::super) struct Recorded {
        serial: Option<Vec<u8>>,
        channel: Option<Vec<u8>>,
        features: Vec<u8>,
        code: Option<c_ulong>,
        sent: RefCell<Vec<Vec<u8>>>,
    }

    impl Recorded {
        /// libccid with escapes allowed: verify-PIN, then the escape feature.
        pub(in super::super) fn with_escape(code: u32) -> Recorded {
            let mut features = vec![0x06, 4, 0x42, 0x33, 0x00, 0x06, ESCAPE_FEATURE, 4];
            features.extend(code.to_be_bytes());
            Recorded { features, code: Some(code.into()), ..Recorded::default() }
        }

        /// ACS's driver: no features, but its own code.
        pub(in super::super) fn of_acs() -> Recorded {
            Recorded { code: Some(ACS_ESCAPE), ..Recorded::default() }
        }

        /// A reader that tells its serial number and where it is plugged in.
        pub(in super::super) fn telling(serial: &[u8], channel: u32) -> Recorded {
            let channel = Some(channel.to_ne_bytes().to_vec());
            Recorded { serial: Some(serial.to_vec()), channel, ..Recorded::default() }
        }

        pub(in super::super) fn sent(&self) -> Vec<Vec<u8>> {
            self.sent.borrow().clone()
        }
    }

    impl DirectReader for Recorded {
        fn attribute(&self, which: Attribute) -> Option<Vec<u8>> {
            match which {
                Attribute::VendorIfdSerialNo => self.serial.clone(),
                Attribute::ChannelId => self.channel.clone(),
                other => panic!("{other:?} is not asked for"),
            }
        }

        fn control(&self, code: c_ulong, request: &[u8]) -> Result<Vec<u8>, Error> {
            if code == GET_FEATURES && !self.features.is_empty() {
                return Ok(self.features.clone());
            }
            if Some(code) != self.code {
                return Err(Error::UnsupportedFeature);
            }
            self.sent.borrow_mut().push(request.to_vec());
            Ok(vec![0xE1, 0, 0, 0, 0])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::recorded::Recorded;
    use super::*;

    #[test]
    fn escapes_go_under_the_code_that_the_driver_names() {
        let ccid = Recorded::with_escape(0x4200_0001);
        assert!(escape(&ccid, &[0xE0, 1]).is_ok());
        assert_eq!(ccid.sent(), [[0xE0, 1]]);
        let acs = Recorded::of_acs();
        assert!(escape(&acs, &[0xE0, 2]).is_ok());
        assert_eq!(acs.sent(), [[0xE0, 2]]);
    }

    #[test]
    fn a_driver_that_allows_no_escapes_is_an_error_and_nothing_more() {
        let forbidding = Recorded::default();
        assert_eq!(escape(&forbidding, &[0xE0, 1]), Err(Error::UnsupportedFeature));
        assert_eq!(forbidding.sent(), [[0_u8; 0]; 0]);
    }

    #[test]
    fn torn_features_name_no_code() {
        for torn in [&[][..], &[0x13], &[0x13, 4, 0x42], &[0x06, 9, 1], &[0x13, 2, 1, 2]] {
            assert_eq!(escape_code(torn), None, "{torn:?}");
        }
    }
}

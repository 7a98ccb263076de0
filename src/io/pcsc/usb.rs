//! What a reader says of itself: its serial number and the USB socket it is plugged into.

use std::ffi::CStr;
use std::fs;
use std::path::Path;

use pcsc::{Attribute, Context};
use tracing::debug;

use super::binding::PresentReader;
use super::direct::{DirectReader, connect_directly};

/// Where the kernel lists USB devices; the directory's name is the port path.
const USB_DEVICES: &str = "/sys/bus/usb/devices";

/// High half of a channel id that means USB (PC/SC part 3, `SCARD_ATTR_CHANNEL_ID`).
const CHANNEL_USB: u32 = 0x0020;

/// Describes a present reader. Drivers without attributes leave the serial number to the name and
/// the USB port unknown.
pub(super) fn describe(context: &Context, name: &CStr, attributes: bool) -> PresentReader {
    let shown = name.to_string_lossy().into_owned();
    let (serial, usb_port) = if attributes { ask(context, name) } else { (None, None) };
    let serial = serial.or_else(|| serial_in_name(&shown));
    PresentReader { name: shown, serial, usb_port }
}

/// Serial number and USB port from the driver, without a card.
fn ask(context: &Context, name: &CStr) -> (Option<String>, Option<String>) {
    match connect_directly(context, name) {
        Ok(reader) => attributes_of(&reader, Path::new(USB_DEVICES)),
        Err(error) => {
            debug!(reader = %name.to_string_lossy(), %error, "reader attributes not readable");
            (None, None)
        }
    }
}

fn attributes_of(reader: &impl DirectReader, devices: &Path) -> (Option<String>, Option<String>) {
    let serial = reader.attribute(Attribute::VendorIfdSerialNo).and_then(|raw| text(&raw));
    let port = reader
        .attribute(Attribute::ChannelId)
        .and_then(|raw| bus_and_address(&raw))
        .and_then(|(bus, address)| port_path(devices, bus, address));
    (serial, port)
}

/// A string attribute; drivers end it with a NUL or not. `None` where it says nothing.
fn text(raw: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(raw);
    let text = text.trim_matches(['\0', ' ']);
    (!text.is_empty()).then(|| text.to_owned())
}

/// Bus and device address from a channel id: `0x0020BBAA`, in the machine's byte order.
fn bus_and_address(channel_id: &[u8]) -> Option<(u8, u8)> {
    let channel = u32::from_ne_bytes(channel_id.get(..4)?.try_into().ok()?);
    (channel >> 16 == CHANNEL_USB).then_some(((channel >> 8) as u8, channel as u8))
}

/// The port path of a USB device. The address changes with every plugging, the path does not.
fn port_path(devices: &Path, bus: u8, address: u8) -> Option<String> {
    let number = |path: &Path, file| -> Option<u8> {
        fs::read_to_string(path.join(file)).ok()?.trim().parse().ok()
    };
    fs::read_dir(devices)
        .ok()?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| number(path, "busnum") == Some(bus) && number(path, "devnum") == Some(address))
        .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()))
}

/// The serial number that pcscd puts into a reader's name, in the last parentheses.
fn serial_in_name(name: &str) -> Option<String> {
    let (before, _) = name.rsplit_once(')')?;
    let (_, serial) = before.rsplit_once('(')?;
    text(serial.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::pcsc::direct::recorded::Recorded;

    #[test]
    fn finds_the_serial_number_in_the_name() {
        let name = "Identiv uTrust 3700 F CL Reader [CCID Interface] (55041817600024) 00 00";
        assert_eq!(serial_in_name(name).as_deref(), Some("55041817600024"));
        assert_eq!(serial_in_name("ACS ACR122U PICC Interface 00 00"), None);
        assert_eq!(serial_in_name("odd ) name ( 00 00"), None);
        assert_eq!(serial_in_name("empty () 00 00"), None);
    }

    #[test]
    fn reads_bus_and_address_of_a_usb_channel_only() {
        assert_eq!(bus_and_address(&0x0020_010Au32.to_ne_bytes()), Some((1, 10)));
        assert_eq!(bus_and_address(&0x0001_010Au32.to_ne_bytes()), None);
        assert_eq!(bus_and_address(&[1, 2]), None);
    }

    #[test]
    fn maps_a_usb_address_to_its_port_path() {
        let devices = tempfile::tempdir().expect("a temporary directory");
        for (port, bus, address) in [("1-1", "1", "2"), ("1-1.2", "1", "10"), ("2-1", "2", "10")] {
            let device = devices.path().join(port);
            fs::create_dir(&device).expect("a device");
            fs::write(device.join("busnum"), format!("{bus}\n")).expect("a bus number");
            fs::write(device.join("devnum"), format!("{address}\n")).expect("an address");
        }
        fs::create_dir(devices.path().join("1-1:1.0")).expect("an interface");

        let recorded = Recorded::telling(b"RR171-004512\0", 0x0020_010A);
        assert_eq!(
            attributes_of(&recorded, devices.path()),
            (Some("RR171-004512".into()), Some("1-1.2".into()))
        );
        assert_eq!(attributes_of(&Recorded::default(), devices.path()), (None, None));
        assert_eq!(port_path(devices.path(), 1, 10).as_deref(), Some("1-1.2"));
        assert_eq!(port_path(devices.path(), 1, 11), None);
        assert_eq!(port_path(Path::new("/nowhere"), 1, 10), None);
    }
}

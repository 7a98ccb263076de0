//! What doctor looks at on the machine: pcscd, kernel modules, clock, disk, power supply.

use std::fs;
use std::path::{Path, PathBuf};

use super::Finding;
use crate::config::Config;
use crate::io::{clock, pcsc};
use crate::protocol::control::Status;

/// They take an NFC reader for themselves before pcscd can.
const GRABBERS: [&str; 3] = ["pn533_usb", "pn533", "nfc"];
/// An update of the allowlist is refused where less would be left.
const DISK_LOW: u64 = 256 << 20;
/// Room for years of records, and for the journal to misbehave.
const DISK_TIGHT: u64 = 1 << 30;
/// Debian 13's pcscd asks polkit who may use a reader.
const POLKIT_ACTIONS: &str = "usr/share/polkit-1/actions/org.debian.pcsc-lite.policy";
const POLKIT_RULES: [&str; 2] =
    ["usr/share/polkit-1/rules.d/50-tapgate.rules", "etc/polkit-1/rules.d/50-tapgate.rules"];
/// The firmware's bits: now, and since the boot.
const UNDERVOLTAGE_NOW: u32 = 1;
const UNDERVOLTAGE_SINCE: u32 = 1 << 16;

/// Everything about the machine whose files lie below `root`.
pub(super) fn look(root: &Path, config: &Config, status: Option<&Status>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !config.wiring.readers.is_empty() {
        findings.push(pcscd(pcsc::names()));
        findings.extend(polkit(root));
        findings.push(kernel_modules(root));
    }
    findings.push(synchronised(match status {
        Some(status) => status.clock == "synced",
        None => clock::is_synchronised(),
    }));
    findings.push(disk(&config.storage.path));
    findings.extend(file_systems(root));
    findings.extend(card_wear(root));
    findings.extend(power_supply(root));
    findings
}

/// Whether pcscd answers this user.
pub(super) fn pcscd(names: Result<Vec<String>, String>) -> Finding {
    match names {
        Ok(names) if names.is_empty() => Finding::failure(
            "pcscd",
            "answers, and sees no reader",
            "plug the reader in; lsusb and journalctl -u pcscd say whether it is known",
        ),
        Ok(names) => Finding::ok("pcscd", format!("answers; sees {}", names.join(", "))),
        Err(why) => Finding::failure("pcscd", why, "systemctl enable --now pcscd.socket"),
    }
}

pub(super) fn polkit(root: &Path) -> Option<Finding> {
    if !root.join(POLKIT_ACTIONS).exists() {
        return None;
    }
    Some(match POLKIT_RULES.iter().any(|rules| root.join(rules).exists()) {
        true => Finding::ok("polkit", "the user tapgate may use the readers"),
        false => Finding::warning(
            "polkit",
            "pcscd asks polkit, and no rule lets the user tapgate use the readers",
            "install the rule that comes with the package: 50-tapgate.rules in \
             /etc/polkit-1/rules.d",
        ),
    })
}

pub(super) fn kernel_modules(root: &Path) -> Finding {
    let modules = text(&root.join("proc/modules")).unwrap_or_default();
    let loaded = |name: &&str| modules.lines().any(|line| line.split(' ').next() == Some(*name));
    let grabbers: Vec<&str> = GRABBERS.into_iter().filter(loaded).collect();
    match grabbers.is_empty() {
        true => Finding::ok("kernel modules", "none takes a reader from pcscd"),
        false => Finding::failure(
            "kernel modules",
            format!("{} take the reader before pcscd can", grabbers.join(", ")),
            format!(
                "modprobe -r {} and list them as `blacklist` in \
                 /etc/modprobe.d/tapgate-nfc.conf, then systemctl restart pcscd",
                grabbers.join(" ")
            ),
        ),
    }
}

pub(super) fn synchronised(synchronised: bool) -> Finding {
    match synchronised {
        true => Finding::ok("clock", "synchronised"),
        false => Finding::warning(
            "clock",
            "not synchronised since the boot: opening hours and validity are not judged",
            "timedatectl set-ntp true, and let NTP (UDP 123) out of the site's network",
        ),
    }
}

fn disk(database: &Path) -> Finding {
    let folder = database.parent().unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(folder) {
        Ok(found) => {
            let read_only = found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
            free_space(folder, found.f_bavail * found.f_frsize, found.f_favail, read_only)
        }
        Err(error) => Finding::failure(
            "disk",
            format!("{}: {error}", folder.display()),
            "create the folder for the user tapgate, or correct [storage] path",
        ),
    }
}

pub(super) fn free_space(folder: &Path, bytes: u64, files: u64, read_only: bool) -> Finding {
    let free = format!("{}: {} MiB free", folder.display(), bytes >> 20);
    let make_room = "make room: journalctl --vacuum-size=50M, apt clean; or a larger card";
    match (read_only, bytes) {
        (true, _) => Finding::failure(
            "disk",
            format!("{} is mounted read-only", folder.display()),
            "look at dmesg for errors of the card; replace it, or remount: mount -o remount,rw",
        ),
        (false, ..DISK_LOW) => Finding::failure("disk", free, make_room),
        (false, _) if files == 0 => Finding::failure("disk", "no file can be created", make_room),
        (false, ..DISK_TIGHT) => Finding::warning("disk", free, make_room),
        (false, _) => Finding::ok("disk", free),
    }
}

/// ext4 counts the errors that it met.
pub(super) fn file_systems(root: &Path) -> Vec<Finding> {
    let counts = entries(&root.join("sys/fs/ext4")).into_iter().filter_map(|folder| {
        let count = number(&folder.join("errors_count"))?;
        Some((name_of(&folder), count))
    });
    let damaged = counts.filter(|(_, count)| *count > 0);
    damaged
        .map(|(name, count)| {
            Finding::failure(
                format!("file system {name}"),
                format!("has met {count} errors"),
                "copy /var/lib/tapgate away while the daemon is stopped, then replace the card",
            )
        })
        .collect()
}

/// eMMC tells its wear in tenths; SD cards do not.
pub(super) fn card_wear(root: &Path) -> Vec<Finding> {
    let worn = |folder: PathBuf| {
        let wear = text(&folder.join("device/life_time"))?;
        let tenths = |word: &str| u32::from_str_radix(word.trim_start_matches("0x"), 16).ok();
        let used = wear.split_whitespace().filter_map(tenths).max()?;
        let subject = format!("card {}", name_of(&folder));
        Some(match used {
            0..=8 => Finding::ok(subject, format!("at most {} % of its life used", used * 10)),
            9.. => Finding::warning(
                subject,
                format!("at least {} % of its life used", (used - 1) * 10),
                "replace the card before it fails: copy /var/lib/tapgate to the new one",
            ),
        })
    };
    entries(&root.join("sys/block")).into_iter().filter_map(worn).collect()
}

/// A Raspberry Pi's firmware says whether its supply is too weak.
pub(super) fn power_supply(root: &Path) -> Option<Finding> {
    let file = root.join("sys/devices/platform/soc/soc:firmware/get_throttled");
    let bits = u32::from_str_radix(text(&file)?.trim(), 16).ok()?;
    let mend = "use the official supply and a short cable; readers and adapters on a powered hub";
    Some(if bits & UNDERVOLTAGE_NOW != 0 {
        Finding::failure("power supply", "undervoltage now", mend)
    } else if bits & UNDERVOLTAGE_SINCE != 0 {
        Finding::warning("power supply", "undervoltage since the boot", mend)
    } else {
        Finding::ok("power supply", "no undervoltage since the boot")
    })
}

fn text(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok()
}

fn number(file: &Path) -> Option<u64> {
    text(file)?.trim().parse().ok()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(folder).into_iter().flatten();
    let mut found: Vec<PathBuf> = read.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    found
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

use std::fs;
use std::path::Path;

use super::machine;
use super::{Finding, Verdict, as_text, site};
use crate::config;

fn machine_with(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for (file, content) in files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        fs::write(path, content).expect("a file");
    }
    root
}

#[test]
fn a_kernel_module_that_takes_the_reader_is_named_with_the_command_that_frees_it() {
    let root = machine_with(&[("proc/modules", "pn533_usb 16384 0 - Live 0x0\nnfc 1 0 - x\n")]);
    let finding = machine::kernel_modules(root.path());
    assert_eq!(finding.verdict, Verdict::Failure);
    assert!(finding.next.expect("a next step").starts_with("modprobe -r pn533_usb nfc"));

    let root = machine_with(&[("proc/modules", "nfcish 1 0 - x\nusbserial 1 0 - x\n")]);
    assert_eq!(machine::kernel_modules(root.path()).verdict, Verdict::Ok);
}

#[test]
fn polkit_matters_only_where_pcscd_asks_it() {
    let action = ("usr/share/polkit-1/actions/org.debian.pcsc-lite.policy", "");
    let rule = ("etc/polkit-1/rules.d/50-tapgate.rules", "");
    let verdict = |files: &[(&str, &str)]| {
        machine::polkit(machine_with(files).path()).map(|finding| finding.verdict)
    };
    assert_eq!(verdict(&[]), None);
    assert_eq!(verdict(&[action]), Some(Verdict::Warning));
    assert_eq!(verdict(&[action, rule]), Some(Verdict::Ok));
}

#[test]
fn a_weak_supply_is_seen_now_and_afterwards() {
    let file = "sys/devices/platform/soc/soc:firmware/get_throttled";
    let verdict = |bits| {
        let root = machine_with(&[(file, bits)]);
        machine::power_supply(root.path()).map(|finding| finding.verdict)
    };
    assert_eq!(verdict("0\n"), Some(Verdict::Ok));
    assert_eq!(verdict("50000\n"), Some(Verdict::Warning));
    assert_eq!(verdict("50005\n"), Some(Verdict::Failure));
    assert_eq!(machine::power_supply(machine_with(&[]).path()), None, "no Raspberry Pi");
}

#[test]
fn a_worn_card_and_a_damaged_file_system_are_found() {
    let root = machine_with(&[
        ("sys/block/mmcblk0/device/life_time", "0x09 0x02\n"),
        ("sys/block/mmcblk1/device/life_time", "0x01 0x01\n"),
        ("sys/block/sda/size", "1\n"),
        ("sys/fs/ext4/mmcblk0p2/errors_count", "3\n"),
        ("sys/fs/ext4/mmcblk0p1/errors_count", "0\n"),
    ]);
    let wear: Vec<Verdict> =
        machine::card_wear(root.path()).iter().map(|finding| finding.verdict).collect();
    assert_eq!(wear, [Verdict::Warning, Verdict::Ok]);
    let damaged = machine::file_systems(root.path());
    assert_eq!(damaged.len(), 1);
    assert_eq!(damaged[0].subject, "file system mmcblk0p2");
}

#[test]
fn a_full_or_readonly_disk_is_a_failure() {
    let verdict = |bytes, files, read_only| {
        machine::free_space(Path::new("/var/lib/tapgate"), bytes, files, read_only).verdict
    };
    assert_eq!(verdict(8 << 30, 1_000, false), Verdict::Ok);
    assert_eq!(verdict(512 << 20, 1_000, false), Verdict::Warning);
    assert_eq!(verdict(255 << 20, 1_000, false), Verdict::Failure);
    assert_eq!(verdict(8 << 30, 0, false), Verdict::Failure);
    assert_eq!(verdict(8 << 30, 1_000, true), Verdict::Failure);
}

#[test]
fn a_pcscd_that_sees_no_reader_is_a_failure() {
    let verdict = |names| machine::pcscd(names).verdict;
    assert_eq!(verdict(Ok(vec!["ACS ACR122U 00 00".into()])), Verdict::Ok);
    assert_eq!(verdict(Ok(Vec::new())), Verdict::Failure);
    assert_eq!(verdict(Err("no service".into())), Verdict::Failure);
}

#[test]
fn each_station_says_what_happens_when_the_gateway_dies() {
    let text = "[gateway]\nid = \"a\"\ntimezone = \"Europe/Zurich\"\n\
        [[bus]]\nid = \"b\"\ntransport = \"tcp\"\naddress = \"127.0.0.1:502\"\n\
        [[device]]\nid = \"relays\"\nbus = \"b\"\nunit = 1\nprofile = \"waveshare-relay-8\"\n\
        [[device]]\nid = \"keba\"\nbus = \"b\"\nunit = 2\nprofile = \"keba-p30\"\n\
        [[device]]\nid = \"go-e\"\nbus = \"b\"\nunit = 3\nprofile = \"go-e-charger\"\n\
        [[reader]]\nid = \"r\"\nusb_port = \"1-1\"\nselection = \"first-free\"\n\
        [[station]]\nid = \"w\"\nkind = \"washer\"\nlabel = \"W\"\nreader = \"r\"\n\
        switch = \"relays/relay-1\"\n\
        [[station]]\nid = \"c\"\nkind = \"charger\"\nlabel = \"C\"\nreader = \"r\"\n\
        charger = \"keba\"\ncurrent_limit = \"16A\"\n\
        [[station]]\nid = \"d\"\nkind = \"charger\"\nlabel = \"D\"\nreader = \"r\"\n\
        charger = \"go-e\"\ncurrent_limit = \"16A\"\n";
    let config = config::parse(text, "test.toml").expect("a valid config");
    let found = site::on_silence(&config.wiring);
    let verdicts: Vec<Verdict> = found.iter().map(|finding| finding.verdict).collect();
    assert_eq!(verdicts, [Verdict::Note, Verdict::Ok, Verdict::Warning]);
    assert!(found[0].says.contains("stays as it is (waveshare-relay-8"), "{}", found[0].says);
}

#[test]
fn every_failure_and_warning_ends_with_the_next_step() {
    let findings = [
        Finding::ok("disk", "fine"),
        Finding::failure("clock", "wrong", "set it"),
        Finding::warning("polkit", "missing", "install it"),
    ];
    assert_eq!(
        as_text(&findings),
        "ok    disk                       fine\n\
         FAIL  clock                      wrong\n      -> set it\n\
         warn  polkit                     missing\n      -> install it\n\
         1 to mend, 1 to look at; then run doctor again\n"
    );
}

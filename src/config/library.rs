//! The profiles that a site may name: built-in ones, and the technician's own, which win.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::document::MAX_FILE_BYTES;
use super::problem::Problem;
use super::profile::Profile;
use super::profile_file;

/// Where a technician puts profiles, unless `[storage] profiles` says otherwise.
pub const DEFAULT_FOLDER: &str = "/etc/tapgate/profiles";

/// More files than this in the folder are a mistake (a wrong path).
const MAX_FILES: usize = 1_000;

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../profiles/", $name, ".toml")))),*]
    };
}

const BUILT_IN: [(&str, &str); 60] = built_in![
    "abb-b23",
    "abb-terra-ac",
    "advantech-adam-6060",
    "alfen-eve",
    "bender-cc612",
    "bender-cc612-old",
    "bg-etech-ws100",
    "brainboxes-ed-538",
    "brainboxes-ed-588",
    "carlo-gavazzi-em112",
    "carlo-gavazzi-em24",
    "carlo-gavazzi-em24-e1",
    "carlo-gavazzi-em340",
    "dzg-dvh4013",
    "eastron-sdm120",
    "eastron-sdm230",
    "eastron-sdm630",
    "eastron-sdm72",
    "eletechsup-relay-8",
    "eltako-dsz15",
    "emu-professional-2",
    "finder-7m24",
    "go-e-charger",
    "heidelberg-energy-control",
    "inepro-pro380",
    "innogy-ebox",
    "iskra-wm3",
    "janitza-b23",
    "janitza-umg96rm",
    "keba-p30",
    "keba-p40",
    "kmtronic-relay-8",
    "lovato-dmg610",
    "mennekes-amtron-compact",
    "mennekes-amtron-hcc3",
    "moxa-iologik-e1214",
    "orno-or-we-504",
    "orno-or-we-514",
    "orno-or-we-516",
    "phoenix-charx",
    "phoenix-ev-cc-ac1-m",
    "phoenix-ev-cc-eth",
    "saia-ald1",
    "saia-ale3",
    "schneider-evlink-pro-ac",
    "schneider-iem3155",
    "siemens-pac2200",
    "socomec-countis",
    "vestel-evc04",
    "wago-750-352",
    "wallbe-eco",
    "waveshare-relay-16",
    "waveshare-relay-30",
    "waveshare-relay-8",
    "waveshare-relay-8d",
    "webasto-next",
    "wellpro-wp8025",
    "wellpro-wp8026",
    "wellpro-wp8028",
    "wiren-board-mr6c",
];

/// All profiles by name.
#[derive(Clone, Debug)]
pub struct Library(BTreeMap<String, Shelved>);

/// A profile and where it comes from.
#[derive(Clone, Debug)]
pub struct Shelved {
    /// Its file; `None` for a built-in one.
    pub file: Option<PathBuf>,
    /// The file as written.
    pub text: Cow<'static, str>,
    read: OnceCell<Arc<Profile>>,
}

impl Shelved {
    /// The register map. A built-in one is read when it is first asked for: a site names a few of
    /// them, and what all of them need for a moment would stay with the daemon for good.
    pub fn profile(&self) -> &Arc<Profile> {
        self.read.get_or_init(|| {
            let profile = profile_file::parse("a built-in profile", &self.text);
            profile.expect("a test reads every built-in one").into()
        })
    }
}

impl Library {
    /// What ships with the program.
    pub fn built_in() -> Library {
        let shelve = |(name, text): (&str, &'static str)| {
            (name.to_owned(), Shelved { file: None, text: text.into(), read: OnceCell::new() })
        };
        Library(BTreeMap::from(BUILT_IN.map(shelve)))
    }

    /// The built-in profiles and those of a folder, or all that is wrong with the latter. A folder
    /// that does not exist is an error only where it was `named` in the config.
    pub fn with_folder(folder: &Path, named: bool) -> Result<Library, Vec<Problem>> {
        let mut library = Library::built_in();
        let mut problems = Vec::new();
        for file in list(folder, named).map_err(|problem| vec![problem])? {
            match read_profile(&file) {
                Ok((profile, text)) => library.shelve(file, profile, text, &mut problems),
                Err(found) => problems.extend(found),
            }
        }
        if problems.is_empty() { Ok(library) } else { Err(problems) }
    }

    /// The profile of that name.
    pub fn find(&self, name: &str) -> Option<&Shelved> {
        self.0.get(name)
    }

    /// All of them by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Shelved)> + Clone {
        self.0.iter().map(|(name, shelved)| (name.as_str(), shelved))
    }

    fn shelve(
        &mut self,
        file: PathBuf,
        profile: Profile,
        text: String,
        problems: &mut Vec<Problem>,
    ) {
        let name = profile.name.clone();
        let read = OnceCell::from(Arc::new(profile));
        let shelved = Shelved { file: Some(file.clone()), text: text.into(), read };
        let replaced = self.0.insert(name.clone(), shelved).and_then(|shelved| shelved.file);
        if let Some(other) = replaced {
            let message = format!("profile `{name}` is also in {}", other.display());
            problems.push(whole_file(&file, message, "rename or remove one of them"));
        }
    }
}

/// Checks a profile as text.
pub fn parse_profile(text: &str, file: &str) -> Result<Profile, Vec<Problem>> {
    profile_file::parse(file, text)
}

/// Reads and checks one profile file.
pub fn read_profile(file: &Path) -> Result<(Profile, String), Vec<Problem>> {
    let text = read_text(file).map_err(|problem| vec![problem])?;
    let profile = profile_file::parse(&file.display().to_string(), &text)?;
    Ok((profile, text))
}

/// A file's text, within bounds, or what keeps it from being read.
pub(super) fn read_text(file: &Path) -> Result<String, Problem> {
    let bytes = std::fs::read(file).map_err(|error| {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "check the path; tapgate --config FILE names another config"
            }
            std::io::ErrorKind::PermissionDenied => "run it with sudo or as a member of its group",
            _ => "check the path and the disk",
        };
        whole_file(file, format!("cannot be read: {error}"), help)
    })?;
    if bytes.len() > MAX_FILE_BYTES {
        let message = format!("is larger than {MAX_FILE_BYTES} bytes");
        return Err(whole_file(file, message, "is it the right file?"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let message = format!("is no UTF-8 text (byte {at})");
        whole_file(file, message, "save it as UTF-8")
    })
}

/// A problem of a file as a whole.
pub(super) fn whole_file(file: &Path, message: String, help: &str) -> Problem {
    Problem {
        file: file.display().to_string(),
        line: 0,
        column: 0,
        key: String::new(),
        message,
        help: help.into(),
    }
}

/// The `.toml` files of a folder, by name.
fn list(folder: &Path, named: bool) -> Result<Vec<PathBuf>, Problem> {
    let unreadable = |error: std::io::Error| {
        let help = "create the folder, make it readable, or mend [storage] profiles";
        whole_file(folder, format!("cannot be listed: {error}"), help)
    };
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !named => return Ok(vec![]),
        entries => entries.map_err(unreadable)?,
    };
    let mut files = Vec::new();
    for entry in entries.take(MAX_FILES) {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_profile_is_valid_and_says_where_it_comes_from() {
        for (name, text) in BUILT_IN {
            let profile = profile_file::parse(name, text)
                .unwrap_or_else(|problems| panic!("{name}: {problems:#?}"));
            assert_eq!(profile.name, name);
            assert!(profile.confidence.is_some(), "{name}");
            let mixed = |doubt: &String| doubt.contains("word_order: few");
            assert!(!profile.doubts().iter().any(mixed), "{name}");
            for described in [&profile.vendor, &profile.model, &profile.source] {
                assert!(!described.is_empty(), "{name}");
            }
        }
    }

    #[test]
    fn the_technicians_profile_wins_over_a_built_in_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = Library::built_in()
            .find("waveshare-relay-8")
            .map(|shelved| shelved.text.replace("count = 8", "count = 4"))
            .expect("built in");
        std::fs::write(folder.path().join("mine.toml"), text).expect("written");

        let library = Library::with_folder(folder.path(), true).expect("valid");

        let profile = library.find("waveshare-relay-8").expect("shelved").profile();
        assert_eq!(profile.points.len(), 4);
    }

    #[test]
    fn a_broken_profile_is_named_with_all_its_errors() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("mine.toml");
        std::fs::write(&file, "name = \"mine\"\nclass = \"metre\"\nbaud = 1\n").expect("written");

        let problems = Library::with_folder(folder.path(), true).expect_err("broken");

        let shown: Vec<_> = problems.iter().map(|p| (p.line, p.column, p.key.as_str())).collect();
        assert_eq!(shown, [(2, 9, "class"), (3, 1, "baud")]);
        assert!(problems.iter().all(|problem| problem.file == file.display().to_string()));
    }

    #[test]
    fn a_missing_folder_counts_only_where_it_was_named() {
        let folder = Path::new("/nonexistent/profiles");
        assert!(Library::with_folder(folder, false).is_ok());
        assert!(Library::with_folder(folder, true).is_err());
    }
}

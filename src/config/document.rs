//! A TOML file read key by key: what is missing, misspelt or of the wrong type is collected as a
//! [`Problem`] with its place, and reading goes on, so that all errors are shown at once.

use std::cell::RefCell;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;
use super::values;
use crate::core::ids::is_opaque_id;

/// Configs of hundreds of stations are below 100 kB; what is larger is the wrong file.
pub(super) const MAX_FILE_BYTES: usize = 1 << 20;

/// A file and what was found wrong with it so far.
pub(super) struct Document<'t> {
    file: &'t str,
    text: &'t str,
    errors: RefCell<Vec<(usize, Problem)>>,
    warnings: RefCell<Vec<(usize, Problem)>>,
}

/// Where a key or value stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Bytes of the file.
    pub(super) span: Range<usize>,
    /// The key with its sections.
    pub(super) key: String,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

impl<T> At<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> At<U> {
        At { value: f(self.value), place: self.place }
    }
}

impl<'t> Document<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Document<'t> {
        Document { file, text, errors: RefCell::default(), warnings: RefCell::default() }
    }

    /// The tables of the file; `None` after a syntax error, which is reported.
    pub(super) fn parse(&self) -> Option<Spanned<DeTable<'t>>> {
        let whole = |key: &str| Place { span: 0..0, key: key.into() };
        if self.text.len() > MAX_FILE_BYTES {
            let message = format!("the file is larger than {MAX_FILE_BYTES} bytes");
            self.error(&whole(""), message, "is it the right file?");
            return None;
        }
        match DeTable::parse(self.text) {
            Ok(table) => Some(table),
            Err(error) => {
                let place = Place { span: error.span().unwrap_or(0..0), key: "TOML syntax".into() };
                let help = "mend this line and check again: nothing below it was looked at";
                self.error(&place, error.message().replace('\n', ", "), help);
                None
            }
        }
    }

    pub(super) fn error(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        let problem = self.problem(place, message.into(), help.into());
        self.errors.borrow_mut().push((place.span.start, problem));
    }

    pub(super) fn warn(&self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        let problem = self.problem(place, message.into(), help.into());
        self.warnings.borrow_mut().push((place.span.start, problem));
    }

    /// The line on which a place starts.
    pub(super) fn line(&self, place: &Place) -> usize {
        self.line_and_column(place.span.start).0
    }

    /// Errors and warnings, in the order of the file.
    pub(super) fn into_problems(self) -> (Vec<Problem>, Vec<Problem>) {
        let sorted = |found: RefCell<Vec<(usize, Problem)>>| {
            let mut found = found.into_inner();
            found.sort_by_key(|(start, _)| *start);
            found.into_iter().map(|(_, problem)| problem).collect()
        };
        (sorted(self.errors), sorted(self.warnings))
    }

    fn problem(&self, place: &Place, message: String, help: String) -> Problem {
        let (line, column) = self.line_and_column(place.span.start);
        let key = place.key.clone();
        Problem { file: self.file.into(), line, column, key, message, help }
    }

    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset.min(self.text.len())).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|&b| b == b'\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }
}

/// One table of the file. Every key that is asked for is known; [`finish`](Section::finish)
/// reports the others.
pub(super) struct Section<'d> {
    pub(super) document: &'d Document<'d>,
    pub(super) place: Place,
    table: &'d DeTable<'d>,
    known: RefCell<Vec<&'static str>>,
}

/// One value of the file.
pub(super) struct Entry<'d> {
    document: &'d Document<'d>,
    pub(super) place: Place,
    value: &'d DeValue<'d>,
}

impl<'d> Section<'d> {
    /// The file itself.
    pub(super) fn root(document: &'d Document<'d>, table: &'d Spanned<DeTable<'d>>) -> Section<'d> {
        let place = Place { span: 0..0, key: String::new() };
        Section { document, place, table: table.get_ref(), known: RefCell::default() }
    }

    pub(super) fn get(&self, key: &'static str) -> Option<Entry<'d>> {
        self.known.borrow_mut().push(key);
        let value = self.table.get(key)?;
        Some(self.entry(key, value))
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// The keys as written, with their values: for tables whose keys are free.
    pub(super) fn entries(&self) -> impl Iterator<Item = (At<&'d str>, Entry<'d>)> {
        self.table.iter().map(|(key, value)| {
            let name: &'d str = key.get_ref();
            let place = Place { span: key.span(), key: self.key_of(name) };
            (At { value: name, place }, self.entry(name, value))
        })
    }

    /// Reports `key` where it is missing.
    pub(super) fn require(&self, key: &'static str, example: &str) {
        if !self.has(key) {
            let place = Place { span: self.place.span.clone(), key: self.key_of(key) };
            self.document.error(&place, "is missing", format!("add {key} = {example}"));
        }
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self) {
        let known = self.known.borrow();
        for (key, _) in self.table.iter() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let help = match values::closest(name, known.iter().copied()) {
                Some(similar) => format!("did you mean `{similar}`?"),
                None => format!("keys that belong here: {}", known.join(", ")),
            };
            let place = Place { span: key.span(), key: self.key_of(name) };
            self.document.error(&place, "unknown key", help);
        }
    }

    /// `[key]`, or an inline table.
    pub(super) fn table(&self, key: &'static str) -> Option<Section<'d>> {
        self.get(key)?.into_section()
    }

    /// `[[key]]`.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Section<'d>> {
        let Some(entry) = self.get(key) else { return Vec::new() };
        let Some(array) = entry.value.as_array() else {
            entry.wrong_type("a list of tables", format!("write [[{key}]] above it"));
            return Vec::new();
        };
        let element = |value: &'d Spanned<DeValue<'d>>| {
            let place = Place { span: value.span(), key: entry.place.key.clone() };
            Entry { document: self.document, place, value: value.get_ref() }.into_section()
        };
        array.iter().filter_map(element).collect()
    }

    pub(super) fn text(&self, key: &'static str) -> Option<At<&'d str>> {
        let entry = self.get(key)?;
        let text = entry.text("a string", format!("write {key} = \"...\""))?;
        if text.value.trim().is_empty() {
            let help = format!("give {key} a value or leave the line out");
            self.document.error(&text.place, "is empty", help);
            return None;
        }
        Some(text)
    }

    /// 1 to 64 of `[A-Za-z0-9._-]`.
    pub(super) fn id(&self, key: &'static str, example: &str) -> Option<At<String>> {
        self.require(key, &format!("\"{example}\""));
        self.parsed(key, example, |text| {
            let wrong = || format!("`{text}` is no id: 1 to 64 of A-Z, a-z, 0-9, ., _ and -");
            is_opaque_id(text).then(|| text.to_owned()).ok_or_else(wrong)
        })
    }

    pub(super) fn path(&self, key: &'static str) -> Option<At<PathBuf>> {
        self.text(key).map(|at| at.map(PathBuf::from))
    }

    pub(super) fn flag(&self, key: &'static str) -> Option<At<bool>> {
        let entry = self.get(key)?;
        let Some(value) = entry.value.as_bool() else {
            entry.wrong_type("true or false", format!("write {key} = true or {key} = false"));
            return None;
        };
        Some(At { value, place: entry.place })
    }

    pub(super) fn integer(&self, key: &'static str, range: RangeInclusive<i64>) -> Option<At<i64>> {
        self.get(key)?.integer(range)
    }

    /// A string that `parse` understands; `example` shows the form.
    pub(super) fn parsed<T>(
        &self,
        key: &'static str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        let entry = self.get(key)?;
        let help = format!("write {key} = \"{example}\"");
        let text = entry.text("a string", help.clone())?;
        match parse(text.value) {
            Ok(value) => Some(At { value, place: text.place }),
            Err(message) => {
                self.document.error(&text.place, message, help);
                None
            }
        }
    }

    /// The same where `"off"` disables it: `Some(None)`.
    pub(super) fn parsed_or_off<T>(
        &self,
        key: &'static str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        let example = format!("{example}\" or \"off");
        let parse = |text: &str| {
            if text == "off" { Ok(None) } else { parse(text).map(Some) }
        };
        self.parsed(key, &example, parse).map(|at| at.value)
    }

    pub(super) fn duration(
        &self,
        key: &'static str,
        example: &str,
        range: RangeInclusive<Duration>,
    ) -> Option<At<Duration>> {
        self.parsed(key, example, values::duration_within(range))
    }

    pub(super) fn choice<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<At<T>> {
        let entry = self.get(key)?;
        let all = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>();
        let help = format!("write {key} = {}", all.join(" or "));
        let text = entry.text("a string", help.clone())?;
        match words.iter().find(|(word, _)| *word == text.value) {
            Some((_, value)) => Some(At { value: *value, place: text.place }),
            None => {
                self.document.error(&text.place, format!("`{}` is unknown", text.value), help);
                None
            }
        }
    }

    /// A list of strings; `None` where it is missing or wrong.
    pub(super) fn texts(&self, key: &'static str) -> Option<At<Vec<At<&'d str>>>> {
        let entry = self.get(key)?;
        let help = format!("write {key} = [\"...\"]");
        let Some(elements) = entry.elements() else {
            entry.wrong_type("a list of strings", help);
            return None;
        };
        let texts: Vec<Option<At<&str>>> =
            elements.into_iter().map(|one| one.text("a string", help.clone())).collect();
        let value = texts.into_iter().collect::<Option<Vec<_>>>()?;
        Some(At { value, place: entry.place })
    }

    fn entry(&self, key: &str, value: &'d Spanned<DeValue<'d>>) -> Entry<'d> {
        let place = Place { span: value.span(), key: self.key_of(key) };
        Entry { document: self.document, place, value: value.get_ref() }
    }

    fn key_of(&self, key: &str) -> String {
        match self.place.key.as_str() {
            "" => key.into(),
            section => format!("{section}.{key}"),
        }
    }
}

impl<'d> Entry<'d> {
    pub(super) fn value(&self) -> &'d DeValue<'d> {
        self.value
    }

    pub(super) fn into_section(self) -> Option<Section<'d>> {
        let Some(table) = self.value.as_table() else {
            self.wrong_type("a table", format!("write [{}] above its keys", self.place.key));
            return None;
        };
        let Entry { document, place, .. } = self;
        Some(Section { document, place, table, known: RefCell::default() })
    }

    /// The values of a list.
    pub(super) fn elements(&self) -> Option<Vec<Entry<'d>>> {
        let element = |value: &'d Spanned<DeValue<'d>>| {
            let place = Place { span: value.span(), key: self.place.key.clone() };
            Entry { document: self.document, place, value: value.get_ref() }
        };
        Some(self.value.as_array()?.iter().map(element).collect())
    }

    pub(super) fn text(&self, expected: &str, help: String) -> Option<At<&'d str>> {
        let Some(value) = self.value.as_str() else {
            self.wrong_type(expected, help);
            return None;
        };
        Some(At { value, place: self.place.clone() })
    }

    pub(super) fn integer(&self, range: RangeInclusive<i64>) -> Option<At<i64>> {
        let (low, high) = (range.start(), range.end());
        let key = self.place.key.rsplit('.').next().unwrap_or_default();
        let help = format!("write {key} = a number from {low} to {high}");
        let Some(number) = self.value.as_integer() else {
            self.wrong_type("a whole number", help);
            return None;
        };
        match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(value) if range.contains(&value) => Some(At { value, place: self.place.clone() }),
            Ok(_) | Err(_) => {
                let message = format!("{number} is not between {low} and {high}");
                self.document.error(&self.place, message, help);
                None
            }
        }
    }

    pub(super) fn wrong_type(&self, expected: &str, help: impl Into<String>) {
        let found = match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a decimal number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.document.error(&self.place, format!("expected {expected}, found {found}"), help);
    }
}

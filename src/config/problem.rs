//! What is wrong with a file, where, and what to do about it.

use std::fmt;

use serde::Serialize;

/// One thing that is wrong, or valid but not wise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The file as it was named.
    pub file: String,
    /// From 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// In characters, from 1; 0 where the file as a whole is meant.
    pub column: usize,
    /// The key with its sections, such as `station.switch`.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// `FILE:LINE:COLUMN: KEY: MESSAGE`, then a line with the fix.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}\n  help: {}", self.message, self.help)
    }
}

/// Everything that is wrong with a configuration, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl ConfigErrors {
    pub(super) fn new(problems: Vec<Problem>, warnings: Vec<Problem>) -> ConfigErrors {
        assert!(!problems.is_empty(), "an error without a problem");
        ConfigErrors { problems, warnings }
    }

    /// The errors, one by one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// What is not wise beside what is wrong.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }
}

/// One block per error.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

// SPDX-License-Identifier: Apache-2.0
//! The table of rules as a document.

use std::fmt::Write;

use super::rules::ALL;

const HEAD: &str = "# What `wsbox bundle check` looks for

Made by `wsbox bundle check --rules --format markdown` of [src/check/rules.rs](src/check/rules.rs); a test keeps it current.

Rules below WSB100 are of config.json, those above of the root file system. The root is walked as the container will see it, layers and
whiteouts applied, without following a link, crossing a mount or opening what is no regular file. Of a file up to 1 MiB all is read, of a
longer one the first 64 KiB; a secret that was found is named, never shown. Secrets are looked for in what layers above hide, too, where
the bundle has layers or is made of an image by root. What could not be looked at is a finding itself, and a root with more than 2 million
names or 64 GiB to read is an error.

`--fix` mends what says so, in config.json alone; what somebody put there on purpose, such as a mount, stays.

| rule | severity | what | why | what to do | `--fix` |
|---|---|---|---|---|---|
";

/// As bundles/CHECKS.md has it.
pub fn markdown() -> String {
    ALL.iter().fold(HEAD.to_owned(), |mut text, rule| {
        let cell = |text: &str| text.replace('|', "\\|");
        let severity = rule.severity.name();
        let (title, why, fix) = (cell(rule.title), cell(rule.why), cell(rule.fix));
        let _ = writeln!(text, "| {} | {severity} | {title} | {why} | {fix} | {} |", rule.id, rule.mended);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_current() {
        let how = "wsbox bundle check --rules --format markdown > bundles/CHECKS.md";
        assert!(markdown() == include_str!("../../CHECKS.md"), "{how}");
    }
}

// SPDX-License-Identifier: Apache-2.0
//! runc reads its flags with Go's package flag, and so do the scripts that call it: `-force` and `--force=true` are `--force`.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

/// The words for true and false (Go's strconv.ParseBool).
const WORDS: [(&str, bool); 11] = [
    ("1", true),
    ("t", true),
    ("T", true),
    ("true", true),
    ("TRUE", true),
    ("True", true),
    ("0", false),
    ("f", false),
    ("F", false),
    ("false", false),
    ("FALSE", false),
];

/// The same arguments as clap takes them. Words of a payload stay as they are.
pub fn spelled_out(top: &Command, args: Vec<OsString>) -> Vec<OsString> {
    let mut spelled = Vec::with_capacity(args.len());
    let mut args = args.into_iter();
    spelled.extend(args.next());
    let mut command = top;
    while let Some(arg) = args.next() {
        let Some(text) = arg.to_str().map(str::to_owned) else {
            spelled.push(arg);
            continue;
        };
        match flag(top, command, &text) {
            Some(flag) => {
                spelled.extend(flag.spelled());
                if flag.takes_next() {
                    spelled.extend(args.next());
                }
            }
            None => {
                spelled.push(arg);
                command = match command.find_subcommand(&text) {
                    Some(found) => found,
                    None if text == "--" || command.get_name() == "exec" => break,
                    None => command,
                };
            }
        }
    }
    spelled.extend(args);
    spelled
}

/// A word that is a flag of a command.
struct Flag<'a> {
    known: &'a Arg,
    text: String,
    value: Option<String>,
}

fn flag<'a>(top: &'a Command, command: &'a Command, text: &str) -> Option<Flag<'a>> {
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    let bare = name.strip_prefix("--").or_else(|| name.strip_prefix('-'))?;
    let all = || command.get_arguments().chain(top.get_arguments());
    let long = all().find(|arg| arg.get_long() == Some(bare) && bare.len() > 1);
    let short = || all().find(|arg| arg.get_short().is_some_and(|short| name == format!("-{short}")));
    let known = long.or_else(short)?;
    let text = if long.is_some() { format!("--{bare}") } else { name.to_owned() };
    Some(Flag { known, text, value: value.map(str::to_owned) })
}

impl Flag<'_> {
    fn takes_next(&self) -> bool {
        self.value.is_none() && self.known.get_action().takes_values()
    }

    /// A switch that is off is as one that is not given.
    fn spelled(&self) -> Option<OsString> {
        let word = self.value.as_ref().and_then(|value| WORDS.iter().find(|(word, _)| word == value));
        match (self.known.get_action(), word, &self.value) {
            (ArgAction::SetTrue, Some((_, on)), _) => on.then(|| self.text.clone().into()),
            (_, _, Some(value)) => Some(format!("{}={value}", self.text).into()),
            (_, _, None) => Some(self.text.clone().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spelled(args: &str) -> String {
        let args = args.split(' ').map(OsString::from).collect();
        let parser = super::super::parser::parser(None);
        spelled_out(&parser, args).into_iter().map(|arg| arg.into_string().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn one_dash_and_values() {
        for (given, want) in [
            ("wsbox delete -force a", "wsbox delete --force a"),
            ("wsbox delete -f=true a", "wsbox delete -f a"),
            ("wsbox delete --force=0 a", "wsbox delete a"),
            ("wsbox delete --force=maybe a", "wsbox delete --force=maybe a"),
            (
                "wsbox -root /x -debug=F create -bundle=b -pid-file p a",
                "wsbox --root /x create --bundle=b --pid-file p a",
            ),
            ("wsbox create a -no-pivot", "wsbox create a --no-pivot"),
            ("wsbox run -d -b x -id", "wsbox run -d -b x --id"),
            ("wsbox update --memory -1 a", "wsbox update --memory -1 a"),
            ("wsbox exec -cwd / a ls -cwd --tty=true", "wsbox exec --cwd / a ls -cwd --tty=true"),
            ("wsbox exec -env -tty a -- -tty", "wsbox exec --env -tty a -- -tty"),
            ("wsbox kill a -- -tty", "wsbox kill a -- -tty"),
        ] {
            assert_eq!(spelled(given), want);
        }
    }
}

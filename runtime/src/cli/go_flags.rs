// SPDX-License-Identifier: Apache-2.0
//! runc reads its flags with Go's package flag, and so do the scripts that call it: `-force` and `--force=true` are `--force`.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command, Id};

/// The words for true and false (Go's strconv.ParseBool).
const WORDS: [(&str, bool); 12] = [
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
    ("False", false),
];

/// The same arguments as clap takes them. What may be words of a payload stays as it is.
pub fn spelled_out(top: &Command, args: Vec<OsString>) -> Vec<OsString> {
    let mut args = args.into_iter();
    let mut spelled: Vec<(Option<&Id>, OsString)> = args.next().map(|name| (None, name)).into_iter().collect();
    let (mut command, mut words) = (top, 0);
    while !payload_follows(command, words) {
        let Some(arg) = args.next() else { break };
        let text = arg.to_str().unwrap_or_default().to_owned();
        match flag(command, &text) {
            Some(flag) => {
                let next = if flag.takes_next() { args.next() } else { None };
                flag.spell(&mut spelled);
                spelled.extend(next.map(|next| (None, next)));
            }
            None if text == "--" => {
                spelled.push((None, arg));
                break;
            }
            None => {
                words += u32::from(!text.starts_with('-'));
                (command, words) = command.find_subcommand(&text).map_or((command, words), |found| (found, 0));
                spelled.push((None, arg));
            }
        }
    }
    spelled.into_iter().map(|(_, arg)| arg).chain(args).collect()
}

/// Whether after so many words that are no flags all others may be a payload's.
fn payload_follows(command: &Command, words: u32) -> bool {
    let payload = command.get_positionals().position(Arg::is_trailing_var_arg_set);
    payload.is_some_and(|at| words as usize >= at)
}

/// A word that is a flag of a command.
struct Flag<'a> {
    known: &'a Arg,
    text: String,
    value: Option<String>,
}

fn flag<'a>(command: &'a Command, text: &str) -> Option<Flag<'a>> {
    let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
    let bare = name.strip_prefix("--").or_else(|| name.strip_prefix('-'))?;
    let long = command.get_arguments().find(|arg| arg.get_long() == Some(bare) && bare.len() > 1);
    let is_short = |arg: &&Arg| arg.get_short().is_some_and(|short| name == format!("-{short}"));
    let known = long.or_else(|| command.get_arguments().find(is_short))?;
    let text = if long.is_some() { format!("--{bare}") } else { name.to_owned() };
    Some(Flag { known, text, value: value.map(str::to_owned) })
}

impl<'a> Flag<'a> {
    fn takes_next(&self) -> bool {
        self.value.is_none() && self.known.get_action().takes_values() && !self.known.is_require_equals_set()
    }

    /// The last value of a switch stands: off is as if it had never been given.
    fn spell(self, spelled: &mut Vec<(Option<&'a Id>, OsString)>) {
        let id = self.known.get_id();
        let word = self.value.as_ref().and_then(|value| WORDS.iter().find(|(word, _)| word == value));
        match (self.known.get_action(), word, self.value) {
            (ArgAction::SetTrue, Some((_, false)), _) => spelled.retain(|(known, _)| *known != Some(id)),
            (ArgAction::SetTrue, Some((_, true)), _) | (_, _, None) => spelled.push((Some(id), self.text.into())),
            (_, _, Some(value)) => spelled.push((Some(id), format!("{}={value}", self.text).into())),
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
            ("wsbox delete --force -f -f=False a", "wsbox delete a"),
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
            ("wsbox exec -td -tty=true -u0 -env A=1 a ls -env", "wsbox exec -td --tty -u0 --env A=1 a ls -env"),
            ("wsbox ps -format json a -tty -quiet", "wsbox ps --format json a -tty -quiet"),
            ("wsbox bundle create i o java -version -env", "wsbox bundle create i o java -version -env"),
            ("wsbox kill a -- -tty", "wsbox kill a -- -tty"),
        ] {
            assert_eq!(spelled(given), want);
        }
    }
}

// SPDX-License-Identifier: Apache-2.0
//! A filter whose denied calls can be counted: instead of failing them itself it asks the monitor, which fails them with the same
//! number. ENOSYS stays in the filter: by it a profile says that a call is not there, which is no violation.

use super::{Filter, Insn, NEW_LISTENER, TSYNC, Verdict, WAIT_KILLABLE, answers_itself, has_verdict, tree};
use crate::Result;
use crate::seccomp::Arch;

const UNANSWERED: &str =
    "the filter denies read or write, by which it is handed to the monitor that counts; allow both";

/// Why a filter's denied calls can not be counted; none if they can.
pub(crate) fn uncountable(filter: Option<&Filter>) -> Option<&'static str> {
    let Some(filter) = filter else { return Some("there is no filter, so nothing is denied") };
    if has_verdict(&filter.program, Verdict::NOTIFY) {
        return Some("the config's own listener answers (SCMP_ACT_NOTIFY), and a filter has only one");
    }
    if !filter.program.iter().any(is_denial) {
        return Some("no call is denied with an error number other than ENOSYS");
    }
    answers_itself(&filter.program, Arch::native()).is_err().then_some(UNANSWERED)
}

/// The same filter, asking. Only for one that is not [`uncountable`].
pub(crate) fn counted(filter: &Filter) -> Filter {
    let ask =
        |insn: &Insn| if is_denial(insn) { Insn { k: Verdict::NOTIFY.raw(), ..insn.clone() } } else { insn.clone() };
    Filter {
        program: filter.program.iter().map(ask).collect(),
        // The init has one thread.
        flags: filter.flags & !TSYNC | NEW_LISTENER | WAIT_KILLABLE,
        warnings: Vec::new(),
    }
}

/// Whether a call ends here with an error number that says no.
fn is_denial(insn: &Insn) -> bool {
    let is_error = insn.k & libc::SECCOMP_RET_ACTION_FULL == libc::SECCOMP_RET_ERRNO;
    insn.code == tree::RETURN && is_error && insn.k != Verdict::ENOSYS.raw()
}

/// For [`super::compile_strictest`]'s callers: whether counting is wanted, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Counting {
    /// By nobody
    #[default]
    Off,
    /// By the profile in force, where it can be
    Wanted,
    /// By name: where it can not be is an error
    Asked,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Nobody wants it
    No,
    /// It is done
    Yes,
    /// It would be, but can not, and why
    Impossible(&'static str),
}

impl Counting {
    /// # Errors
    /// If it was asked for and can not be done.
    pub(crate) fn of(&self, filter: Option<&Filter>) -> Result<Counted> {
        match (self, uncountable(filter)) {
            (Self::Off, _) => Ok(Counted::No),
            (_, None) => Ok(Counted::Yes),
            (Self::Wanted, Some(why)) => Ok(Counted::Impossible(why)),
            (Self::Asked, Some(why)) => {
                let error = crate::Error::invalid("linux.seccomp", format!("violations can not be counted: {why}"));
                Err(error.hint("leave --count-violations, or the annotation dev.wsbox.violations, out"))
            }
        }
    }
}

#[cfg(test)]
#[path = "../../init/monitor/verdict.rs"]
mod verdict;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::{Abi, Options, compile, interpret, table, to_bytes, workspace};

    /// Every number of every ABI, with arguments that rules look at: the monitor says what the filter would have said, and is
    /// asked for nothing else.
    #[test]
    fn the_monitor_fails_calls_as_the_filter_would() {
        for deny_set_id in [false, true] {
            let plain = compile(&workspace(), &Options { deny_set_id, ..Options::default() }).unwrap();
            let (asking, bytes) = (counted(&plain), to_bytes(&plain.program));
            let mut asked = 0;
            for abi in [Abi::X86_64, Abi::X86, Abi::X32, Abi::Aarch64] {
                for nr in (0..600).map(|nr| nr + abi.base()) {
                    for arg in [0, 0o4755, 0x7e02_0000, u64::MAX] {
                        let call = interpret::Call { nr, arch: abi.audit_arch(), args: [arg; 6], ..Default::default() };
                        let (was, is) = (interpret::run(&plain.program, &call), interpret::run(&asking.program, &call));
                        let mut data = [0u32; 16];
                        (data[0], data[1]) = (call.nr, call.arch);
                        (0..6).for_each(|at| (data[4 + at * 2], data[5 + at * 2]) = (arg as u32, (arg >> 32) as u32));
                        assert_eq!(verdict::run(&bytes, &data), was);
                        if is != was {
                            let number = was.unwrap() & 0xffff;
                            assert_eq!(
                                (is, was),
                                (Some(Verdict::NOTIFY.raw()), Some(Verdict::errno(number as u16).raw()))
                            );
                            assert_ne!(number as i32, libc::ENOSYS);
                            assert_eq!(verdict::error_number(&bytes, &data), number as i32);
                            asked += 1;
                        }
                    }
                }
            }
            assert!(asked > 100, "{asked}");
        }
    }

    #[test]
    fn what_can_not_be_counted() {
        let filter = |change: &dyn Fn(String) -> String| {
            let text = change(crate::seccomp::WORKSPACE.to_owned());
            compile(&serde_json::from_str(&text).unwrap(), &Options::default()).ok()
        };
        let workspace = filter(&|text| text);
        assert_eq!(Counting::Asked.of(workspace.as_ref()).unwrap(), Counted::Yes);
        assert_eq!(Counting::Off.of(None).unwrap(), Counted::No);
        let no_write = filter(&|text| text.replace("\"write\"", "\"getpid\""));
        assert!(uncountable(no_write.as_ref()).is_some_and(|why| why.contains("denies read or write")));
        for filter in [None, no_write] {
            assert!(matches!(Counting::Wanted.of(filter.as_ref()).unwrap(), Counted::Impossible(_)));
            assert!(Counting::Asked.of(filter.as_ref()).unwrap_err().to_string().starts_with("linux.seccomp:"));
        }
        assert!(table::number("write", Abi::X86_64).is_some());
    }
}

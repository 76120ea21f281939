// SPDX-License-Identifier: Apache-2.0
//! The `wsbox` command.

fn main() -> std::process::ExitCode {
    wsbox::cli::main()
}

// SPDX-License-Identifier: Apache-2.0
//! The `wsbox` command.

#[global_allocator]
static ARENA: wsbox::cli::Arena = wsbox::cli::Arena::new();

fn main() -> std::process::ExitCode {
    wsbox::cli::main()
}

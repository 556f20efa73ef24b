//! The `legate` binary: the command line, then [`legate::server`].

use std::io::Write as _;
use std::process::ExitCode;

use legate::cli::{Command, parse};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    legate::sys::ordinary_pages();
    match parse(std::env::args()) {
        Ok(Command::Run(options)) => legate::server::run(&options),
        Ok(Command::Demo(arguments)) => legate::demo::run(&arguments),
        Ok(Command::Drill(arguments)) => legate::drill::run(&arguments),
        Ok(Command::Print(text)) => {
            let _ = writeln!(std::io::stdout(), "{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

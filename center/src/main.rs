//! The program; see the library, which the simulator uses as well.

use std::process::ExitCode;

fn main() -> ExitCode {
    lodge_center::main()
}

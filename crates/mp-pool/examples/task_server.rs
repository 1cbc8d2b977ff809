//! Another program with the tasks of the test `named`: it runs them for whoever holds the other end of a connection.
//!
//! Usage: `task_server ADDRESS KEY`. It connects there, and ends when the other end is closed.

#[path = "../tests/named/shapes.rs"]
mod shapes;

use mp_channel::connection::{Auth, Connection, RecvError};
use mp_pool::named::{self, Call};
use mp_pool::task;

/// What this build says it is.
const BUILD: &str = "the server";

/// The other build has it with `u32`.
#[task(name = "shapes.changed")]
fn changed(n: u64) -> u64 {
    n
}

#[task(name = "shapes.twice")]
fn twice(n: u32) -> u32 {
    n * 2
}

mod other {
    /// The same name once more.
    #[mp_pool::task(name = "shapes.twice")]
    fn twice(n: u32) -> u32 {
        n * 3
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, address, key] = arguments.as_slice() else {
        // As an example that is just run.
        println!("usage: task_server ADDRESS KEY; {:?}", named::names().map(|names| names.len()));
        return Ok(());
    };
    let mut connection = Connection::connect(&address.parse()?, Auth::new(key.as_str()))?;
    loop {
        match connection.recv_value::<Call>() {
            Ok(call) => connection.send_value(&call.run())?,
            Err(RecvError::Disconnected) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

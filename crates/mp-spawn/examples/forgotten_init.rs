//! A program that, built without the feature `constructor`, calls `init` only if it is given an argument: see the test
//! `forgotten_init`.

use mp_spawn::Process;

fn main() {
    if std::env::args_os().nth(1).is_some() {
        mp_spawn::init();
    }
    println!("main");
    match Process::spawn(|n: u32| n * 2, 21) {
        Ok(child) => println!("{:?}", child.join()),
        Err(error) => println!("{error:?}: {error}"),
    }
    match std::fs::File::open("/dev/null").map(mp_shm::Fd::new) {
        Ok(Ok(fd)) => println!("deposited, and opened again: {}", fd.open().is_ok()),
        Ok(Err(error)) => println!("{:?}: {error}", error.failure()),
        Err(error) => println!("{error}"),
    }
    println!("children: {:?}", mp_testkit::proc::children());
}

//! Another program with multiproc in it. A child that runs it by mistake must refuse its job: see the test `executable`.

use mp_spawn::Process;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let child = Process::spawn(|name: String| format!("hello {name}"), "you".to_owned())?;
    println!("{}", child.join()?);
    Ok(())
}

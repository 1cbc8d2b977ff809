//! Tasks that two builds of a program have: the test `named` and the example `task_server`. They are separate programs, in each of which
//! everything lies elsewhere; what they share is this text, and so the names.

use mp_pool::task;
use mp_shm::rkyv;

#[derive(Clone, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
#[rkyv(crate = mp_shm::rkyv)]
pub(crate) enum Shape {
    Square(f64),
    Polygon { name: String, corners: Vec<(f64, f64)> },
}

#[task(name = "shapes.area")]
pub(crate) fn area(side: f64) -> f64 {
    side * side
}

#[task(name = "shapes.volume")]
pub(crate) fn volume(a: f64, b: f64, c: f64) -> f64 {
    a * b * c
}

#[task(name = "shapes.moved")]
pub(crate) fn moved((shape, by): (Shape, f64)) -> Vec<Shape> {
    let moved = match shape.clone() {
        Shape::Square(side) => Shape::Square(side),
        Shape::Polygon { name, corners } => {
            Shape::Polygon { name, corners: corners.into_iter().map(|(x, y)| (x + by, y)).collect() }
        }
    };
    vec![shape, moved]
}

#[task(name = "shapes.unlucky")]
pub(crate) fn unlucky(n: u64) -> u64 {
    assert!(n != 13, "unlucky {n}");
    n
}

/// Which build this is, and which process.
#[task(name = "shapes.built_as")]
pub(crate) fn built_as() -> (String, u32) {
    (crate::BUILD.to_owned(), std::process::id())
}

#[task(name = "shapes.exit")]
pub(crate) fn exit(code: i32) {
    std::process::exit(code);
}

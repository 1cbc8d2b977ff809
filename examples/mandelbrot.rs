//! Computes a picture of the Mandelbrot set with a pool of processes, which write their tiles into one shared array.
//!
//! `mandelbrot [--size N] [--iterations N] [--workers N] [--out FILE] [--check]`. Run with `cargo run --release --example mandelbrot -- --out m.png`.
//!
//! Tiles differ much in their cost: one inside of the set takes a thousand times as long as one far outside. So there are many, and each worker takes
//! the next when it is done with one. All have a handle to the whole array: a `Part` of it belongs to one process alone, and a pool
//! keeps the argument of a task as long as it may have to be tried again.
//!
//! Exit status 0: done; 1: the comparison failed, or the pool or the file did; 2: wrong arguments.

use lexopt::prelude::*;
use multiproc::Pool;
use multiproc::shm::Array;
use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
Usage: mandelbrot [--size N] [--iterations N] [--workers N] [--out FILE] [--check]

  --size N        width and height in pixels; else 1024
  --iterations N  when a point counts as inside of the set; else 1000
  --workers N     worker processes; else one for each CPU
  --out FILE      write the picture there, as PNG
  --check         compute it again in one process and compare, the written file too";

/// Pixels of a tile's side.
const TILE: u32 = 64;

/// What is shown: the square around this point, with half of this side.
const CENTRE: [f64; 2] = [-0.75, 0.0];
const HALF_SIDE: f64 = 1.5;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Red, green, blue, and how much it covers.
type Colour = [u8; 4];

/// A picture's size in pixels, and its greatest number of iterations.
type Picture = (u32, u32);

/// The task: where the picture is, what it is, and the tile's first column and row.
type Tile = (Array<Colour>, Picture, [u32; 2]);

/// How often z² + c can be applied, from zero on, before the value leaves the circle of radius 2; at most so many times.
fn iterations(c: [f64; 2], most: u32) -> u32 {
    let [mut x, mut y] = [0.0_f64; 2];
    for done in 0..most {
        let (xx, yy) = (x * x, y * y);
        if xx + yy > 4.0 {
            return done;
        }
        y = 2.0 * x * y + c[1];
        x = xx - yy + c[0];
    }
    most
}

/// Black inside of the set; outside, colours that follow the number of iterations.
fn colour(iterations: u32, most: u32) -> Colour {
    if iterations == most {
        return [0, 0, 0, 255];
    }
    // Three waves, each a third later than the one before.
    let wave = |later: f64| {
        let turn = f64::from(iterations).sqrt() * 0.6 + later;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 255")]
        let part = (127.5 * (1.0 - turn.cos())) as u8;
        part
    };
    [wave(0.0), wave(0.4), wave(0.8), 255]
}

/// The pixel at `column` and `row`.
fn pixel((size, most): Picture, [column, row]: [u32; 2]) -> Colour {
    let step = 2.0 * HALF_SIDE / f64::from(size);
    let place = |centre: f64, at: u32| centre - HALF_SIDE + (f64::from(at) + 0.5) * step;
    colour(iterations([place(CENTRE[0], column), place(CENTRE[1], row)], most), most)
}

/// Computes a tile, and writes it into the picture row by row; gives the number of its pixels. Runs in a worker.
fn tile((pixels, picture, [column, row]): Tile) -> u64 {
    let size = picture.0;
    let columns = column..size.min(column + TILE);
    let mut done = 0;
    for row in row..size.min(row + TILE) {
        let line: Vec<Colour> = columns.clone().map(|column| pixel(picture, [column, row])).collect();
        pixels.write_from(row as usize * size as usize + column as usize, &line);
        done += line.len() as u64;
    }
    done
}

/// Computes a picture on the pool.
fn compute(pool: &Pool, picture: Picture) -> Outcome<Vec<Colour>> {
    let size = picture.0;
    let area = u64::from(size) * u64::from(size);
    let pixels = Array::new(usize::try_from(area)?)?;
    let starts = || (0..size).step_by(TILE as usize);
    let tiles = starts().flat_map(|row| starts().map(move |column| [column, row]));
    let done = pool.map(tile, tiles.map(|start| (pixels.clone(), picture, start)))?;
    if done.iter().sum::<u64>() == area { Ok(pixels.to_vec()) } else { Err("tiles are missing".into()) }
}

/// The same in this process, in the plainest way: what `--check` compares with.
fn compute_plainly(picture: Picture) -> Vec<Colour> {
    let size = picture.0;
    (0..size).flat_map(|row| (0..size).map(move |column| pixel(picture, [column, row]))).collect()
}

/// Writes a picture as PNG.
fn write(path: &Path, size: u32, pixels: &[Colour]) -> Outcome<()> {
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), size, size);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels.as_flattened())?;
    Ok(writer.finish()?)
}

/// The bytes of a picture that was written.
fn read(path: &Path) -> Outcome<Vec<u8>> {
    let mut reader = png::Decoder::new(BufReader::new(File::open(path)?)).read_info()?;
    let mut bytes = vec![0; reader.output_buffer_size().ok_or("the picture is too large")?];
    let len = reader.next_frame(&mut bytes)?.buffer_size();
    bytes.truncate(len);
    Ok(bytes)
}

/// What differs between two pictures, if anything does.
fn difference(found: &[Colour], expected: &[Colour]) -> Option<String> {
    if found.len() != expected.len() {
        return Some(format!("{} pixels, expected {}", found.len(), expected.len()));
    }
    let mut wrong = found.iter().zip(expected).enumerate().filter(|(_, (found, expected))| found != expected);
    let (at, (one, other)) = wrong.next()?;
    Some(format!("{} pixels differ, the first is {at}: {one:?}, expected {other:?}", 1 + wrong.count()))
}

/// The command line.
struct Options {
    picture: Picture,
    workers: Option<usize>,
    out: Option<PathBuf>,
    check: bool,
    help: bool,
}

impl Options {
    fn parse() -> Outcome<Self> {
        let mut options = Self { picture: (1024, 1000), workers: None, out: None, check: false, help: false };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("size") => options.picture.0 = parser.value()?.parse()?,
                Long("iterations") => options.picture.1 = parser.value()?.parse()?,
                Long("workers") => options.workers = Some(parser.value()?.parse()?),
                Long("out") => options.out = Some(parser.value()?.into()),
                Long("check") => options.check = true,
                Short('h') | Long("help") => options.help = true,
                _ => return Err(argument.unexpected().into()),
            }
        }
        if options.picture.0 == 0 || options.workers == Some(0) {
            return Err("--size and --workers must be at least 1".into());
        }
        Ok(options)
    }
}

/// Computes, writes and compares; whether the comparison was well.
fn run(options: &Options) -> Outcome<bool> {
    let mut builder = Pool::builder();
    if let Some(workers) = options.workers {
        builder = builder.workers(workers);
    }
    let pool = builder.build()?;
    let size = options.picture.0;
    let start = Instant::now();
    let pixels = compute(&pool, options.picture)?;
    println!("{size} x {size} pixels, {} workers, {:.2} s", pool.workers(), start.elapsed().as_secs_f64());
    if let Some(path) = &options.out {
        write(path, size, &pixels).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if !options.check {
        return Ok(true);
    }
    let start = Instant::now();
    let expected = compute_plainly(options.picture);
    let time = start.elapsed().as_secs_f64();
    let mut difference = difference(&pixels, &expected);
    if let (None, Some(path)) = (&difference, &options.out) {
        let told = |error| format!("{}: {error}", path.display());
        if read(path).map_err(told)? != expected.as_flattened() {
            difference = Some(format!("{} holds another picture", path.display()));
        }
    }
    println!("check: {}, {time:.2} s in one process", difference.as_deref().unwrap_or("equal"));
    Ok(difference.is_none())
}

fn main() -> ExitCode {
    let options = match Options::parse() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("mandelbrot: {error}");
            return ExitCode::from(2);
        }
    };
    if options.help {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mandelbrot: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_inside_stay_and_points_outside_leave() {
        assert_eq!(iterations([0.0, 0.0], 100), 100);
        assert_eq!(iterations([-1.0, 0.0], 100), 100);
        assert_eq!(iterations([2.0, 2.0], 100), 1);
        assert_eq!(colour(100, 100), [0, 0, 0, 255]);
    }

    #[test]
    fn a_size_that_tiles_do_not_divide_is_computed_whole() -> Outcome<()> {
        let picture = (TILE + 37, 50);
        let pool = Pool::builder().workers(2).build()?;
        assert_eq!(difference(&compute(&pool, picture)?, &compute_plainly(picture)), None);
        Ok(())
    }

    #[test]
    fn what_is_written_is_read_again() -> Outcome<()> {
        let path = std::env::temp_dir().join(format!("mandelbrot-test-{}.png", std::process::id()));
        let pixels = compute_plainly((9, 50));
        write(&path, 9, &pixels)?;
        let bytes = read(&path);
        std::fs::remove_file(&path)?;
        assert_eq!(bytes?, pixels.as_flattened());
        Ok(())
    }

    #[test]
    fn a_difference_is_named() {
        let (one, mut other) = (compute_plainly((5, 50)), compute_plainly((5, 50)));
        other[7] = [1, 2, 3, 4];
        other[9] = [1, 2, 3, 4];
        let told = difference(&one, &other).unwrap_or_default();
        assert!(told.starts_with("2 pixels differ, the first is 7:"), "{told}");
        assert!(difference(&one[1..], &other).is_some());
    }
}

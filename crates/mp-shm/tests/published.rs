//! Names in a session, and programs that attach by a socket.
#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "tests")]

mod child;

use child::{listen, say, unique};
use mp_shm::listener::ListenError;
use mp_shm::published::PublishError;
use mp_shm::{Session, Shared};
use mp_testkit::watchdog;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

type Board = Shared<AtomicU64>;

#[test]
fn child() {
    let Some((role, arguments)) = child::role() else { return };
    match role.as_str() {
        // An unrelated program: all it knows is the address, and the name.
        "visitor" => {
            let session = Session::connect_timeout(&arguments[0], LONG).unwrap();
            let board: Board = session.lookup("board").unwrap();
            board.fetch_add(5, Ordering::Relaxed);
            let own = Board::with_in(session, |count| *count.get_mut() = 11).unwrap();
            session.publish("visitor", &own).unwrap();
            say("published");
            listen();
        }
        "by descriptor" => {
            let file = std::fs::File::options().read(true).write(true).open(&arguments[0]).unwrap();
            let session = Session::from_fd(file.into()).unwrap();
            session.lookup::<Board>("board").unwrap().fetch_add(7, Ordering::Relaxed);
            session.me().unwrap();
        }
        // Ends without a drop: its file stays.
        "dead listener" => {
            let listener = Session::create().unwrap().listen(&arguments[0]).unwrap();
            say("listening");
            listen();
            drop(listener);
        }
        other => panic!("no role {other}"),
    }
}

fn clean(session: Session) -> bool {
    session.recover_dead();
    let audit = session.audit();
    audit.counts_are_right
        && audit.references == 0
        && audit.objects == 0
        && audit.names == 0
        && audit.blocks == 0
}

#[test]
fn a_published_name_leads_to_the_object_and_keeps_it() {
    let _watchdog = watchdog(LONG);
    let session = Session::create().unwrap();
    let board = Board::with_in(session, |count| *count.get_mut() = 1).unwrap();
    session.publish("board", &board).unwrap();
    assert!(matches!(session.publish("board", &board), Err(PublishError::InUse)));
    drop(board);
    let audit = session.audit();
    assert!(audit.counts_are_right && audit.names == 1 && audit.references == 1, "{audit:?}");
    let board: Board = session.lookup("board").unwrap();
    assert_eq!(board.load(Ordering::Relaxed), 1);
    assert!(matches!(session.lookup::<Shared<[AtomicU64; 2]>>("board"), Err(PublishError::Handle(_))));
    assert!(session.audit().counts_are_right, "a look-up that failed has taken nothing");
    assert!(matches!(session.lookup::<Board>("boar"), Err(PublishError::NotFound)));
    session.unpublish("board").unwrap();
    assert!(matches!(session.unpublish("board"), Err(PublishError::NotFound)));
    assert!(matches!(session.lookup::<Board>("board"), Err(PublishError::NotFound)));
    assert_eq!(board.load(Ordering::Relaxed), 1, "the handle holds on to it");
    drop(board);
    assert!(clean(session), "{:?}", session.audit());
}

#[test]
fn names_are_checked_and_bounded() {
    let session = Session::create().unwrap();
    let board = Board::with_in(session, |_| ()).unwrap();
    for name in ["", &"x".repeat(49)] {
        assert!(matches!(session.publish(name, &board), Err(PublishError::BadName)));
        assert!(matches!(session.lookup::<Board>(name), Err(PublishError::BadName)));
        assert!(matches!(session.unpublish(name), Err(PublishError::BadName)));
    }
    for number in 0..256 {
        session.publish(&format!("{number:048}"), &board).unwrap();
    }
    assert!(matches!(session.publish("one more", &board), Err(PublishError::Full)));
    let audit = session.audit();
    assert!(audit.counts_are_right && audit.names == 256, "{audit:?}");
    session.unpublish(&format!("{:048}", 100)).unwrap();
    session.publish("one more", &board).unwrap();
    for number in (0..256).filter(|number| *number != 100) {
        session.unpublish(&format!("{number:048}")).unwrap();
    }
    session.unpublish("one more").unwrap();
    drop(board);
    assert!(clean(session), "{:?}", session.audit());
    let other = Board::with_in(Session::create().unwrap(), |_| ()).unwrap();
    assert!(matches!(session.publish("other", &other), Err(PublishError::Handle(_))));
}

#[test]
fn an_unrelated_program_attaches_by_a_socket_and_finds_its_first_object() {
    let _watchdog = watchdog(LONG);
    let session = Session::create().unwrap();
    let board = Board::with_in(session, |_| ()).unwrap();
    session.publish("board", &board).unwrap();
    let path = std::env::temp_dir().join(unique("socket"));
    for address in [path.clone(), PathBuf::from(format!("@{}", unique("socket")))] {
        let listener = session.listen(&address).unwrap();
        assert!(matches!(session.listen(&address), Err(ListenError::InUse)));
        let mut visitor = child::start("visitor", &[address.to_str().unwrap()]);
        assert_eq!(listener.accept_one().unwrap(), visitor.pid());
        assert_eq!(visitor.hear(), "published");
        let theirs: Board = session.lookup("visitor").unwrap();
        // It dies; what it published stays, and the name holds on to it.
        visitor.kill();
        session.recover_dead();
        assert!(session.audit().counts_are_right);
        assert_eq!(theirs.load(Ordering::Relaxed), 11);
        drop(theirs);
        assert_eq!(session.lookup::<Board>("visitor").unwrap().load(Ordering::Relaxed), 11);
        session.unpublish("visitor").unwrap();
        assert!(matches!(listener.accept_one_timeout(Duration::ZERO), Err(ListenError::TimedOut)));
    }
    assert!(!path.exists(), "the listener's end takes its file away");
    assert_eq!(board.load(Ordering::Relaxed), 10);
    session.unpublish("board").unwrap();
    drop(board);
    assert!(clean(session), "{:?}", session.audit());
}

#[test]
fn a_program_attaches_by_a_descriptor() {
    let _watchdog = watchdog(LONG);
    let session = Session::create().unwrap();
    let board = Board::with_in(session, |_| ()).unwrap();
    session.publish("board", &board).unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), session.fd().as_raw_fd());
    assert!(child::start("by descriptor", &[&path]).finish().success());
    assert_eq!(board.load(Ordering::Relaxed), 7);
    let again = Session::from_fd(session.fd().try_clone_to_owned().unwrap()).unwrap();
    assert_eq!(again, session, "a second attach gives the first");
    let other = std::fs::File::open("/dev/null").unwrap();
    assert!(Session::from_fd(other.into()).is_err());
}

#[test]
fn d4_a_dead_listeners_socket_is_replaced_but_no_other_file() {
    let _watchdog = watchdog(LONG);
    let path = std::env::temp_dir().join(unique("socket-dead"));
    let mut dead = child::start("dead listener", &[path.to_str().unwrap()]);
    assert_eq!(dead.hear(), "listening");
    let session = Session::create().unwrap();
    assert!(matches!(session.listen(&path), Err(ListenError::InUse)), "it is alive");
    dead.kill();
    assert!(path.exists());
    assert!(matches!(Session::connect(&path), Err(ListenError::Io { .. })));
    drop(session.listen(&path).unwrap());
    assert!(!path.exists());
    std::fs::write(&path, "text").unwrap();
    assert!(matches!(session.listen(&path), Err(ListenError::InUse)));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "text");
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn d6_what_is_no_session_is_refused_by_who_connects() {
    let _watchdog = watchdog(LONG);
    let path = std::env::temp_dir().join(unique("socket-foreign"));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    // Nobody answers.
    let silent = Session::connect_timeout(&path, Duration::from_millis(1)).unwrap_err();
    assert!(matches!(silent, ListenError::TimedOut), "{silent}");
    drop(listener.accept().unwrap());
    // Somebody answers, but without a file.
    let answer = std::thread::spawn(move || drop(listener.accept()));
    let without = Session::connect(&path).unwrap_err();
    assert!(matches!(without, ListenError::Io { .. }), "{without}");
    answer.join().unwrap();
    std::fs::remove_file(&path).unwrap();
}

//! An executor that reaches beyond this build: programs at the other ends of sockets, which are given tasks in turn.
//!
//! Calls to one of them are answered in their order. Who waits for an answer reads those before it, too, and leaves them here. Nobody
//! reads while somebody submits, so what is on its way at a time must fit into the sockets: enough for the test.

use mp_channel::connection::{Address, Auth, Connection, Listener, Plain};
use mp_pool::named::{Answer, Call};
use mp_pool::{NamedExecutor, NamedTask, TaskError, TaskHandle};
use mp_shm::Message;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// `target/debug/examples/task_server`, seen from `target/debug/deps/named-…`; nothing if examples were not built and need not be.
pub(crate) fn server() -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().parent().unwrap().join("examples/task_server");
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "the example task_server is not built");
    eprintln!("skipped: the example task_server is not built");
    None
}

struct Node {
    connection: Connection,
    asked: u64,
    answered: u64,
    /// Answers that nobody has asked for yet.
    answers: HashMap<u64, Answer>,
    lost: Option<String>,
}

pub(crate) struct Cluster {
    nodes: Vec<Arc<Mutex<Node>>>,
    processes: Vec<Child>,
    next: AtomicUsize,
}

pub(crate) struct ClusterTask<R> {
    node: Arc<Mutex<Node>>,
    /// The number of its call, or why that could not be sent.
    asked: Result<u64, String>,
    returns: PhantomData<fn() -> R>,
}

impl Cluster {
    pub(crate) fn start(program: &Path, count: usize) -> Self {
        static CLUSTERS: AtomicUsize = AtomicUsize::new(0);
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let address: Address = format!("@mp-pool-{}-{number}", std::process::id()).parse().unwrap();
        let key = "the cluster's key";
        let listener = Listener::bind(&address, Auth::new(key)).unwrap();
        let (mut nodes, mut processes) = (Vec::new(), Vec::new());
        for _ in 0..count {
            processes.push(Command::new(program).args([&address.to_string(), key]).spawn().unwrap());
            let connection = listener.accept_timeout(Duration::from_secs(60)).unwrap();
            let node = Node { connection, asked: 0, answered: 0, answers: HashMap::new(), lost: None };
            nodes.push(Arc::new(Mutex::new(node)));
        }
        Self { nodes, processes, next: AtomicUsize::new(0) }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.clear();
        for mut process in self.processes.drain(..) {
            // Its connection is closed, so it ends.
            process.wait().unwrap();
        }
    }
}

impl Node {
    /// Takes in answers until that of call `number` is here.
    fn answer(&mut self, number: u64) -> Answer {
        while self.answered <= number && self.lost.is_none() {
            self.take_in();
        }
        self.answers.remove(&number).unwrap_or_else(|| gone(self.lost.as_deref().unwrap_or_default()))
    }

    fn take_in(&mut self) {
        match self.connection.recv_value::<Answer>() {
            Ok(answer) => {
                self.answers.insert(self.answered, answer);
                self.answered += 1;
            }
            Err(error) => self.lost = Some(error.to_string()),
        }
    }
}

fn gone(why: &str) -> Answer {
    Answer::refused(format!("the other build is gone: {why}"))
}

impl NamedExecutor for Cluster {
    type Task<R: Message + Plain + Send + 'static> = ClusterTask<R>;

    fn submit<T: NamedTask>(
        &self,
        task: T,
        argument: T::Argument,
    ) -> Result<ClusterTask<T::Value>, TaskError> {
        let call = Call::new(task, &argument)?;
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let node = self.nodes[turn % self.nodes.len()].clone();
        let mut locked = node.lock().unwrap();
        // One that cannot be sent has no answer; those before it may have.
        let asked = locked.connection.send_value(&call).map(|()| locked.asked);
        locked.asked += u64::from(asked.is_ok());
        drop(locked);
        Ok(ClusterTask { node, asked: asked.map_err(|error| error.to_string()), returns: PhantomData })
    }

    fn in_flight_max(&self) -> usize {
        self.nodes.len() * 4
    }
}

impl<R: Plain> TaskHandle<R> for ClusterTask<R> {
    fn get(self) -> Result<R, TaskError> {
        let answer = match self.asked {
            Ok(number) => self.node.lock().unwrap().answer(number),
            Err(why) => gone(&why),
        };
        answer.value()
    }

    fn is_finished(&self) -> bool {
        self.wait_timeout(Duration::ZERO)
    }

    fn wait_timeout(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let Ok(number) = self.asked else { return true };
        let mut node = self.node.lock().unwrap();
        while node.answered <= number && node.lost.is_none() {
            match node.connection.poll(until.saturating_duration_since(Instant::now())) {
                Ok(false) => return false,
                // Something, or the end, is there: it does not wait.
                Ok(true) | Err(_) => node.take_in(),
            }
        }
        true
    }

    /// It has left this program already.
    fn cancel(&self) -> bool {
        false
    }
}

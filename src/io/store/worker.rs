//! A thread that owns a value; everybody else sends it jobs.
//!
//! SQLite blocks, so each connection lives on a thread of its own and never on the event loop. In a
//! simulation whoever asks does the work at once: then the order of everything is its own.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::io::store::error::{Fault, StoreError};

/// Jobs that may wait. Whoever sends one more waits until there is room: the event loop commits one
/// step at a time, so more than a few mean that the disk is stuck.
const MAX_WAITING: usize = 64;

/// Who does the store's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Labour {
    Threads,
    Callers,
}

pub(super) enum Job<T> {
    Run(Box<dyn FnOnce(&mut T) + Send>),
    Stop(oneshot::Sender<()>),
}

/// The way to a value that is worked on by one thread at a time.
#[derive(Debug)]
pub(super) enum Worker<T> {
    /// One of its own.
    Thread(mpsc::Sender<Job<T>>),
    /// That of whoever asks. The lock of the store is held with the value.
    Caller(Arc<Held<T>>),
}

/// A value with the store's lock, until it is stopped.
type Held<T> = Mutex<Option<(T, Arc<File>)>>;

impl<T> Clone for Worker<T> {
    fn clone(&self) -> Self {
        match self {
            Worker::Thread(jobs) => Worker::Thread(jobs.clone()),
            Worker::Caller(state) => Worker::Caller(Arc::clone(state)),
        }
    }
}

impl<T: Send + 'static> Worker<T> {
    /// Starts a thread that owns `state` until it is stopped or the last handle is gone, and holds
    /// the store's `lock` for longer than that.
    pub(super) fn start(
        name: &'static str,
        mut state: T,
        lock: Arc<File>,
        labour: Labour,
    ) -> Result<Self, StoreError> {
        if labour == Labour::Callers {
            return Ok(Worker::Caller(Arc::new(Mutex::new(Some((state, lock))))));
        }
        let (jobs, mut waiting) = mpsc::channel::<Job<T>>(MAX_WAITING);
        let run = move || {
            while let Some(job) = waiting.blocking_recv() {
                match job {
                    Job::Run(job) => job(&mut state),
                    Job::Stop(done) => {
                        drop(state);
                        drop(lock);
                        // Nobody may be waiting for it any more.
                        let _ = done.send(());
                        return;
                    }
                }
            }
        };
        std::thread::Builder::new()
            .name(name.into())
            .spawn(run)
            .map_err(|error| Fault::Io(error).at("start thread", name.as_ref()))?;
        Ok(Worker::Thread(jobs))
    }

    /// Runs `job` on the thread and waits for what it returns.
    pub(super) async fn run<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        let jobs = match self {
            Worker::Thread(jobs) => jobs,
            Worker::Caller(state) => return here(state, job),
        };
        let (job, answer) = packed(job);
        jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }

    /// The same from another thread of the store.
    pub(super) fn run_blocking<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut T) -> R + Send + 'static,
    ) -> Result<R, StoreError> {
        let jobs = match self {
            Worker::Thread(jobs) => jobs,
            Worker::Caller(state) => return here(state, job),
        };
        let (job, answer) = packed(job);
        jobs.blocking_send(job).map_err(|_| StoreError::Closed)?;
        answer.blocking_recv().map_err(|_| StoreError::Closed)
    }

    /// Lets the jobs before it finish, then closes what the thread owns.
    pub(super) async fn stop(&self) {
        let jobs = match self {
            Worker::Thread(jobs) => jobs,
            Worker::Caller(state) => {
                return drop(state.lock().unwrap_or_else(PoisonError::into_inner).take());
            }
        };
        let (done, stopped) = oneshot::channel();
        if jobs.send(Job::Stop(done)).await.is_ok() {
            // An error means that it was stopped by somebody else.
            let _ = stopped.await;
        }
    }
}

fn here<T, R>(state: &Held<T>, job: impl FnOnce(&mut T) -> R) -> Result<R, StoreError> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.as_mut().map(|(state, _)| job(state)).ok_or(StoreError::Closed)
}

fn packed<T, R: Send + 'static>(
    job: impl FnOnce(&mut T) -> R + Send + 'static,
) -> (Job<T>, oneshot::Receiver<R>) {
    let (reply, answer) = oneshot::channel();
    let job = move |state: &mut T| {
        // A caller that went away has no use for the answer; the work is done all the same.
        let _ = reply.send(job(state));
    };
    (Job::Run(Box::new(job)), answer)
}

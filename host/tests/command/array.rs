//! A fake array: HTTP on a Unix socket in a folder of its own, answers as a test says. And the command, run against it.

use std::convert::Infallible;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::UnixListener;
use twintrack_host::manage::{Answer, COMMAND_PATH, Command, Refusal, RefusalCode};

/// What the array does with a request.
pub enum Act {
    /// 200 with an answer.
    Answer(Answer),
    /// An error status with a refusal.
    Refuse(RefusalCode, &'static str),
    /// 200 with these bytes.
    Bytes(Vec<u8>),
    /// Never answers.
    Silence,
    /// Closes the connection.
    Cut,
}

/// What the array is asked.
#[derive(Debug)]
pub enum Asked {
    /// A command.
    Command(Command),
    /// A track.
    Track,
}

type Script = dyn FnMut(Asked) -> Act + Send;

/// An array that serves until the test's process ends.
pub struct Array {
    folder: TempDir,
    commands: Arc<Mutex<Vec<String>>>,
}

impl Array {
    /// Asks `script` what to do with each request.
    pub fn start(script: impl FnMut(Asked) -> Act + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let commands = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<Box<Script>>> = Arc::new(Mutex::new(Box::new(script)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(folder.path().join("control.sock")).unwrap()
        };
        let seen = commands.clone();
        std::thread::spawn(move || runtime.block_on(serve(listener, script, seen)));
        Self { folder, commands }
    }

    /// Answers each command in turn with one of these, which the test says are enough.
    pub fn answers(answers: impl IntoIterator<Item = Answer, IntoIter: Send + 'static>) -> Self {
        let mut answers = answers.into_iter();
        Self::start(move |_| answers.next().map_or(Act::Cut, Act::Answer))
    }

    /// Refuses everything.
    pub fn refuses(code: RefusalCode, reason: &'static str) -> Self {
        Self::start(move |_| Act::Refuse(code, reason))
    }

    /// Its folder, as `-a` takes it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All that it was asked so far: commands as JSON, paths as they are.
    pub fn asked(&self) -> Vec<String> {
        self.commands.lock().unwrap().clone()
    }

    /// Runs the command, with arguments divided by spaces; the array is named by the environment.
    pub fn run(&self, line: &str) -> Ended {
        let mut process = twintrack(line);
        process.env("TWINTRACK_ARRAY", self.folder());
        ended(process)
    }
}

/// The command, with arguments divided by spaces, and no array in its environment.
pub fn twintrack(line: &str) -> Process {
    let mut process = Process::new(env!("CARGO_BIN_EXE_twintrack"));
    process.args(line.split_whitespace());
    for variable in ["TWINTRACK_ARRAY", "TWINTRACK_CA", "TWINTRACK_TOKEN_FILE"] {
        process.env_remove(variable);
    }
    process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    process
}

/// How a run of the command ended.
#[derive(Debug, PartialEq)]
pub struct Ended {
    /// The exit code.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs it to its end. Its output is text.
pub fn ended(mut process: Process) -> Ended {
    let output = process.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

async fn serve(listener: UnixListener, script: Arc<Mutex<Box<Script>>>, seen: Arc<Mutex<Vec<String>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (cut, cut_now) = tokio::sync::oneshot::channel::<()>();
        let (cut, script, seen) = (Arc::new(Mutex::new(Some(cut))), script.clone(), seen.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (script, seen, cut) = (script.clone(), seen.clone(), cut.clone());
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                let asked = if head.uri.path() == COMMAND_PATH {
                    seen.lock().unwrap().push(String::from_utf8_lossy(&body).into_owned());
                    Asked::Command(serde_json::from_slice(&body).unwrap())
                } else {
                    seen.lock().unwrap().push(head.uri.path().to_owned());
                    Asked::Track
                };
                let act = (script.lock().unwrap())(asked);
                let (status, body) = match act {
                    Act::Answer(answer) => (200, serde_json::to_vec(&answer).unwrap()),
                    Act::Refuse(code, reason) => {
                        (409, serde_json::to_vec(&Refusal { code, reason: reason.to_owned() }).unwrap())
                    }
                    Act::Bytes(bytes) => (200, bytes),
                    Act::Silence => std::future::pending().await,
                    Act::Cut => {
                        drop(cut.lock().unwrap().take());
                        std::future::pending().await
                    }
                };
                let mut response = Response::new(Full::new(Bytes::from(body)));
                *response.status_mut() = status.try_into().unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        tokio::spawn(async move {
            let http = hyper::server::conn::http1::Builder::new();
            tokio::select! {
                biased;
                _ = http.serve_connection(TokioIo::new(stream), service) => {}
                _ = cut_now => {}
            }
        });
    }
}

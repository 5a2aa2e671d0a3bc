//! What the bridge answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kimi_actors::RuntimeHandle;
use kimi_actors::policy::admission::ClientId;
use kimi_actors::policy::spec::BaseEnv;
use kimi_actors::session::{Session, SessionSpec};
use kimi_shell::exec_result::{Asked, ExecResult};
use kimi_shell::session_result::LineResult;
use serde::Serialize;
use serde_json::{Value, json};

use crate::request::{Request, Work};

/// So many shells stay at once.
const MOST_SESSIONS: usize = 32;

/// The runtime, and the shells that stay, by the names that requests gave them.
pub(crate) struct Bridge {
    tree: RuntimeHandle,
    sessions: Mutex<HashMap<String, Arc<tokio::sync::Mutex<Session>>>>,
}

impl Bridge {
    pub(crate) fn new(tree: RuntimeHandle) -> Self {
        Self {
            tree,
            sessions: Mutex::default(),
        }
    }

    /// Runs what a line asks for. A line that cannot be understood is answered too.
    pub(crate) async fn answer(&self, line: &[u8], number: u64) -> Value {
        let request: Request = match serde_json::from_slice(line) {
            Ok(request) => request,
            Err(error) => return not_a_request(number, &error.to_string()),
        };
        let id = request.id.clone().unwrap_or_else(|| json!(number));
        match request.work() {
            Ok(Work::Exec(exec)) => {
                let asked = Asked::new(id, &exec.command);
                as_json(&ExecResult::new(&asked, &self.tree.exec(exec).await))
            }
            Ok(Work::Session(name, line)) => match self.session(&name) {
                // One command at a time, in the order of the requests.
                Some(session) => {
                    as_json(&LineResult::new(id, &session.lock().await.run(&line).await))
                }
                None => rejected(&id, "there are too many sessions"),
            },
            Err(error) => rejected(&id, &error),
        }
    }

    /// The session of this name: the one that is there, or a new one while there is room.
    fn session(&self, name: &str) -> Option<Arc<tokio::sync::Mutex<Session>>> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = sessions.get(name) {
            return Some(Arc::clone(session));
        }
        let spec = SessionSpec {
            base_env: BaseEnv::Minimal,
            // Commands without a session are one client, and each session is another.
            client: ClientId(sessions.len() as u64 + 1),
            ..SessionSpec::default()
        };
        let session = Session::new(self.tree.clone(), spec);
        let session = (sessions.len() < MOST_SESSIONS).then(|| Arc::new(session.into()))?;
        sessions.insert(name.to_owned(), Arc::clone(&session));
        Some(session)
    }
}

fn as_json(result: &impl Serialize) -> Value {
    // Text, numbers and lists of them: nothing in it can fail to be JSON.
    serde_json::to_value(result).unwrap_or_else(|error| json!({ "error": error.to_string() }))
}

fn rejected(id: &Value, error: &str) -> Value {
    json!({ "id": id, "outcome": "rejected", "error": error })
}

fn not_a_request(number: u64, error: &str) -> Value {
    json!({ "line": number, "error": format!("not a request: {error}") })
}

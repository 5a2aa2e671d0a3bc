//! What the bridge answers.

use kimi_actors::RuntimeHandle;
use kimi_shell::exec_result::{Asked, ExecResult};
use serde_json::{Value, json};

use crate::request::Request;

/// Runs what a line asks for. A line that cannot be understood is answered too.
pub(crate) async fn answer(tree: &RuntimeHandle, line: &[u8], number: u64) -> Value {
    let request: Request = match serde_json::from_slice(line) {
        Ok(request) => request,
        Err(error) => return not_a_request(number, &error.to_string()),
    };
    let id = request.id.clone().unwrap_or_else(|| json!(number));
    let exec = match request.exec() {
        Ok(exec) => exec,
        Err(error) => return json!({ "id": id, "outcome": "rejected", "error": error }),
    };
    let asked = Asked::new(id, &exec.command);
    let result = ExecResult::new(&asked, &tree.exec(exec).await);
    // Text, numbers and lists of them: nothing in it can fail to be JSON.
    serde_json::to_value(result).unwrap_or_else(|error| not_a_request(number, &error.to_string()))
}

fn not_a_request(number: u64, error: &str) -> Value {
    json!({ "line": number, "error": format!("not a request: {error}") })
}

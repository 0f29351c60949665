//! `yunju op …`, `yunju events`

use std::cell::RefCell;

use anyhow::Result;
use serde_json::{Value, json};
use yunju_manager::model::{Operation, OperationState, Problem};

use crate::args::Op;
use crate::client::{Client, segment};
use crate::failure::Failure;
use crate::output;

/// Runs one of the operation commands.
pub async fn run(client: &Client, command: Op) -> Result<()> {
    match command {
        Op::Ls { limit, listing } => {
            let operations: Vec<Operation> = client.get(&format!("/v1/operations?limit={limit}")).await?;
            output::list(&operations, listing.output)
        }
        Op::Show { id, listing } => output::one(&look(client, &id, 0).await?, listing.output),
        Op::Wait { ids, listing } => {
            let mut ended = Vec::new();
            for id in &ids {
                ended.push(wait(client, id).await?);
            }
            output::list(&ended, listing.output)?;
            ended.into_iter().try_for_each(check)
        }
        Op::Cancel { ids } => {
            for id in &ids {
                let _: Operation = client.post(&format!("/v1/operations/{}/cancel", segment(id)), &()).await?;
                eprintln!("{id}: cancelled");
            }
            Ok(())
        }
    }
}

async fn look(client: &Client, id: &str, wait: u8) -> Result<Operation> {
    client.get(&format!("/v1/operations/{}?wait={wait}", segment(id))).await
}

/// Waits until an operation has ended.
pub async fn wait(client: &Client, id: &str) -> Result<Operation> {
    loop {
        let now = look(client, id, 30).await?;
        if now.ended.is_some() {
            return Ok(now);
        }
        eprintln!("{id}: {} of {} is {} …", now.kind, now.desktop, now.state);
    }
}

/// The failure of an operation that is not done.
pub fn check(operation: Operation) -> Result<()> {
    if operation.state == OperationState::Succeeded {
        return Ok(());
    }
    let unknown = || Problem { detail: format!("the operation is {}", operation.state), ..Problem::default() };
    Err(Failure::Operation(operation.problem.clone().unwrap_or_else(unknown)).into())
}

/// Prints events as lines of JSON until the service ends or the reader goes.
pub async fn events(client: &Client, cursor: Option<i64>) -> Result<()> {
    let path = cursor.map_or_else(|| "/v1/events".to_owned(), |cursor| format!("/v1/events?cursor={cursor}"));
    let rest = RefCell::new(Vec::new());
    client
        .copy(&path, |bytes| {
            let mut rest = rest.borrow_mut();
            rest.extend_from_slice(bytes);
            while let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = rest.drain(..end + 2).collect();
                if let Some(event) = parse(&String::from_utf8_lossy(&event)) {
                    output::line(&event.to_string())?;
                }
            }
            Ok(())
        })
        .await
}

/// One server-sent event; comments are none.
fn parse(text: &str) -> Option<Value> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let data: Value = serde_json::from_str(field("data")?).ok()?;
    Some(json!({"id": field("id")?.parse::<i64>().ok()?, "event": field("event")?, "data": data}))
}

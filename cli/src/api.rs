//! `yunju api METHOD PATH`

use std::io::Read;

use anyhow::{Context, Result, bail};
use hyper::Method;
use serde_json::Value;

use crate::args::Api;
use crate::client::Client;
use crate::output;

/// Runs the command.
pub async fn run(client: &Client, api: Api) -> Result<()> {
    let method: Method = api.method.to_uppercase().parse().with_context(|| format!("`{}` is no method", api.method))?;
    let path = if api.path.starts_with('/') { api.path } else { format!("/v1/{}", api.path) };
    let body = match api.body.as_deref() {
        None => String::new(),
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
            text
        }
        Some(text) => text.to_owned(),
    };
    if let Err(error) = serde_json::from_str::<Value>(&body)
        && !body.is_empty()
    {
        bail!("the body is no JSON: {error}");
    }
    let (kind, answer) = client.raw(method, &path, body.into_bytes().into()).await?;
    match serde_json::from_slice::<Value>(&answer) {
        Ok(value) if kind == "application/json" => output::json(&value),
        _ => output::raw(&answer),
    }
}

//! A model for trying things out without one: says what the prompt tells it to, on loopback, until it is killed.
//!
//! `cargo run --example scripted_model`, then point an OpenAI-compatible provider at the printed address.

#[path = "../tests/it/support/model.rs"]
#[expect(dead_code, reason = "the tests count words, this does not")]
mod model;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let model = model::ScriptedModel::start().await?;
    println!("scripted model listening on {}", model.base_url());
    std::future::pending().await
}

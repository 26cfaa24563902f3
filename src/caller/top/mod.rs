//! `insightforge top`: how the installation is, at a glance, again each second.
//!
//! [`view`] is what there is to see, read from the api's answers; [`text`] prints it once, [`draw`] draws it.

mod draw;
mod text;
mod view;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::door::{Door, DoorArgs, Failure};
use super::plain;
use crate::boot;
use view::View;

const EVERY: Duration = Duration::from_secs(1);
/// How soon a key is answered.
const KEY: Duration = Duration::from_millis(100);

#[derive(clap::Args)]
#[command(after_help = "Keys: q or Esc ends, p or space holds the picture.")]
pub(crate) struct Args {
    #[command(flatten)]
    door: DoorArgs,
    /// Print it once as text and end; so it is where the output is no terminal
    #[arg(long)]
    once: bool,
    /// Print it once as one JSON object: the api's answers, by path
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let door = Door::open(&args.door)?;
    if args.json {
        println!("{}", plain::json(&look(&door).await?));
    } else if args.once || !std::io::stdout().is_terminal() {
        print!("{}", text::lines(&View::read(&look(&door).await?, &door.address())));
    } else {
        stay(door).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Draws until it is told to end, by a key or a signal; the terminal is then as it was.
async fn stay(door: Door) -> anyhow::Result<()> {
    let stop = boot::shutdown_on_signal()?;
    let address = door.address();
    let (sender, looks) = watch::channel(None);
    // Of its own: a key is answered also while the api is not.
    tokio::spawn(async move {
        let mut every = tokio::time::interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            if sender.send(Some(look(&door).await)).is_err() {
                return;
            }
        }
    });
    let mut terminal = ratatui::try_init()?;
    let outcome = redraw(&mut terminal, &address, looks, &stop);
    ratatui::restore();
    outcome
}

fn redraw(
    terminal: &mut ratatui::DefaultTerminal,
    address: &str,
    mut looks: watch::Receiver<Option<Result<Value, Failure>>>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let (mut view, mut trouble, mut is_held): (Option<View>, Option<String>, bool) = (None, None, false);
    while !stop.is_cancelled() {
        if !is_held && looks.has_changed()? {
            match &*looks.borrow_and_update() {
                Some(Ok(answers)) => {
                    view = Some(View::read(answers, address).since(view.as_ref()));
                    trouble = None;
                }
                // The last picture stays, with a word that it is old.
                Some(Err(failure)) => trouble = Some(failure.to_string()),
                None => {}
            }
        }
        terminal.draw(|frame| draw::draw(frame, view.as_ref(), trouble.as_deref(), is_held))?;
        match key()? {
            Some(Key::End) => return Ok(()),
            Some(Key::Hold) => is_held = !is_held,
            None => {}
        }
    }
    Ok(())
}

enum Key {
    End,
    Hold,
}

/// What was pressed within a moment.
fn key() -> std::io::Result<Option<Key>> {
    if !event::poll(KEY)? {
        return Ok(None);
    }
    let Event::Key(key) = event::read()? else { return Ok(None) };
    Ok(match key.code {
        KeyCode::Char('q') | KeyCode::Esc => Some(Key::End),
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::End),
        KeyCode::Char('p' | ' ') => Some(Key::Hold),
        _ => None,
    })
}

/// The api's answers by path. An older api has no overview; the rest is enough.
async fn look(door: &Door) -> Result<Value, Failure> {
    let (health, analyzers, overview) = tokio::join!(
        health(door),
        door.get("api/analyzers", &[], Duration::ZERO),
        door.get("api/overview", &[], Duration::ZERO),
    );
    let overview = match overview {
        Ok(overview) => overview,
        Err(Failure::Refused { status: StatusCode::NOT_FOUND, .. } | Failure::Away { .. }) => Value::Null,
        Err(failure) => return Err(failure),
    };
    // Without Redis nobody knows the analyzers, and health says so.
    Ok(json!({ "health": health?, "analyzers": analyzers.unwrap_or(Value::Null), "overview": overview }))
}

/// Health is told also when it is bad.
async fn health(door: &Door) -> Result<Value, Failure> {
    let request = door.request(reqwest::Method::GET, "api/health", &[], Duration::ZERO);
    door.answer_whatever_the_status(request).await
}

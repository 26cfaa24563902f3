//! What happens between processes.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::Strike;
use crate::proxy::{Proxy, Weather};
use crate::site::Site;

/// Between one role and Redis, or between all and Redis.
pub(super) async fn redis(site: &mut Site<'_>, weather: Weather) -> Strike {
    let whose = usize::try_from(site.dice.below(4)).expect("it fits");
    let which = if whose == 3 { 0..3 } else { whose..whose + 1 };
    let length = length(site, weather);
    let repeats = site.dice.below(8);
    endure(&site.redis_links[which], weather, length, repeats).await
}

/// Between api and projector and the database.
pub(super) async fn database(site: &mut Site<'_>, weather: Weather) -> Strike {
    let length = length(site, weather);
    let repeats = site.dice.below(8);
    endure(std::slice::from_ref(&site.database_link), weather, length, repeats).await
}

fn length(site: &mut Site<'_>, weather: Weather) -> Duration {
    match weather {
        Weather::Reset => Duration::from_millis(30),
        Weather::Fair | Weather::Slow(_) | Weather::Cut => site.dice.millis(1_000, 3_000),
        // Longer than a call waits for its answer.
        Weather::BlackHole | Weather::HalfOpen => site.dice.millis(5_500, 8_000),
    }
}

async fn endure(links: &[Proxy], weather: Weather, length: Duration, repeats: u64) -> Strike {
    let began = Instant::now();
    let turn = |weather| links.iter().for_each(|link| link.turn(weather));
    // A reset is a moment; it comes several times.
    let times = if weather == Weather::Reset { 3 + repeats } else { 1 };
    for time in 0..times {
        if time > 0 {
            sleep(Duration::from_millis(150)).await;
        }
        turn(weather);
        sleep(length).await;
        turn(Weather::Fair);
    }
    Strike { began, healed: Instant::now() }
}

//! Signs of life between this process and one who follows.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::ALIVE;

/// One who was asked for a sign of life and has given none for this long is gone.
const SILENCE: Duration = Duration::from_secs(60);

/// When signs of life were shown and asked for.
pub(crate) struct Pulse {
    shown_at: Instant,
    /// Since when one that was asked for has not come.
    unanswered: Option<Instant>,
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Self { shown_at: now, unanswered: None }
    }

    /// When the next one is to be shown.
    pub(crate) fn due(&self) -> Instant {
        self.shown_at + ALIVE
    }

    pub(crate) fn show(&mut self, now: Instant) {
        self.shown_at = now;
    }

    /// Shows one and asks for one; `false` when none has come for too long. Who was not asked, because there was other
    /// work for long, is not silent.
    pub(crate) fn ask(&mut self, now: Instant) -> bool {
        self.shown_at = now;
        now.duration_since(*self.unanswered.get_or_insert(now)) <= SILENCE
    }

    /// Something came.
    pub(crate) fn answered(&mut self) {
        self.unanswered = None;
    }
}

/// Ready at once when it is past, which a timer is only when the clock has been looked at since.
pub(crate) async fn reached(due: Instant) {
    if due > Instant::now() {
        sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_a_question_unanswered_for_long_is_gone_and_who_was_not_asked_is_not() {
        let began = Instant::now();
        let at = |s| began + Duration::from_secs(s);
        let mut pulse = Pulse::new(began);
        assert_eq!(pulse.due(), at(15));
        assert!(pulse.ask(at(300)), "five minutes of other work are not its silence");
        assert_eq!(pulse.due(), at(315));
        assert!(pulse.ask(at(330)));
        pulse.answered();
        assert!(pulse.ask(at(400)), "the answer to the questions before");
        assert!(pulse.ask(at(460)));
        assert!(!pulse.ask(at(461)));
    }
}

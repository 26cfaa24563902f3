//! The picture as plain lines, for pipes and for the drawing.

use std::fmt::Write as _;

use super::view::{Analyzer, Lane, View};

/// Heads of the tables' columns.
pub(super) const LANE_HEADS: [&str; 5] = ["lane", "tasks", "change/s", "oldest", "analyzers"];
pub(super) const ANALYZER_HEADS: [&str; 4] = ["analyzer", "lanes", "in flight", "last take"];

/// Everything, once.
pub(super) fn lines(view: &View) -> String {
    let mut out = format!("InsightForge {} at {}\n", view.version, view.address);
    for sentence in &view.sentences {
        writeln!(out, "{sentence}").expect("a string takes everything");
    }
    for line in figures(view) {
        writeln!(out, "{line}").expect("a string takes everything");
    }
    let lanes: Vec<_> = view.lanes.iter().map(lane).collect();
    let analyzers: Vec<_> = view.analyzers.iter().map(analyzer).collect();
    table(&mut out, LANE_HEADS, &lanes);
    table(&mut out, ANALYZER_HEADS, &analyzers);
    if !view.failures.is_empty() {
        writeln!(out, "\nfailures of the last hour").expect("a string takes everything");
        for (code, count) in &view.failures {
            writeln!(out, "{count:>8}  {code}").expect("a string takes everything");
        }
    }
    out
}

/// The single figures, a line a subject.
pub(super) fn figures(view: &View) -> Vec<String> {
    let work = &view.work;
    let limit = work.limit.map(|limit| format!(" (refused beyond {limit})")).unwrap_or_default();
    let mut lines = vec![format!(
        "tasks      {} waiting or running{limit}, {} in flight, {} delayed, {} dead letters",
        known(work.tasks),
        known(work.in_flight),
        known(work.delayed),
        known(work.dead_letters)
    )];
    if let Some(minute) = &view.minute {
        let end_to_end = view.end_to_end_ms.map(|ms| format!("; p95 {ms:.0} ms to the row")).unwrap_or_default();
        lines.push(format!(
            "a minute   {} submitted, {} completed, {} failed{end_to_end}",
            minute.submitted, minute.completed, minute.failed
        ));
    }
    lines.push(match &view.projector {
        Some(lag) => format!("tables     {} events, {} behind", lag.events, seconds(lag.seconds)),
        None => "tables     how far behind is not known".to_owned(),
    });
    if let Some(webhooks) = &view.webhooks {
        let success = webhooks.success.map_or("?".to_owned(), |share| format!("{:.1} %", share * 100.0));
        let p95 = webhooks.p95_ms.map(|ms| format!(", p95 {ms:.0} ms")).unwrap_or_default();
        lines.push(format!(
            "webhooks   {success} of {} attempts delivered{p95}, {} outstanding, {} overdue",
            webhooks.tried, webhooks.outstanding, webhooks.overdue
        ));
    }
    lines
}

pub(super) fn lane(lane: &Lane) -> [String; 5] {
    let grows = lane.grows.map_or("-".to_owned(), |grows| format!("{grows:+.1}"));
    let oldest = if lane.tasks == 0 { "-".to_owned() } else { seconds(lane.oldest_s) };
    [lane.name.clone(), lane.tasks.to_string(), grows, oldest, lane.analyzers.to_string()]
}

pub(super) fn analyzer(analyzer: &Analyzer) -> [String; 4] {
    let last = analyzer.last_take_s.map_or("never".to_owned(), |ago| format!("{} ago", seconds(ago)));
    [analyzer.name.clone(), analyzer.lanes.to_string(), analyzer.in_flight.to_string(), last]
}

fn table<const N: usize>(out: &mut String, heads: [&str; N], rows: &[[String; N]]) {
    let mut widths = heads.map(|head| head.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    out.push('\n');
    let mut line = |cells: [&str; N]| {
        for (at, (cell, width)) in cells.into_iter().zip(widths).enumerate() {
            let shown = if at == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
            out.push_str(&shown);
        }
        out.push('\n');
    };
    line(heads);
    for row in rows {
        line(std::array::from_fn(|at| row[at].as_str()));
    }
}

fn known(count: Option<u64>) -> String {
    count.map_or("?".to_owned(), |count| count.to_string())
}

/// In the unit that people would say.
fn seconds(seconds: f64) -> String {
    match seconds {
        below if below < 10.0 => format!("{below:.1} s"),
        below if below < 120.0 => format!("{below:.0} s"),
        below if below < 7_200.0 => format!("{:.0} min", below / 60.0),
        below if below < 172_800.0 => format!("{:.0} h", below / 3_600.0),
        long => format!("{:.0} d", long / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::answers;
    use super::*;

    #[test]
    fn the_picture_as_text_has_all_of_it() {
        let text = lines(&View::read(&answers(), "http://x"));
        let expected = "\
InsightForge 0.1.0 at http://x
3 tasks wait longer than 5 min: sentiment_analysis v2 has no analyzer
tasks      15 waiting or running (refused beyond 1000000), 8 in flight, 2 delayed, 4 dead letters
a minute   60 submitted, 57 completed, 3 failed; p95 42 ms to the row
tables     12 events, 0.5 s behind
webhooks   98.0 % of 100 attempts delivered, p95 12 ms, 2 outstanding, 0 overdue
";
        assert!(text.starts_with(expected), "{text}");
        let lane = text.lines().find(|line| line.starts_with("sentiment_analysis v2 ")).unwrap();
        assert_eq!(lane.split_whitespace().collect::<Vec<_>>()[2..], ["3", "-", "5", "min", "0"], "{text}");
        assert!(text.ends_with("\nfailures of the last hour\n       5  timeout\n"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn times_are_said_in_the_unit_of_people() {
        let said = [0.04, 9.94, 75.0, 301.2, 9_000.0, 900_000.0].map(seconds);
        assert_eq!(said, ["0.0 s", "9.9 s", "75 s", "5 min", "2 h", "10 d"]);
    }
}

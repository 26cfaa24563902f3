//! The picture on a terminal of any size.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table};

use super::text;
use super::view::{Lane, Level, View};

/// Waiting for longer than this is worth a colour, in seconds.
const LONG_S: f64 = 300.0;
/// Problems that are told; the rest is counted.
const SENTENCES: usize = 4;

/// Draws what there is; `trouble` says why it may be old.
pub(super) fn draw(frame: &mut Frame<'_>, view: Option<&View>, trouble: Option<&str>, is_held: bool) {
    let Some(view) = view else {
        let word = trouble.unwrap_or("asking …");
        frame.render_widget(Paragraph::new(word.to_owned()), frame.area());
        return;
    };
    let head = head(view, trouble, is_held);
    let figures: Vec<Line<'_>> = text::figures(view).into_iter().map(Line::from).collect();
    let rows = |count: usize| u16::try_from(count).unwrap_or(u16::MAX).saturating_add(2);
    let [top, middle, lanes, analyzers, failures, keys] = Layout::vertical([
        Constraint::Length(rows(head.len()) - 2),
        Constraint::Length(rows(figures.len())),
        Constraint::Fill(2),
        Constraint::Max(rows(view.analyzers.len()).saturating_add(1)),
        Constraint::Max(if view.failures.is_empty() { 0 } else { rows(view.failures.len()) }),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(head), top);
    frame.render_widget(Paragraph::new(figures).block(framed("Now")), middle);
    draw_lanes(frame, &view.lanes, lanes);
    draw_analyzers(frame, view, analyzers);
    let said = view.failures.iter().map(|(code, count)| Line::from(format!("{count:>8}  {code}")));
    frame.render_widget(Paragraph::new(said.collect::<Vec<_>>()).block(framed("Failures of the last hour")), failures);
    frame.render_widget(Paragraph::new("q ends  p holds").style(Style::new().add_modifier(Modifier::DIM)), keys);
}

/// The first lines: is it well, and if not, what is it? The words tell; the colour only helps.
fn head<'a>(view: &'a View, trouble: Option<&'a str>, is_held: bool) -> Vec<Line<'a>> {
    let mut name = format!("InsightForge {} at {}", view.version, view.address);
    if is_held {
        name.push_str("  [held]");
    }
    let mut lines = vec![Line::from(Span::styled(name, Style::new().add_modifier(Modifier::BOLD)))];
    if let Some(trouble) = trouble {
        lines.push(Line::styled(format!("OLD PICTURE: {trouble}"), Style::new().fg(Color::Red)));
    }
    let (word, color) = match view.level {
        Level::Well => ("", Color::Green),
        Level::Look => ("! ", Color::Yellow),
        Level::Down => ("!! ", Color::Red),
    };
    for sentence in view.sentences.iter().take(SENTENCES) {
        lines.push(Line::styled(format!("{word}{sentence}"), Style::new().fg(color)));
    }
    if view.sentences.len() > SENTENCES {
        lines.push(Line::from(format!("and {} more", view.sentences.len() - SENTENCES)));
    }
    lines
}

fn draw_lanes(frame: &mut Frame<'_>, lanes: &[Lane], area: Rect) {
    if lanes.is_empty() {
        frame.render_widget(Paragraph::new("no task waits or runs").block(framed("Lanes")), area);
        return;
    }
    let rows = lanes.iter().map(|lane| {
        let is_stuck = lane.tasks > 0 && (lane.analyzers == 0 || lane.oldest_s > LONG_S);
        let style = if is_stuck { Style::new().fg(Color::Yellow) } else { Style::new() };
        Row::new(text::lane(lane)).style(style)
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(9),
    ];
    let table = Table::new(rows, widths).header(heads(text::LANE_HEADS)).block(framed("Lanes"));
    frame.render_widget(table, area);
}

fn draw_analyzers(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let rows = view.analyzers.iter().map(|analyzer| Row::new(text::analyzer(analyzer)));
    let widths = [Constraint::Fill(1), Constraint::Length(6), Constraint::Length(9), Constraint::Length(12)];
    let table = Table::new(rows, widths).header(heads(text::ANALYZER_HEADS)).block(framed("Analyzers"));
    frame.render_widget(table, area);
}

fn heads<const N: usize>(heads: [&'static str; N]) -> Row<'static> {
    Row::new(heads).style(Style::new().add_modifier(Modifier::BOLD))
}

fn framed(title: &'static str) -> Block<'static> {
    Block::new().borders(Borders::TOP).title(title)
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::view::tests::answers;
    use super::*;

    fn drawn(width: u16, height: u16, view: Option<&View>, trouble: Option<&str>) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view, trouble, false)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_picture_shows_all_of_it_on_an_ordinary_terminal() {
        let shown = drawn(100, 30, Some(&View::read(&answers(), "http://x")), None);
        for part in [
            "InsightForge 0.1.0",
            "! 3 tasks wait",
            "Lanes",
            "sentiment_analysis v2",
            "analyzer/a-1",
            "timeout",
            "q ends",
        ] {
            assert!(shown.contains(part), "{part} in\n{shown}");
        }
    }

    #[test]
    fn a_terminal_of_any_size_can_be_drawn_on() {
        let view = View::read(&answers(), "http://x");
        for width in [1, 7, 40, 300] {
            for height in [1, 3, 9, 80] {
                drawn(width, height, Some(&view), Some("gone"));
                drawn(width, height, None, None);
            }
        }
    }

    #[test]
    fn an_old_picture_says_so() {
        let shown = drawn(100, 30, Some(&View::read(&answers(), "http://x")), Some("http://x cannot be reached"));
        assert!(shown.contains("OLD PICTURE: http://x cannot be reached"), "{shown}");
    }
}

//! Tells how many tasks wait on lanes that no analyzer serves. Analyzers tell of their lanes themselves; where there is
//! none, only the door can.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::health;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// Looks until `shutdown`.
pub(crate) async fn watch(app: Arc<App>, shutdown: CancellationToken) {
    let mut told = HashSet::new();
    while shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        // During an outage the figures stay; that Redis is away is told elsewhere.
        if let Some(unserved) = health::unserved(&app).await {
            tell(&unserved, &mut told);
        }
    }
}

/// A lane that is gone is told once more, with nothing on it.
fn tell(unserved: &[(String, u64)], told: &mut HashSet<String>) {
    for lane in told.iter().filter(|lane| !unserved.iter().any(|(now, _)| now == *lane)) {
        gauge!("if_lane_unserved_tasks", "lane" => lane.clone()).set(0.0);
    }
    for (lane, tasks) in unserved {
        gauge!("if_lane_unserved_tasks", "lane" => lane.clone()).set(*tasks as f64);
        told.insert(lane.clone());
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn a_lane_that_is_gone_counts_nothing() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let shown = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            let mut told = HashSet::new();
            tell(&[("a:v1".to_owned(), 3), ("b:v1".to_owned(), 1)], &mut told);
            tell(&[("b:v1".to_owned(), 2)], &mut told);
        });
        let shown = shown.render();
        for line in ["if_lane_unserved_tasks{lane=\"a:v1\"} 0", "if_lane_unserved_tasks{lane=\"b:v1\"} 2"] {
            assert!(shown.contains(line), "{line} in {shown}");
        }
    }
}

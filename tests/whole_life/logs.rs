//! What the roles log, as a collector would read it.

use serde_json::{Value, json};

use crate::caller::{TEXT, http};
use crate::eventually;
use crate::installation::{Database, Installation};

const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn a_task_is_followed_through_every_role_s_log_by_its_id_and_by_its_trace() {
    let mut installation = Installation::migrated(Database::MariaDb).await;
    installation.settings.push((
        "INSIGHTFORGE_LOG",
        "info,insightforge_api=debug,insightforge_analyzer=debug,insightforge_projector=debug".to_owned(),
    ));
    for role in crate::installation::ROLES {
        installation.start(role).await;
    }
    let caller = installation.caller();
    let data = json!({ "text": TEXT }).to_string();
    let body = json!({ "data": data, "task_type": "sentiment_analysis" });
    let url = format!("http://{}/api/data/upload", installation.http_addr);
    let accepted = http().post(url).header("traceparent", SENT).json(&body).send().await.unwrap();
    let accepted: Value = accepted.json().await.unwrap();
    let traced = accepted["task_id"].as_str().unwrap().to_owned();
    let own: Value = caller.upload(TEXT).await.json().await.unwrap();
    let own = own["task_id"].as_str().unwrap().to_owned();
    for task in [&traced, &own] {
        caller.wait_for_end(task).await;
        installation.receiver.of_task(task).await;
    }

    for (task, trace) in [(&traced, "4bf92f3577b34da6a3ce929d0e0e4736".to_owned()), (&own, own.replace('-', ""))] {
        for role in &installation.roles {
            eventually("the role's log has the task", async || {
                let lines = role.log();
                let mut lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
                lines
                    .find(|line| line["task.id"] == *task && line["trace_id"] == *trace && line["service"] == role.name)
            })
            .await;
        }
    }
    // The end looks at every line of every role: names, no secret.
    installation.end().await;
}

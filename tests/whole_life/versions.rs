//! Model versions come, take a share, take over, go back and are compared, on real uploads, under load.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use insightforge_schema::event::{Change, Completed, Meta};
use insightforge_schema::id::{Partition, TaskId};
use insightforge_schema::journal;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use insightforge_schema::registry::{self, Entry, Routes};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::caller::Caller;
use crate::eventually;
use crate::installation::{Database, Installation};
use crate::package::put_package;
use crate::process::Signal;

/// Users that upload in turn.
const USERS: u64 = 40;

#[tokio::test]
async fn a_version_is_loaded_tried_promoted_and_taken_back_under_load_and_no_task_is_lost_or_answered_by_another() {
    let mut installation = Installation::migrated(Database::MariaDb).await;
    let models = tempfile::tempdir().unwrap();
    installation.settings.push(("INSIGHTFORGE_MODELS", models.path().display().to_string()));
    put_package(models.path(), "mood", "v1", "glad");
    for role in ["api", "analyzer", "analyzer", "projector"] {
        installation.start(role).await;
    }
    let redis = Redis::of(&installation);
    eventually("the version is registered", async || redis.routes().await.task("mood").is_some().then_some(())).await;
    let load = Load::begin(&installation.caller());

    // Another version comes: it is there for who asks for it, and answers nobody else.
    load.wait_for(60).await;
    put_package(models.path(), "mood", "v2", "sad");
    let listed = async || installation.run(&["models", "list", "mood", "--json"]).await;
    eventually("the second version is registered", async || {
        let routes: Value = serde_json::from_str(&listed().await).unwrap();
        (routes["tasks"]["mood"]["versions"].as_array().unwrap().len() == 2).then_some(())
    })
    .await;
    load.wait_for(60).await;
    let decide = async |arguments: &[&str]| {
        let said = installation.run(&[&["models"], arguments, &["--by", "ann", "--reason", "a trial"]].concat()).await;
        assert!(said.contains("by cli/ann: a trial"), "{said}");
        redis.wait_for_answers_under_the_newest_routes(2, 60).await;
    };
    decide(&["shadow", "mood", "v2"]).await;
    decide(&["canary", "mood", "v2", "--percent", "25"]).await;
    // One analyzer dies in the middle of it.
    let mut installation = installation;
    installation.stop("analyzer", Signal::Kill).await;
    installation.start("analyzer").await;
    let decide = async |arguments: &[&str]| {
        let said = installation.run(&[&["models"], arguments, &["--by", "ann", "--reason", "a trial"]].concat()).await;
        assert!(said.contains("by cli/ann: a trial"), "{said}");
        redis.wait_for_answers_under_the_newest_routes(2, 60).await;
    };
    decide(&["promote", "mood", "v2"]).await;
    decide(&["rollback", "mood"]).await;
    // A broken one is refused with the reason, and the others go on.
    put_package(models.path(), "mood", "v3", "odd");
    std::fs::write(models.path().join("mood/v3/weights.bin"), "cut off").unwrap();
    let refused = eventually("the broken package is refused", async || {
        let routes = redis.routes().await;
        routes.refused.values().find(|note| note.is_of("mood", "v3")).map(|note| note.reason.clone())
    })
    .await;
    assert!(refused.contains("weights.bin"), "{refused}");
    let complaint = installation.run_badly(&["models", "promote", "mood", "v3"]).await;
    assert!(complaint.contains("v3") && complaint.contains("v1, v2"), "{complaint}");
    load.wait_for(60).await;

    // A task type of its own is a folder, too.
    put_package(models.path(), "weather", "v1", "odd");
    let caller = installation.caller();
    let body =
        json!({ "data": json!({ "text": "rain" }).to_string(), "task_type": "weather", "model_version": "stable" });
    let task = eventually("the new task type is known", async || {
        let answer = caller.post("/api/data/upload", &body).await.unwrap();
        if answer.status() != 202 {
            return None;
        }
        let accepted: Value = answer.json().await.unwrap();
        Some(accepted["task_id"].as_str().unwrap().to_owned())
    })
    .await;
    let ended = caller.wait_for_end(&task).await;
    assert_eq!((&ended["status"], &ended["result"]["label"]), (&json!("completed"), &json!("odd")), "{ended}");

    let tasks = load.end().await;
    let all: Vec<Uuid> = tasks.keys().copied().chain([task.parse().unwrap()]).collect();
    installation.every_task_completed_once(&all).await;
    let mut answers = redis.completed().await;
    answers.retain(|_, completed| completed.task_type == "mood");
    assert_eq!(answers.len(), tasks.len());
    // An analyzer follows within half a second; the rest is for a busy machine.
    redis.nobody_lags(Duration::from_secs(5)).await;
    let history = redis.history().await;
    let mut seen = HashSet::new();
    for (task, user) in &tasks {
        let completed = &answers[&TaskId(*task)];
        let route = completed.route.as_ref().unwrap();
        let mut routes = Routes::default();
        history.iter().filter(|entry| entry.n <= route.registry_n).for_each(|entry| routes.apply(entry));
        let expected = routes.resolve("mood", &route.asked, &format!("user:{user}")).unwrap();
        let answered = (completed.model_version.as_str(), route.reason.as_str());
        assert_eq!(answered, (&*expected.version, expected.reason.as_str()), "{task}");
        let result: Value = serde_json::from_str(&completed.result).unwrap();
        let word = if completed.model_version == "v1" { "glad" } else { "sad" };
        assert_eq!(result["label"], word, "{task}: the answer is another version's");
        seen.insert((completed.model_version.clone(), route.reason.clone()));
    }
    let owned = |(version, reason): (&str, &str)| (version.to_owned(), reason.to_owned());
    assert_eq!(seen, [("v1", "stable"), ("v2", "canary"), ("v2", "stable")].map(owned).into());

    eventually("shadows stand in the tables", async || {
        (installation.count("analysis_shadow_results WHERE model_version = 'v2' AND agrees = 0").await > 0)
            .then_some(())
    })
    .await;
    let canaries = installation.count("analysis_results WHERE route_reason = 'canary' AND model_version = 'v2'").await;
    let expected = answers.values().filter(|it| it.route.as_ref().unwrap().reason == "canary").count();
    assert_eq!(canaries, expected);
    installation.run(&["verify"]).await;
    let told = installation.run(&["models", "history", "mood"]).await;
    for event in ["registered", "shadows are v2", "canary v2 has 25 %", "v2 promoted, before v1", "rolled back"] {
        assert!(told.contains(event), "{event} in {told}");
    }
    installation.end().await;
}

/// Uploads without pause.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Arc<std::sync::Mutex<HashMap<Uuid, u64>>>,
    hands: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn begin(caller: &Caller) -> Self {
        let (stop, tasks) = (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::Mutex::new(HashMap::new())));
        let hands = (0..4_u64).map(|hand| {
            let (caller, stop, tasks) = (caller.clone(), stop.clone(), tasks.clone());
            tokio::spawn(async move {
                let mut user = hand;
                while !stop.load(Ordering::Relaxed) {
                    user = (user + 4) % USERS;
                    let task = Uuid::now_v7();
                    let body = json!({
                        "data": json!({ "text": format!("how is user {user}?") }).to_string(),
                        "task_type": "mood", "model_version": "stable", "user_id": user, "task_id": task.to_string(),
                    });
                    let answer = caller.post("/api/data/upload", &body).await.unwrap();
                    let status = answer.status();
                    assert_eq!(status, 202, "{}", answer.text().await.unwrap());
                    tasks.lock().unwrap().insert(task, user);
                }
            })
        });
        Self { hands: hands.collect(), stop, tasks }
    }

    /// Returns once so many more tasks were accepted.
    async fn wait_for(&self, more: usize) {
        let wanted = self.tasks.lock().unwrap().len() + more;
        eventually("uploads go on", async || (self.tasks.lock().unwrap().len() >= wanted).then_some(())).await;
    }

    /// Every task that was accepted, with its user.
    async fn end(self) -> HashMap<Uuid, u64> {
        self.stop.store(true, Ordering::Relaxed);
        for hand in self.hands {
            hand.await.unwrap();
        }
        std::mem::take(&mut *self.tasks.lock().unwrap())
    }
}

/// The installation's streams, read past the program.
struct Redis {
    link: Link,
    keys: Keys,
}

impl Redis {
    fn of(installation: &Installation) -> Self {
        let setting = |name| installation.settings.iter().find(|(known, _)| *known == name).unwrap().1.clone();
        let link = Link::new(&setting("REDIS_URL"), Duration::from_secs(10)).unwrap();
        Self { link, keys: Keys::new(&setting("INSIGHTFORGE_KEY_PREFIX")) }
    }

    async fn history(&self) -> Vec<Entry> {
        registry::history(&self.link, &self.keys, 1, 10_000).await.unwrap()
    }

    async fn routes(&self) -> Routes {
        let mut routes = Routes::default();
        self.history().await.iter().for_each(|entry| routes.apply(entry));
        routes
    }

    /// Returns once so many analyzers have answered so many tasks each by the routes as they are now.
    async fn wait_for_answers_under_the_newest_routes(&self, analyzers: usize, count: usize) {
        let newest = self.routes().await.position;
        let by_newest = |it: &Completed| it.route.as_ref().is_some_and(|route| route.registry_n >= newest);
        eventually("the newest routes hold in every analyzer", async || {
            let mut answered: HashMap<String, usize> = HashMap::new();
            for (meta, _) in self.answers().await.into_values().filter(|(_, it)| by_newest(it)) {
                *answered.entry(meta.actor).or_default() += 1;
            }
            (answered.values().filter(|its| **its >= count).count() >= analyzers).then_some(())
        })
        .await;
    }

    /// No analyzer answers by routes that an operator changed longer ago than this.
    async fn nobody_lags(&self, most: Duration) {
        let history = self.history().await;
        for (task, (meta, completed)) in self.answers().await {
            let by = completed.route.unwrap().registry_n;
            let next = history.iter().find(|entry| entry.n > by && entry.meta.actor == "cli/ann");
            let late_us = next.map_or(0, |entry| meta.at_us - entry.meta.at_us - completed.inference_us as i64);
            let most_us = i64::try_from(most.as_micros()).unwrap();
            assert!(late_us <= most_us, "{task}: {} answered by number {by}, {late_us} µs after {next:?}", meta.actor);
        }
    }

    /// The `completed` event of every task that has one.
    async fn completed(&self) -> HashMap<TaskId, Completed> {
        self.answers().await.into_iter().map(|(task, (_, completed))| (task, completed)).collect()
    }

    /// The same with who answered, and when.
    async fn answers(&self) -> HashMap<TaskId, (Meta, Completed)> {
        let mut all = HashMap::new();
        for partition in 0..4 {
            let events = journal::range(&self.link, &self.keys, Partition(partition), 1, None, 100_000).await.unwrap();
            all.extend(events.into_iter().filter_map(|event| match event.change {
                Change::Completed(completed) => Some((event.task, (event.meta, completed))),
                _ => None,
            }));
        }
        all
    }
}

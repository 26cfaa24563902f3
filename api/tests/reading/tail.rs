//! The journal's live end: nothing slips through, whatever happens to the connection.

use std::collections::HashSet;
use std::time::Duration;

use insightforge_api::tail::{Heard, Listener, Tail, Waited};
use insightforge_schema::event::{Change, Event};
use insightforge_schema::id::{Partition, TaskId};
use insightforge_schema::link::Link;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::proxy::Proxy;
use crate::stage::{Asked, Journal, redis_url};

const LONG: Duration = Duration::from_secs(20);

fn soon() -> Instant {
    Instant::now() + LONG
}

fn asked() -> Asked {
    Asked::new("acting", "{}")
}

/// A tail whose connections can be cut.
async fn tail_behind_a_proxy(journal: &Journal) -> (Tail, Proxy) {
    let url = url::Url::parse(&redis_url()).unwrap();
    let server = format!("{}:{}", url.host_str().unwrap(), url.port_or_known_default().unwrap_or(6379));
    let proxy = Proxy::to(server).await;
    let link = Link::new(&format!("redis://{}", proxy.addr), LONG).unwrap();
    (Tail::start(&link, &journal.keys, journal.partitions, &CancellationToken::new()), proxy)
}

fn tail(journal: &Journal) -> Tail {
    Tail::start(&journal.link, &journal.keys, journal.partitions, &CancellationToken::new())
}

/// Hears until all of `wanted` were submitted; panics when something is missing for long or comes twice.
async fn hear_submissions(listener: &mut Listener, wanted: &[Asked]) {
    let mut missing: HashSet<TaskId> = wanted.iter().map(|asked| asked.task).collect();
    while !missing.is_empty() {
        match timeout(LONG, listener.next()).await.expect("the events come") {
            Heard::Batch(batch) => {
                for event in batch.iter().filter(|event| matches!(event.change, Change::Submitted(_))) {
                    assert!(missing.remove(&event.task), "{} comes once", event.position);
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn parked(tail: &Tail) {
    let deadline = soon();
    while tail.is_reading() {
        assert!(Instant::now() < deadline, "the reader parks when nobody listens");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_listener_hears_everything_appended_after_it_came_and_nothing_old() {
    let journal = Journal::new();
    let tail = tail(&journal);
    let old: Vec<Asked> = (0..20).map(|_| asked()).collect();
    journal.submit_all(&old).await;
    let mut listener = tail.subscribe().await.unwrap();
    let new: Vec<Asked> = (0..300).map(|_| asked()).collect();
    journal.submit_all(&new).await;
    hear_submissions(&mut listener, &new).await;
}

#[tokio::test]
async fn the_reader_parks_when_nobody_listens_and_starts_again_at_the_end() {
    let journal = Journal::new();
    let tail = tail(&journal);
    assert!(!tail.is_reading());
    drop(tail.subscribe().await.unwrap());
    parked(&tail).await;
    // Unheard by anybody, and not to be heard later.
    journal.submit(&asked()).await;
    let mut listener = tail.subscribe().await.unwrap();
    let new = [asked()];
    journal.submit_all(&new).await;
    hear_submissions(&mut listener, &new).await;
}

#[tokio::test]
async fn a_broken_connection_makes_events_late_and_loses_none() {
    let journal = Journal::new();
    let (tail, proxy) = tail_behind_a_proxy(&journal).await;
    let mut listener = tail.subscribe().await.unwrap();
    for _ in 0..5 {
        let new: Vec<Asked> = (0..50).map(|_| asked()).collect();
        journal.submit_all(&new[..25]).await;
        proxy.cut();
        journal.submit_all(&new[25..]).await;
        hear_submissions(&mut listener, &new).await;
    }
}

#[tokio::test]
async fn a_listener_that_does_not_listen_is_told_that_it_missed_something() {
    let journal = Journal::new();
    let tail = tail(&journal);
    let mut slow = tail.subscribe().await.unwrap();
    let mut quick = tail.subscribe().await.unwrap();
    // All in one partition: more batches than are kept for the slow.
    let many: Vec<Asked> = (0..10_000).map(|_| asked().placed(Partition(1), journal.partitions)).collect();
    let (heard, ()) = tokio::join!(hear_or_miss(&mut quick, many.len()), journal.submit_all(&many));
    assert!(heard > 0);
    assert!(matches!(slow.next().await, Heard::Missed));
    assert!(matches!(slow.next().await, Heard::Batch(_)), "and hears on");
}

#[tokio::test]
async fn a_reader_before_which_the_journal_was_trimmed_says_so_to_everybody() {
    let journal = Journal::new();
    let tail = tail(&journal);
    let mut listener = tail.subscribe().await.unwrap();
    let task = asked();
    let mut watch = tail.watch(task.task).await.unwrap();
    journal.submit(&task).await;
    hear_submissions(&mut listener, std::slice::from_ref(&task)).await;
    assert!(matches!(watch.next().await, Heard::Batch(_)));
    // Two more, of which the first is gone before anybody can read it.
    let partition = journal.partition(task.task);
    let script = "
        local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
        local n = tonumber(string.match(last[1], '%d+$'))
        for i = n + 1, n + 2 do redis.call('XADD', KEYS[1], '0-' .. i, unpack(last[2])) end
        return redis.call('XTRIM', KEYS[1], 'MINID', '0-' .. (n + 2))";
    let mut command = redis::cmd("EVAL");
    let trimmed: i64 =
        journal.link.query(command.arg(script).arg(1).arg(journal.keys.journal(partition))).await.unwrap();
    assert_eq!(trimmed, 2);
    assert!(matches!(timeout(LONG, listener.next()).await.unwrap(), Heard::Missed));
    assert!(matches!(timeout(LONG, listener.next()).await.unwrap(), Heard::Batch(_)), "and what comes next is heard");
    assert!(matches!(timeout(LONG, watch.next()).await.unwrap(), Heard::Missed));
}

/// Takes batches until `count` events went by; says how many were heard.
async fn hear_or_miss(listener: &mut Listener, count: usize) -> usize {
    let mut heard = 0;
    while heard < count {
        match timeout(LONG, listener.next()).await.expect("the events come") {
            Heard::Batch(batch) => heard += batch.len(),
            other => panic!("one that listens misses nothing: {other:?}"),
        }
    }
    heard
}

#[tokio::test]
async fn an_end_is_heard_whether_it_lies_in_the_past_or_in_the_future() {
    let journal = Journal::new();
    let tail = tail(&journal);
    let (past, future, cancelled) = (asked(), asked(), asked());
    journal.submit_all(&[past.clone(), future.clone(), cancelled.clone()]).await;
    journal.complete(&past, "{\"n\":1}").await;
    assert_eq!(result(&ended(tail.wait_for_end(past.task, soon()).await.unwrap())), "{\"n\":1}");
    let (one, two, three, ()) = tokio::join!(
        tail.wait_for_end(future.task, soon()),
        tail.wait_for_end(future.task, soon()),
        tail.wait_for_end(cancelled.task, soon()),
        async {
            journal.complete(&future, "{\"n\":2}").await;
            journal.cancel(&cancelled).await;
        }
    );
    let (one, two, three) = (ended(one.unwrap()), ended(two.unwrap()), ended(three.unwrap()));
    assert_eq!((result(&one), result(&two)), ("{\"n\":2}", "{\"n\":2}"));
    assert_eq!(one, ended(tail.wait_for_end(future.task, soon()).await.unwrap()), "told and looked up are the same");
    assert!(matches!(three.change, Change::Cancelled(_)));
    parked(&tail).await;
}

#[tokio::test]
async fn waiting_ends_at_the_deadline_and_for_a_task_nobody_knows() {
    let journal = Journal::new();
    let tail = tail(&journal);
    let waiting = journal.submit(&asked()).await;
    let short = Instant::now() + Duration::from_millis(50);
    assert!(matches!(tail.wait_for_end(waiting, short).await.unwrap(), Waited::Running));
    assert!(matches!(tail.wait_for_end(TaskId::new(), soon()).await.unwrap(), Waited::Unknown));
    parked(&tail).await;
}

#[tokio::test]
async fn an_end_during_an_outage_is_heard_after_it() {
    let journal = Journal::new();
    let (tail, proxy) = tail_behind_a_proxy(&journal).await;
    for _ in 0..5 {
        let task = asked();
        journal.submit(&task).await;
        let (waited, ()) = tokio::join!(tail.wait_for_end(task.task, soon()), async {
            proxy.cut();
            journal.complete(&task, "{}").await;
            proxy.cut();
        });
        ended(waited.unwrap());
    }
}

#[tokio::test]
async fn a_journal_that_moved_back_ends_the_listening_and_waiters_look_again() {
    let journal = Journal::new();
    let (tail, proxy) = tail_behind_a_proxy(&journal).await;
    let many: Vec<Asked> = (0..40).map(|_| asked()).collect();
    journal.submit_all(&many).await;
    let mut listener = tail.subscribe().await.unwrap();
    let task = asked();
    journal.submit(&task).await;
    hear_submissions(&mut listener, std::slice::from_ref(&task)).await;
    let (waited, ()) = tokio::join!(tail.wait_for_end(task.task, soon()), async {
        // As after a failover to a server that has seen nothing: the task's own record survived.
        for partition in journal.partitions.iter() {
            let _: i64 = journal.link.query(redis::cmd("DEL").arg(journal.keys.journal(partition))).await.unwrap();
        }
        journal.complete(&task, "{}").await;
        proxy.cut();
        while !matches!(timeout(LONG, listener.next()).await.unwrap(), Heard::Over) {}
    });
    ended(waited.unwrap());
    let mut again = tail.subscribe().await.unwrap();
    let new = [asked()];
    journal.submit_all(&new).await;
    hear_submissions(&mut again, &new).await;
}

#[tokio::test]
async fn a_process_that_stops_keeps_nobody_waiting() {
    let journal = Journal::new();
    let shutdown = CancellationToken::new();
    let tail = Tail::start(&journal.link, &journal.keys, journal.partitions, &shutdown);
    let task = journal.submit(&asked()).await;
    let mut listener = tail.subscribe().await.unwrap();
    let (waited, heard, ()) = tokio::join!(
        timeout(LONG, tail.wait_for_end(task, Instant::now() + LONG * 10)),
        timeout(LONG, async { while !matches!(listener.next().await, Heard::Over) {} }),
        async { shutdown.cancel() }
    );
    assert!(matches!(waited.unwrap().unwrap(), Waited::Running));
    heard.unwrap();
}

fn ended(waited: Waited) -> Event {
    match waited {
        Waited::Ended(event) => Event::clone(&event),
        other => panic!("{other:?}"),
    }
}

fn result(event: &Event) -> &str {
    match &event.change {
        Change::Completed(completed) => &completed.result,
        other => panic!("{other:?}"),
    }
}

//! One installation on private servers, with everything a fault needs to get at.

use std::path::{Path, PathBuf};
use std::time::Duration;

use insightforge_archive::Archive;
use insightforge_schema::id::PartitionCount;
use insightforge_schema::keys::Keys;
use insightforge_schema::link::Link;
use tempfile::TempDir;

use crate::audit::Death;
use crate::clock::Clock;
use crate::dice::Dice;
use crate::disk::Room;
use crate::faults::Kind;
use crate::fleet::{ANALYZER, API, Fleet, PROJECTOR};
use crate::load::Load;
use crate::model_server;
use crate::package::{put_package, put_package_isolated};
use crate::program::{Settings, run_well};
use crate::proxy::Proxy;
use crate::receiver::{Receiver, SECRET};
use crate::request::Extra;
use crate::servers::{Fsync, MariaDb, Redis};

/// Megabytes of a disk that can be filled.
const REDIS_DISK: u32 = 96;
const DATABASE_DISK: u32 = 256;

/// Few, so that a run of some thousand tasks fills each beyond what stays in Redis.
const PARTITIONS: u16 = 2;
/// Events of a partition that stay in Redis: the fewest the program takes.
const KEPT: u64 = 1_000;
/// How long who looks waits for Redis.
const LOOKING: Duration = Duration::from_secs(60);

/// Servers that serve one run after another.
pub(crate) struct Slot {
    folder: TempDir,
    mariadb: MariaDb,
    runs: u32,
}

pub(crate) struct Site<'s> {
    pub(crate) kind: Kind,
    pub(crate) dice: Dice,
    pub(crate) redis: Redis,
    pub(crate) mariadb: &'s mut MariaDb,
    /// The roles' clock, when it can be set.
    pub(crate) clock: Option<Clock>,
    /// Between each role and Redis: api, analyzers, projectors.
    pub(crate) redis_links: [Proxy; 3],
    pub(crate) database_link: Proxy,
    pub(crate) database: String,
    pub(crate) fleet: Fleet,
    pub(crate) keys: Keys,
    pub(crate) partitions: PartitionCount,
    /// The journal past every proxy, with its archive.
    pub(crate) journal: insightforge_archive::Journal,
    pub(crate) receiver: Receiver,
    pub(crate) load: Load,
    /// Projectors that were killed.
    pub(crate) deaths: Vec<Death>,
    /// Events that are in the archive, and that left the stream.
    pub(crate) left_redis: (u64, u64),
    pub(crate) complaints: Vec<String>,
}

/// Why a fault cannot be tried on this machine.
pub(crate) struct Impossible(pub(crate) &'static str);

impl Slot {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("faults-").tempdir().unwrap();
        let mariadb = MariaDb::start(folder.path(), None).await;
        Self { folder, mariadb, runs: 0 }
    }

    /// The servers of a run: the MariaDB of the slot, unless the run needs one on a disk of its own, which comes back too.
    pub(crate) async fn prepare(&mut self, kind: Kind) -> Result<(PathBuf, Option<MariaDb>, Redis), Impossible> {
        self.runs += 1;
        let folder = self.last();
        std::fs::create_dir_all(&folder).unwrap();
        let no_clock = Impossible("no clock of its own can be made (there is no C compiler)");
        if kind == Kind::ClockBack && Clock::new(&folder.join("clock")).is_none() {
            return Err(no_clock);
        }
        let redis_clock = match kind.sets_redis_clock() {
            true => Some(Clock::new(&folder.join("redis-clock")).ok_or(no_clock)?),
            false => None,
        };
        let no_disk = Impossible("no disk of its own can be had (a mount namespace needs root)");
        let redis_room = match kind {
            Kind::RedisDiskFull => Some(Room::new(&folder.join("redis-disk"), REDIS_DISK).await.ok_or(no_disk)?),
            _ => None,
        };
        let no_disk = Impossible("no disk of its own can be had (a mount namespace needs root)");
        let own = match kind {
            Kind::DatabaseDiskFull => {
                let room = Room::new(&folder.join("database-disk"), DATABASE_DISK).await.ok_or(no_disk)?;
                Some(MariaDb::start(&folder, Some(room)).await)
            }
            _ => None,
        };
        let fsync = if kind == Kind::RedisKillEverySecond { Fsync::EverySecond } else { Fsync::Always };
        let redis = match kind.on_cluster() {
            true => Redis::start_cluster(&folder).await,
            false => Redis::start(&folder, fsync, redis_room, redis_clock).await,
        };
        Ok((folder, own, redis))
    }

    pub(crate) fn mariadb(&mut self) -> &mut MariaDb {
        &mut self.mariadb
    }

    /// The folder of the last run.
    fn last(&self) -> PathBuf {
        self.folder.path().join(format!("run-{}", self.runs))
    }

    /// Keeps what there is of the last run: for people.
    pub(crate) fn keep_last(&self, name: &str) -> PathBuf {
        self.keep(&self.last(), name)
    }

    /// Keeps the folder of a run that failed: for people.
    pub(crate) fn keep(&self, run: &Path, name: &str) -> PathBuf {
        let kept = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("faults").join(name);
        let _ = std::fs::remove_dir_all(&kept);
        std::fs::create_dir_all(&kept).unwrap();
        for file in std::fs::read_dir(run).into_iter().flatten().flatten() {
            if file.path().extension().is_some_and(|extension| extension == "log") {
                let _ = std::fs::copy(file.path(), kept.join(file.file_name()));
            }
        }
        kept
    }
}

impl<'s> Site<'s> {
    /// Migrated, with every role running.
    pub(crate) async fn open(kind: Kind, dice: Dice, folder: PathBuf, redis: Redis, mariadb: &'s mut MariaDb) -> Self {
        let database = format!("f{}", &dice.fork("database").uuid().simple().to_string()[..16]);
        let database_link = Proxy::to(&mariadb.server.addr).await;
        let database_url = mariadb.database(&database, &database_link.addr).await;
        let to_redis = || Proxy::to(&redis.server.addr);
        let redis_links = [to_redis().await, to_redis().await, to_redis().await];
        let receiver = Receiver::listen().await;
        receiver.refuse_one_in(kind.refused_announcements());
        if !kind.leaves_clocks_alone() {
            receiver.accept_any_time();
        }
        let archive = folder.join("archive").display().to_string();
        let models = folder.join("models");
        std::fs::create_dir_all(&models).unwrap();
        // One answers, the other is asked as well and differs.
        put_package(&models, "mood", "v1", "glad");
        put_package(&models, "mood", "v2", "sad");
        match kind.extra() {
            Extra::None => {}
            Extra::Rude => model_server::put_package(&models, &model_server::listen().await),
            Extra::Hosted => put_package_isolated(&models, "hosted", "v1", "glad", "process"),
        }
        let mut settings: Settings = vec![
            ("DATABASE_URL", database_url),
            ("INSIGHTFORGE_ENCRYPTION_KEY", "5a".repeat(32)),
            ("INSIGHTFORGE_WEBHOOK_URL", receiver.url.clone()),
            ("INSIGHTFORGE_WEBHOOK_SECRET", SECRET.to_owned()),
            ("INSIGHTFORGE_WEBHOOK_ALLOW_CIDRS", "127.0.0.0/8".to_owned()),
            ("INSIGHTFORGE_MODELS", models.display().to_string()),
            ("INSIGHTFORGE_BACKOFF_BASE_MS", "200".to_owned()),
            ("INSIGHTFORGE_BACKOFF_CAP_MS", "1000".to_owned()),
            ("INSIGHTFORGE_WEBHOOK_TIMEOUT_MS", "4000".to_owned()),
            ("INSIGHTFORGE_WEBHOOK_LEASE_MS", "8000".to_owned()),
            ("INSIGHTFORGE_PARTITIONS", PARTITIONS.to_string()),
            ("INSIGHTFORGE_ARCHIVE", archive.clone()),
            ("INSIGHTFORGE_JOURNAL_KEEP", KEPT.to_string()),
            ("INSIGHTFORGE_ROWS_KEEP_DAYS", "1".to_owned()),
            ("INSIGHTFORGE_CHECK_EVERY_S", "5".to_owned()),
        ];
        if let Some(lease) = kind.lease_ms() {
            settings.push(("INSIGHTFORGE_LEASE_MS", lease.to_string()));
        }
        let clock = if kind == Kind::ClockBack { Clock::new(&folder.join("clock")) } else { None };
        settings.extend(clock.iter().flat_map(Clock::settings));
        if kind.on_cluster() {
            settings.push(("INSIGHTFORGE_MIN_REPLICAS_ACK", "1".to_owned()));
        }
        let mut fleet = Fleet::new(settings, folder.clone());
        fleet.redis_urls = redis_links.each_ref().map(|link| match &redis.cluster {
            Some(cluster) => cluster.url(),
            None => format!("redis://{}", link.addr),
        });
        let load = Load::on(&fleet.api_addr, &receiver.url, kind.on_cluster());
        let keys = Keys::new("if");
        let past_proxies = match &redis.cluster {
            Some(cluster) => cluster.url(),
            None => format!("redis://{}", redis.server.addr),
        };
        let link = Link::new(&past_proxies, LOOKING).expect("a URL");
        let archive = Archive::open(&archive, [], "if").expect("a folder");
        let mut site = Self {
            kind,
            dice,
            redis,
            mariadb,
            clock,
            redis_links,
            database_link,
            database,
            fleet,
            partitions: PartitionCount::new(PARTITIONS).expect("a fine count"),
            journal: insightforge_archive::Journal { link, keys: keys.clone(), archive: Some(archive) },
            keys,
            receiver,
            load,
            deaths: Vec::new(),
            left_redis: (0, 0),
            complaints: Vec::new(),
        };
        run_well(&site.fleet.settings_of(API), &["migrate"]).await;
        site.fleet.start(&[API, ANALYZER, ANALYZER, PROJECTOR]).await;
        run_well(&site.fleet.settings_of(API), &["models", "shadow", "mood", "v2"]).await;
        site
    }
}

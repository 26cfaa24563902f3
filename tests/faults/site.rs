//! One installation on private servers, with everything a fault needs to get at.

use std::path::{Path, PathBuf};

use insightforge_schema::id::PartitionCount;
use insightforge_schema::keys::Keys;
use tempfile::TempDir;

use crate::dice::Dice;
use crate::disk::Room;
use crate::faults::Kind;
use crate::fleet::{ANALYZER, API, Fleet, PROJECTOR};
use crate::load::{Extra, Load};
use crate::model_server;
use crate::package::put_package_isolated;
use crate::program::{Settings, run_well};
use crate::proxy::Proxy;
use crate::receiver::Receiver;
use crate::servers::{Fsync, MariaDb, Redis};

/// Megabytes of a disk that can be filled.
const REDIS_DISK: u32 = 96;
const DATABASE_DISK: u32 = 256;

/// Servers that serve one run after another.
pub(crate) struct Slot {
    folder: TempDir,
    mariadb: MariaDb,
    runs: u32,
}

pub(crate) struct Site<'s> {
    pub(crate) kind: Kind,
    pub(crate) dice: Dice,
    pub(crate) folder: PathBuf,
    pub(crate) redis: Redis,
    pub(crate) mariadb: &'s mut MariaDb,
    /// Between each role and Redis: api, analyzers, projectors.
    pub(crate) redis_links: [Proxy; 3],
    pub(crate) database_link: Proxy,
    pub(crate) database: String,
    pub(crate) fleet: Fleet,
    pub(crate) keys: Keys,
    pub(crate) partitions: PartitionCount,
    pub(crate) receiver: Receiver,
    pub(crate) load: Load,
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
        if kind == Kind::ClockBack && faketime().is_none() {
            return Err(Impossible("libfaketime is not installed"));
        }
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
            false => Redis::start(&folder, fsync, redis_room).await,
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
        let models = folder.join("models");
        std::fs::create_dir_all(&models).unwrap();
        match kind.extra() {
            Extra::None => {}
            Extra::Rude => model_server::put_package(&models, &model_server::listen().await),
            Extra::Hosted => put_package_isolated(&models, "hosted", "v1", "glad", "process"),
        }
        let mut settings: Settings = vec![
            ("DATABASE_URL", database_url),
            ("INSIGHTFORGE_ENCRYPTION_KEY", "5a".repeat(32)),
            ("INSIGHTFORGE_WEBHOOK_URL", receiver.url.clone()),
            ("INSIGHTFORGE_WEBHOOK_SECRET", "the receiver's own secret".to_owned()),
            ("INSIGHTFORGE_WEBHOOK_ALLOW_CIDRS", "127.0.0.0/8".to_owned()),
            ("INSIGHTFORGE_MODELS", models.display().to_string()),
            ("INSIGHTFORGE_BACKOFF_BASE_MS", "200".to_owned()),
            ("INSIGHTFORGE_BACKOFF_CAP_MS", "1000".to_owned()),
            ("INSIGHTFORGE_WEBHOOK_TIMEOUT_MS", "4000".to_owned()),
            ("INSIGHTFORGE_WEBHOOK_LEASE_MS", "8000".to_owned()),
        ];
        if let Some(lease) = kind.lease_ms() {
            settings.push(("INSIGHTFORGE_LEASE_MS", lease.to_string()));
        }
        if kind == Kind::ClockBack {
            settings.extend(clock_settings(&folder));
        }
        if kind.on_cluster() {
            settings.push(("INSIGHTFORGE_MIN_REPLICAS_ACK", "1".to_owned()));
        }
        let mut fleet = Fleet::new(settings, folder.clone());
        fleet.redis_urls = redis_links.each_ref().map(|link| match &redis.cluster {
            Some(cluster) => cluster.url(),
            None => format!("redis://{}", link.addr),
        });
        let load = Load::on(&fleet.api_addr, &receiver.url);
        let mut site = Self {
            kind,
            dice,
            folder,
            redis,
            mariadb,
            redis_links,
            database_link,
            database,
            fleet,
            keys: Keys::new("if"),
            partitions: PartitionCount::new(4).expect("a fine count"),
            receiver,
            load,
            complaints: Vec::new(),
        };
        site.set_clock("+0");
        run_well(&site.fleet.settings_of(API), &["migrate"]).await;
        site.fleet.start(&[API, ANALYZER, ANALYZER, PROJECTOR]).await;
        site
    }

    /// What the roles' clocks say beside the true time.
    pub(crate) fn set_clock(&self, offset: &str) {
        std::fs::write(self.folder.join("clock"), format!("{offset}\n")).unwrap();
    }
}

/// The library that shifts a process's clock, where Debian's package puts it.
fn faketime() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten();
    folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}

fn clock_settings(folder: &Path) -> Settings {
    vec![
        ("LD_PRELOAD", faketime().expect("it was looked for before").display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", folder.join("clock").display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        // Time-outs do not follow the clock on the wall.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

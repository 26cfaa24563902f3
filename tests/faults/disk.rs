//! A small disk that can be filled: a tmpfs in a mount namespace that only the process held here and who enters it see.
//! It goes with them; nothing outside is mounted or unmounted.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

pub(crate) struct Room {
    /// Where the disk is, for who is inside.
    pub(crate) folder: PathBuf,
    /// Holds the namespace.
    keeper: Child,
}

impl Room {
    /// `None` where no namespace can be had: without the rights to make one, or on a machine without them.
    pub(crate) async fn new(folder: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let inside =
            format!("mount -t tmpfs -o size={megabytes}m tmpfs \"$0\" && touch \"$0/ready\" && exec sleep 100000");
        let keeper = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &inside])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        let mut room = Self { folder: folder.to_owned(), keeper };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !room.outside().join("ready").exists() {
            if room.keeper.try_wait().unwrap().is_some() || Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Some(room)
    }

    /// A command that runs what is appended to it inside.
    pub(crate) fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.pid())).arg("--");
        command
    }

    /// The disk, seen from outside.
    fn outside(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.pid(), self.folder.display()))
    }

    fn pid(&self) -> u32 {
        self.keeper.id().expect("it runs")
    }

    /// Leaves no byte free.
    pub(crate) fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.outside().join("filler")).unwrap();
        let zeros = vec![0_u8; 4096];
        while file.write_all(&zeros).is_ok() {}
    }

    pub(crate) fn free(&self) {
        std::fs::remove_file(self.outside().join("filler")).unwrap();
    }
}

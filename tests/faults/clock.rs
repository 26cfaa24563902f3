//! A wall clock that processes are given (`clock.c`, loaded before everything else), and that can be set while they run.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::Settings;

#[derive(Clone, Debug)]
pub(crate) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// Tells the true time at first. `None` where there is no C compiler to make it.
    pub(crate) fn new(folder: &Path) -> Option<Self> {
        std::fs::create_dir_all(folder).unwrap();
        let clock = Self { library: folder.join("clock.so"), file: folder.join("moved") };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/clock.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&clock.library).arg(source);
        if !compiler.status().is_ok_and(|status| status.success()) {
            return None;
        }
        clock.set(0);
        Some(clock)
    }

    /// By how many seconds it differs from the true time, from now on.
    pub(crate) fn set(&self, seconds: i64) {
        let file = std::fs::File::options().create(true).truncate(false).write(true).open(&self.file).unwrap();
        // In place: it is mapped by who goes by it.
        file.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    /// The environment of a process that goes by it.
    pub(crate) fn settings(&self) -> Settings {
        vec![("LD_PRELOAD", self.library.display().to_string()), ("MOVED_CLOCK", self.file.display().to_string())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_goes_by_the_clock_it_is_given_and_follows_it() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Clock::new(folder.path()).expect("Rust needs a C compiler too");
        let says = || -> i64 {
            let said = Command::new("date").arg("+%s").envs(clock.settings()).output().unwrap();
            String::from_utf8(said.stdout).unwrap().trim().parse().unwrap()
        };
        let truly = || i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
        assert!((says() - truly()).abs() < 60);
        clock.set(-3_600);
        assert!((says() + 3_600 - truly()).abs() < 60);
    }
}

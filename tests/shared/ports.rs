//! Ports that no other test takes.
//!
//! Between the moment a port is found free and the moment a server listens on it, seconds may pass, and tests run side by
//! side as processes of their own. So a process holds a lock on the ports it was given.

use std::collections::VecDeque;
use std::fs::File;
use std::net::TcpListener;
use std::sync::Mutex;

/// So many neighbouring ports are given at once.
const NEIGHBOURS: u16 = 3;

/// So many locks are held; a program that runs for hours has long begun to listen on the ports of the first.
const HELD: usize = 500;

/// Below the kernel's range for outgoing connections (from 32,768), one of which could take a port before its server does.
const SLOTS: std::ops::Range<u16> = 3_400..10_600;

/// The first of [`NEIGHBOURS`] ports that nobody listens on and that no other call, in any process, is given
/// meanwhile.
pub(crate) fn free_ports() -> u16 {
    static LOCKS: Mutex<VecDeque<File>> = Mutex::new(VecDeque::new());
    let folder = std::env::temp_dir().join("insightforge-test-ports");
    std::fs::create_dir_all(&folder).unwrap();
    loop {
        let first = rand::random_range(SLOTS) * NEIGHBOURS;
        let slot = File::options().create(true).append(true).open(folder.join(first.to_string())).unwrap();
        // Taken in this process too: another handle of the same file holds its lock.
        if slot.try_lock().is_ok() && (first..first + NEIGHBOURS).all(is_free) {
            let mut locks = LOCKS.lock().unwrap();
            locks.push_back(slot);
            if locks.len() > HELD {
                locks.pop_front();
            }
            return first;
        }
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

//! Which slot of a cluster a key is in, and which key a command is about.

use redis::{Arg, Cmd};

/// Slots of a cluster.
pub(super) const SLOTS: u16 = 16_384;

/// The slot of a key: CRC-16 (XMODEM) of its hash tag, or of all of it where it has none.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    crc16(tag_of(key)) % SLOTS
}

/// What stands between the first `{` and the next `}`, where that is something; else the whole key.
pub(super) fn tag_of(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        Some(close) if close > 0 => &rest[..close],
        _ => key,
    }
}

/// The key that says where a command must go; `None` for one that any server answers.
pub(super) fn key_of(command: &Cmd) -> Option<&[u8]> {
    let mut args = command.args_iter().map(|arg| match arg {
        Arg::Simple(bytes) => bytes,
        _ => &[][..],
    });
    let name = args.next()?.to_ascii_uppercase();
    match &name[..] {
        b"PING" | b"TIME" | b"INFO" | b"CLIENT" | b"CONFIG" | b"SCRIPT" | b"CLUSTER" | b"ACL" | b"KEYS" | b"ROLE"
        | b"WAIT" => None,
        b"XGROUP" | b"XINFO" | b"MEMORY" | b"OBJECT" => args.nth(1),
        b"EVAL" | b"EVALSHA" => args.nth(2),
        b"XREAD" | b"XREADGROUP" => args.skip_while(|arg| !arg.eq_ignore_ascii_case(b"STREAMS")).nth(1),
        _ => args.next(),
    }
}

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Partition, TaskId};
    use crate::keys::{Keys, Lane};

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        for (key, tag) in [
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("{if:00}:journal", "if:00"),
            ("if:workers", "if:workers"),
            ("open{only", "open{only"),
        ] {
            assert_eq!(tag_of(key.as_bytes()), tag.as_bytes(), "{key}");
        }
        assert_eq!((slot_of(b"foo"), slot_of(b"somekey")), (12_182, 11_058));
    }

    #[test]
    fn a_partition_is_one_slot_and_everything_else_one_of_its_own() {
        let of = |key: &String| slot_of(key.as_bytes());
        for prefix in ["if", "a-b.c_d"] {
            let keys = Keys::new(prefix);
            for partition in (0..32).map(Partition) {
                let journal = keys.journal(partition);
                let all = [
                    keys.archived(partition),
                    keys.lane(partition, &Lane::new("a{b}", "v{1}")),
                    keys.lanes(partition),
                    keys.record(partition, TaskId::new()),
                    keys.delayed(partition),
                    keys.expiring(partition),
                    keys.dead(partition),
                    keys.idempotency(partition, "00ff"),
                    keys.batch(partition, uuid::Uuid::new_v4()),
                    keys.lease(partition, "reap"),
                    Keys::confirmation(&journal),
                ];
                assert!(all.iter().all(|key| of(key) == of(&journal)), "{journal} {all:?}");
            }
            for key in [keys.config(), keys.models(), keys.workers(), keys.registry()] {
                assert_eq!(of(&Keys::confirmation(&key)), of(&key), "{key}");
            }
        }
    }

    #[test]
    fn a_command_is_sent_by_its_first_key() {
        let command = |text: &str| {
            let mut words = text.split(' ');
            let mut command = redis::cmd(words.next().unwrap());
            words.for_each(|word| {
                command.arg(word);
            });
            command
        };
        for (text, key) in [
            ("GET k", Some("k")),
            ("xgroup CREATE k g 0", Some("k")),
            ("EVALSHA hash 2 k l arg", Some("k")),
            ("XREADGROUP GROUP streams-g w COUNT 1 STREAMS k >", Some("k")),
            ("XREAD COUNT 1 BLOCK 1 streams k 0", Some("k")),
            ("TIME", None),
            ("PING", None),
            ("XREAD COUNT 1", None),
        ] {
            let command = command(text);
            assert_eq!(key_of(&command), key.map(str::as_bytes), "{text}");
        }
    }
}

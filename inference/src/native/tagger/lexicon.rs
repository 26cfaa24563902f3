//! What is known of words and phrases before any sentence is seen: flags (is a place, a given name, …), a class and a
//! grade, found by hash. A file keeps the hashes sorted, as differences, so that an entry takes about five bytes.

use std::collections::BTreeMap;

use super::bytes::{Broken, Reader, write_rising, write_varint};

/// What is known of a word. All zero means: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// One bit a list that has the word.
    pub(crate) flags: u16,
    /// Its class, 0 for none: a part of speech, or a cluster of words that are used alike.
    pub(crate) class: u16,
    /// How common it is, or how often it is written with a capital; in steps the lexicon's maker defines.
    pub(crate) grade: u8,
}

/// Hashes are kept to this many bits: with 300,000 words a foreign one is taken for one of them once in 200,000 times.
const BITS: u32 = 36;
/// The bits of a slot that hold the entry.
const ENTRY: u64 = (1 << (64 - BITS)) - 1;
const FLAG_BITS: u32 = 12;
const CLASS_BITS: u32 = 11;
const GRADE_BITS: u32 = 5;

#[derive(Debug, Default)]
pub(crate) struct Lexicon {
    /// Open addressing: the hash's kept bits above the entry's. An empty slot is zero (no entry is).
    slots: Vec<u64>,
    count: usize,
}

impl Lexicon {
    /// Of words by their full hashes; of two words with one kept hash, the first by full hash stays.
    pub(crate) fn new(words: &BTreeMap<u64, Entry>) -> Self {
        let mut kept = BTreeMap::new();
        for (&hash, &entry) in words.iter().filter(|(_, entry)| **entry != Entry::default()) {
            kept.entry(hash >> (64 - BITS)).or_insert(entry);
        }
        Self::of(&kept.into_iter().collect::<Vec<_>>())
    }

    fn of(words: &[(u64, Entry)]) -> Self {
        if words.is_empty() {
            return Self::default();
        }
        // Always with empty slots, which end every search.
        let size = (words.len() * 3 / 2 + 1).next_power_of_two();
        let mut slots = vec![0; size];
        for &(key, entry) in words {
            let mut at = slot(key, size);
            while slots[at] != 0 {
                at = (at + 1) & (size - 1);
            }
            slots[at] = (key << (64 - BITS)) | pack(entry);
        }
        Self { slots, count: words.len() }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Bytes in memory.
    pub(crate) fn resident(&self) -> usize {
        size_of_val(&self.slots[..])
    }

    #[inline]
    pub(crate) fn get(&self, hash: u64) -> Option<Entry> {
        if self.slots.is_empty() {
            return None;
        }
        let key = hash >> (64 - BITS);
        let mut at = slot(key, self.slots.len());
        loop {
            match self.slots[at] {
                0 => return None,
                found if found >> (64 - BITS) == key => return Some(unpack(found)),
                _ => at = (at + 1) & (self.slots.len() - 1),
            }
        }
    }

    /// The hashes; then the different entries, the most frequent first; then each word's, by its number there.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut words: Vec<u64> = self.slots.iter().copied().filter(|&slot| slot != 0).collect();
        words.sort_unstable();
        write_rising(out, &words.iter().map(|word| word >> (64 - BITS)).collect::<Vec<_>>());
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        words.iter().for_each(|word| *counts.entry(word & ENTRY).or_default() += 1);
        let mut entries: Vec<(u64, usize)> = counts.into_iter().collect();
        entries.sort_by_key(|&(entry, count)| (std::cmp::Reverse(count), entry));
        write_varint(out, entries.len() as u64);
        entries.iter().for_each(|&(entry, _)| write_varint(out, entry));
        let number: BTreeMap<u64, usize> =
            entries.iter().enumerate().map(|(number, &(entry, _))| (entry, number)).collect();
        words.iter().for_each(|word| write_varint(out, number[&(word & ENTRY)] as u64));
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Broken> {
        let keys = reader.rising()?;
        if keys.last().is_some_and(|last| last >> BITS != 0) {
            return Err(Broken("a word's hash is out of range"));
        }
        let different = reader.count()?;
        let mut entries = Vec::with_capacity(different);
        for _ in 0..different {
            let packed = reader.varint()?;
            if packed == 0 || packed > ENTRY {
                return Err(Broken("a word's entry is out of range"));
            }
            entries.push(unpack(packed));
        }
        let mut words = Vec::with_capacity(keys.len());
        for key in keys {
            let number = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
            words.push((key, *entries.get(number).ok_or(Broken("a word has no entry"))?));
        }
        Ok(Self::of(&words))
    }
}

fn slot(key: u64, size: usize) -> usize {
    (key as usize) & (size - 1)
}

fn pack(entry: Entry) -> u64 {
    let class = u64::from(entry.class).min((1 << CLASS_BITS) - 1);
    let grade = u64::from(entry.grade).min((1 << GRADE_BITS) - 1);
    let flags = u64::from(entry.flags) & ((1 << FLAG_BITS) - 1);
    // The rarest last: small numbers take few bytes.
    (flags << (CLASS_BITS + GRADE_BITS)) | (class << GRADE_BITS) | grade
}

fn unpack(packed: u64) -> Entry {
    Entry {
        flags: ((packed >> (CLASS_BITS + GRADE_BITS)) & ((1 << FLAG_BITS) - 1)) as u16,
        class: ((packed >> GRADE_BITS) & ((1 << CLASS_BITS) - 1)) as u16,
        grade: (packed & ((1 << GRADE_BITS) - 1)) as u8,
    }
}

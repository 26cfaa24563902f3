//! Word lists to look up in: all words that start at a place, in one walk.

use std::collections::{BTreeMap, VecDeque};

/// A set of words, each with what is known of it. The words are folded, see [`super::fold`].
pub(super) struct Words<T> {
    nodes: Vec<Node<T>>,
    /// The characters that go on from each node, sorted, and the node they lead to.
    edges: Vec<(char, u32)>,
    /// The same for the empty word, by the character; 0 is none. Most look-ups end here.
    first: Vec<u32>,
}

struct Node<T> {
    /// Its edges, by their places.
    edges: (u32, u32),
    /// What is known of the word that ends here.
    known: Option<T>,
}

/// First characters beyond are looked up like all others.
const DENSE: usize = 0xa000;

impl<T: Copy> Words<T> {
    /// Of two words that are alike the later one counts.
    pub(super) fn new(words: impl IntoIterator<Item = (Vec<char>, T)>) -> Self {
        let words: BTreeMap<Vec<char>, T> = words.into_iter().collect();
        let words: Vec<(Vec<char>, T)> = words.into_iter().collect();
        let mut set = Self { nodes: Vec::new(), edges: Vec::new(), first: vec![0; DENSE] };
        // Each node stands for the words from one place to another, which are alike in their first characters.
        let mut waiting = VecDeque::from([(0, words.len(), 0)]);
        let mut nodes = 1;
        while let Some((mut from, to, depth)) = waiting.pop_front() {
            let known = words.get(from).filter(|(word, _)| word.len() == depth && from < to).map(|(_, known)| *known);
            from += usize::from(known.is_some());
            let first_edge = index(set.edges.len());
            while from < to {
                let c = words[from].0[depth];
                let alike = words[from..to].partition_point(|(word, _)| word[depth] == c);
                set.edges.push((c, nodes));
                waiting.push_back((from, from + alike, depth + 1));
                nodes += 1;
                from += alike;
            }
            set.nodes.push(Node { edges: (first_edge, index(set.edges.len())), known });
        }
        let (from, to) = set.nodes[0].edges;
        for (c, node) in &set.edges[from as usize..to as usize] {
            if let Some(first) = set.first.get_mut(*c as usize) {
                *first = *node;
            }
        }
        set
    }

    pub(super) fn get(&self, word: &[char]) -> Option<T> {
        let mut node = 0;
        for c in word {
            node = self.next(node, *c)?;
        }
        self.nodes[node as usize].known
    }

    /// The words that `chars` starts with, from short to long, by their length.
    pub(super) fn starting<'a>(&'a self, chars: &'a [char]) -> impl Iterator<Item = (usize, T)> + 'a {
        let mut node = 0;
        let nodes = chars.iter().map_while(move |c| {
            node = self.next(node, *c)?;
            Some(node)
        });
        nodes.enumerate().filter_map(|(at, node)| Some((at + 1, self.nodes[node as usize].known?)))
    }

    fn next(&self, node: u32, c: char) -> Option<u32> {
        if node == 0 && (c as usize) < DENSE {
            return Some(self.first[c as usize]).filter(|next| *next > 0);
        }
        let (from, to) = self.nodes[node as usize].edges;
        let edges = &self.edges[from as usize..to as usize];
        edges.binary_search_by_key(&c, |(c, _)| *c).ok().map(|at| edges[at].1)
    }
}

fn index(place: usize) -> u32 {
    u32::try_from(place).expect("the lists of the program have far fewer words")
}

/// The lines of a word list: a tag and its words. Lines that start with `#` are comments.
pub(super) fn lines(list: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    list.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_words_at_a_place_are_found_from_short_to_long() {
        let list = [("不", 1), ("不好", 2), ("不好意思", 3), ("好", 4), ("好", 5), ("😀", 6)];
        let words = Words::new(list.map(|(word, number)| (word.chars().collect(), number)));
        let found = |text: &str| words.starting(&text.chars().collect::<Vec<_>>()).collect::<Vec<_>>();
        assert_eq!(found("不好意思吗"), [(1, 1), (2, 2), (4, 3)]);
        assert_eq!(found("不好意"), [(1, 1), (2, 2)]);
        assert_eq!(found("好"), [(1, 5)]);
        assert!(found("意思").is_empty());
        assert_eq!(found("😀"), [(1, 6)]);
        assert!(found("").is_empty());
        assert!(Words::<()>::new([]).get(&['好']).is_none());
        assert_eq!(words.get(&['不', '好']), Some(2));
        assert_eq!(words.get(&['不', '好', '意']), None);
    }
}

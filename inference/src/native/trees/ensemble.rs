//! `TreeEnsembleClassifier` and `TreeEnsembleRegressor`, as ONNX Runtime computes them.

use std::collections::HashMap;

use super::arithmetic::count;
use super::attributes::Attributes;
use super::classes::{Classes, Second, Transform};
use super::operator::{Operator, matrix, shaped};
use crate::model::{Tensor, TensorData};

/// Trees over the columns of a table.
struct Forest {
    nodes: Vec<Node>,
    roots: Vec<u32>,
    /// What leaves add: (class or target, weight).
    votes: Vec<(u32, f32)>,
    /// The greatest column a node asks for.
    columns: usize,
}

enum Node {
    Branch {
        column: u32,
        test: Test,
        value: f32,
        missing_is_true: bool,
        yes: u32,
        no: u32,
    },
    /// A stretch of [`Forest::votes`].
    Leaf {
        from: u32,
        to: u32,
    },
}

#[derive(Clone, Copy)]
enum Test {
    AtMost,
    Less,
    AtLeast,
    Greater,
    Equal,
    Unequal,
}

impl Forest {
    /// Reads the parallel lists a node of the graph keeps its trees in; `votes` is `class` or `target`.
    ///
    /// # Errors
    /// When the lists do not describe trees: what is reached twice, or not at all, would loop or be read out of bounds.
    fn read(attributes: &Attributes<'_>, votes: &str, outputs: usize) -> Result<Self, String> {
        let trees = attributes.ints("nodes_treeids");
        let (ids, columns) = (attributes.ints("nodes_nodeids"), attributes.ints("nodes_featureids"));
        let (yes, no) = (attributes.ints("nodes_truenodeids"), attributes.ints("nodes_falsenodeids"));
        let (modes, values) = (attributes.texts("nodes_modes"), attributes.numbers("nodes_values")?);
        let missing = attributes.ints("nodes_missing_value_tracks_true");
        let many = trees.len();
        let lengths = [ids.len(), columns.len(), yes.len(), no.len(), modes.len(), values.len()];
        if many == 0 || lengths.iter().any(|length| *length != many) || ![0, many].contains(&missing.len()) {
            return Err("its lists of nodes differ in length, or are empty".to_owned());
        }
        let mut places = HashMap::with_capacity(many);
        for (place, key) in trees.iter().copied().zip(ids.iter().copied()).enumerate() {
            if places.insert(key, place).is_some() {
                return Err(format!("the node {} of tree {} is there twice", key.1, key.0));
            }
        }
        let (votes, mut leaves) = read_votes(attributes, votes, outputs, &places)?;
        let find = |tree: i64, node: i64| {
            places.get(&(tree, node)).map(|place| narrow(*place)).ok_or(format!("tree {tree} has no node {node}"))
        };
        let mut parents = vec![0_u32; many];
        let mut nodes = Vec::with_capacity(many);
        let mut widest = 0;
        for place in 0..many {
            if modes[place] == "LEAF" {
                let (from, to) = leaves.remove(&place).unwrap_or_default();
                nodes.push(Node::Leaf { from, to });
                continue;
            }
            let (yes, no) = (find(trees[place], yes[place])?, find(trees[place], no[place])?);
            parents[yes as usize] += 1;
            parents[no as usize] += 1;
            let column = u32::try_from(columns[place]).map_err(|_| format!("column {} is none", columns[place]))?;
            widest = widest.max(column as usize + 1);
            let missing_is_true = missing.get(place).is_some_and(|it| *it != 0);
            nodes.push(Node::Branch {
                column,
                test: test(&modes[place])?,
                value: values[place],
                missing_is_true,
                yes,
                no,
            });
        }
        // Each node has one parent but the first of each tree: no way down can come back.
        let mut roots: Vec<(i64, u32)> = Vec::new();
        for (place, parents) in parents.iter().enumerate() {
            match parents {
                0 => roots.push((trees[place], narrow(place))),
                1 => {}
                _ => return Err(format!("the node {} of tree {} has two parents", ids[place], trees[place])),
            }
        }
        let mut distinct: Vec<i64> = trees.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        let mut rooted: Vec<i64> = roots.iter().map(|(tree, _)| *tree).collect();
        rooted.sort_unstable();
        if rooted != distinct {
            return Err("one of its trees has no root, or two".to_owned());
        }
        let roots: Vec<u32> = roots.into_iter().map(|(_, root)| root).collect();
        Ok(Self { nodes, roots, votes, columns: widest })
    }

    /// Calls `vote` for what each tree adds to this row.
    fn walk(&self, row: &[f32], mut vote: impl FnMut(usize, f32)) {
        for root in &self.roots {
            let mut at = *root;
            loop {
                match &self.nodes[at as usize] {
                    Node::Branch { column, test, value, missing_is_true, yes, no } => {
                        let cell = row[*column as usize];
                        let holds = test.holds(cell, *value) || (*missing_is_true && cell.is_nan());
                        at = if holds { *yes } else { *no };
                    }
                    Node::Leaf { from, to } => {
                        for (output, weight) in &self.votes[*from as usize..*to as usize] {
                            vote(*output as usize, *weight);
                        }
                        break;
                    }
                }
            }
        }
    }

    fn bytes(&self) -> u64 {
        (self.nodes.len() * size_of::<Node>() + self.votes.len() * size_of::<(u32, f32)>()) as u64
    }

    fn fits(&self, columns: usize) -> Result<(), String> {
        if self.columns <= columns {
            Ok(())
        } else {
            Err(format!("a tree asks for column {}; there are {columns}", self.columns - 1))
        }
    }
}

/// Votes in the order of their leaves, and each leaf's stretch of them by its place.
#[expect(clippy::type_complexity, reason = "two lists that only the caller joins")]
fn read_votes(
    attributes: &Attributes<'_>,
    votes: &str,
    outputs: usize,
    places: &HashMap<(i64, i64), usize>,
) -> Result<(Vec<(u32, f32)>, HashMap<usize, (u32, u32)>), String> {
    let (trees, nodes) = (attributes.ints(&format!("{votes}_treeids")), attributes.ints(&format!("{votes}_nodeids")));
    let (ids, weights) = (attributes.ints(&format!("{votes}_ids")), attributes.numbers(&format!("{votes}_weights"))?);
    if [nodes.len(), ids.len(), weights.len()].iter().any(|length| *length != trees.len()) {
        return Err("its lists of leaves differ in length".to_owned());
    }
    let mut by_leaf: Vec<(usize, u32, f32)> = Vec::with_capacity(trees.len());
    for at in 0..trees.len() {
        let place = places
            .get(&(trees[at], nodes[at]))
            .ok_or_else(|| format!("tree {} has no node {}", trees[at], nodes[at]))?;
        let output = u32::try_from(ids[at]).ok().filter(|output| (*output as usize) < outputs);
        by_leaf.push((
            *place,
            output.ok_or_else(|| format!("a leaf votes for {} of {outputs}", ids[at]))?,
            weights[at],
        ));
    }
    by_leaf.sort_by_key(|(place, ..)| *place);
    let mut leaves: HashMap<usize, (u32, u32)> = HashMap::new();
    for (at, (place, ..)) in by_leaf.iter().enumerate() {
        let at = narrow(at);
        leaves.entry(*place).or_insert((at, at)).1 = at + 1;
    }
    Ok((by_leaf.into_iter().map(|(_, output, weight)| (output, weight)).collect(), leaves))
}

fn test(mode: &str) -> Result<Test, String> {
    match mode {
        "BRANCH_LEQ" => Ok(Test::AtMost),
        "BRANCH_LT" => Ok(Test::Less),
        "BRANCH_GTE" => Ok(Test::AtLeast),
        "BRANCH_GT" => Ok(Test::Greater),
        "BRANCH_EQ" => Ok(Test::Equal),
        "BRANCH_NEQ" => Ok(Test::Unequal),
        other => Err(format!("a node has the mode {other:?}")),
    }
}

impl Test {
    #[expect(clippy::float_cmp, reason = "the operator is defined by it")]
    fn holds(self, cell: f32, value: f32) -> bool {
        match self {
            Self::AtMost => cell <= value,
            Self::Less => cell < value,
            Self::AtLeast => cell >= value,
            Self::Greater => cell > value,
            Self::Equal => cell == value,
            Self::Unequal => cell != value,
        }
    }
}

pub(super) struct Classifier {
    forest: Forest,
    classes: Classes,
    base: Vec<f32>,
    transform: Transform,
    /// Two classes, and every leaf votes for the same one.
    one_for_two: bool,
    all_positive: bool,
}

impl Classifier {
    pub(super) fn read(attributes: &Attributes<'_>) -> Result<Self, String> {
        let classes = Classes::read(attributes, "classlabels_int64s")?;
        let forest = Forest::read(attributes, "class", classes.len())?;
        let base = attributes.numbers("base_values")?;
        if base.len() > classes.len() {
            return Err("it has more base values than classes".to_owned());
        }
        let first = forest.votes.first().map(|(class, _)| *class);
        let one_for_two = classes.len() == 2 && forest.votes.iter().all(|(class, _)| Some(*class) == first);
        let all_positive = forest.votes.iter().all(|(_, weight)| *weight >= 0.0);
        let transform = Transform::read(attributes)?;
        Ok(Self { forest, classes, base, transform, one_for_two, all_positive })
    }

    /// The scores of a row, as many as there are classes, and the class.
    fn scores(&self, row: &[f32]) -> (Vec<f32>, usize) {
        let mut sums = vec![0.0_f64; self.classes.len()];
        let mut voted = vec![false; self.classes.len()];
        self.forest.walk(row, |class, weight| {
            sums[class] += f64::from(weight);
            voted[class] = true;
        });
        #[expect(clippy::cast_possible_truncation, reason = "scores are single precision")]
        let mut scores: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
        if !self.one_for_two {
            for (score, base) in scores.iter_mut().zip(&self.base) {
                *score += base;
            }
            let best = Classes::best(&scores, &voted);
            self.transform.apply(&mut scores);
            return (scores, best);
        }
        // One score for both classes: its place is the one voted for.
        let base = if self.base.len() == 2 { self.base[1] } else { self.base.first().copied().unwrap_or(0.0) };
        let score = scores.iter().sum::<f32>() + base;
        let positive = if self.all_positive { score > 0.5 } else { score > 0.0 };
        let second = if self.all_positive { Second::Complement } else { Second::Opposite };
        (self.transform.two(score, second), usize::from(positive))
    }
}

impl Operator for Classifier {
    fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, String> {
        let table = matrix(inputs, 0)?;
        self.forest.fits(table.columns)?;
        count(&[table.count(), self.classes.len()])?;
        let (mut scores, mut labels) = (Vec::new(), Vec::new());
        for row in table.rows() {
            let (of_row, label) = self.scores(row);
            scores.extend(of_row);
            labels.push(label);
        }
        let many = labels.len();
        Ok(vec![self.classes.labels(&labels), shaped(vec![many, self.classes.len()], TensorData::F32(scores))])
    }

    fn bytes(&self) -> u64 {
        self.forest.bytes()
    }

    fn classes(&self) -> Option<&Classes> {
        Some(&self.classes)
    }
}

pub(super) struct Regressor {
    forest: Forest,
    base: Vec<f32>,
    targets: usize,
    gather: Gather,
    transform: Transform,
}

/// What is made of the trees' votes for one target.
#[derive(Clone, Copy)]
enum Gather {
    Sum,
    Mean,
    Least,
    Greatest,
}

impl Regressor {
    pub(super) fn read(attributes: &Attributes<'_>) -> Result<Self, String> {
        let targets = usize::try_from(attributes.int("n_targets", 1)).ok().filter(|it| (1..=65_536).contains(it));
        let targets = targets.ok_or("its number of targets is none")?;
        let forest = Forest::read(attributes, "target", targets)?;
        let base = attributes.numbers("base_values")?;
        if ![0, targets].contains(&base.len()) {
            return Err("its base values are not as many as its targets".to_owned());
        }
        let gather = match attributes.text("aggregate_function", "SUM").as_str() {
            "SUM" => Gather::Sum,
            "AVERAGE" => Gather::Mean,
            "MIN" => Gather::Least,
            "MAX" => Gather::Greatest,
            other => return Err(format!("its aggregate_function is {other:?}")),
        };
        Ok(Self { forest, base, targets, gather, transform: Transform::read(attributes)? })
    }

    fn values(&self, row: &[f32]) -> Vec<f32> {
        let mut gathered: Vec<Option<f64>> = vec![None; self.targets];
        self.forest.walk(row, |target, weight| {
            let (weight, before) = (f64::from(weight), gathered[target]);
            gathered[target] = Some(before.map_or(weight, |before| match self.gather {
                Gather::Sum | Gather::Mean => before + weight,
                Gather::Least => before.min(weight),
                Gather::Greatest => before.max(weight),
            }));
        });
        #[expect(clippy::cast_precision_loss, reason = "a forest has few trees")]
        let trees = if matches!(self.gather, Gather::Mean) { self.forest.roots.len() as f64 } else { 1.0 };
        let base = |target: usize| self.base.get(target).copied().map_or(0.0, f64::from);
        #[expect(clippy::cast_possible_truncation, reason = "scores are single precision")]
        let mut values: Vec<f32> =
            gathered.into_iter().enumerate().map(|(at, sum)| (sum.unwrap_or(0.0) / trees + base(at)) as f32).collect();
        self.transform.apply(&mut values);
        values
    }
}

impl Operator for Regressor {
    fn run(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, String> {
        let table = matrix(inputs, 0)?;
        self.forest.fits(table.columns)?;
        count(&[table.count(), self.targets])?;
        let values = table.rows().flat_map(|row| self.values(row)).collect();
        Ok(vec![shaped(vec![table.count(), self.targets], TensorData::F32(values))])
    }

    fn bytes(&self) -> u64 {
        self.forest.bytes()
    }
}

/// Lists of a file are shorter than 2^32.
fn narrow(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

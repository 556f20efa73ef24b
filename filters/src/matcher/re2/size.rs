//! How many instructions RE2 compiles an expression to: what Envoy's limits on regular expressions count.
//!
//! The expression is compiled to instructions the way RE2 does (repetitions written out, common starts of alternatives
//! shared), and these are counted the way RE2 lays them out: one list for every place a byte can lead to.

use std::collections::HashSet;

use regex_syntax::hir::{Capture, Class, Hir, HirKind, Repetition};

/// The size of an expression in the `regex` crate's spelling; 0 when it cannot be read.
pub(super) fn program_size(pattern: &str) -> u32 {
    let parser = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern);
    let Ok(hir) = parser else { return 0 };
    let mut piece = Piece::of(&hir);
    let anchored = piece.take_start_anchor();
    if anchored {
        // What every match begins with is searched for apart, and the rest compiled without an anchor.
        piece.take_literal_start();
    }
    piece.take_end_anchor();
    let mut program = Program { code: vec![Code::Fail] };
    let end = program.push(Code::Match);
    let start = program.compile(&piece, end);
    if anchored && matches!(piece, Piece::Sequence(ref parts) if parts.is_empty()) && pattern.len() == 1 {
        return 2;
    }
    program.size(start)
}

/// An expression as RE2 compiles it.
#[derive(Debug, Clone, PartialEq)]
enum Piece {
    /// A set of bytes that takes this many ranges.
    Bytes(Vec<(u8, u8)>),
    StartAnchor,
    EndAnchor,
    OtherLook,
    Capture(Box<Self>),
    Sequence(Vec<Self>),
    Either(Vec<Self>),
    Star(Box<Self>),
    Plus(Box<Self>),
    Maybe(Box<Self>),
}

impl Piece {
    fn of(hir: &Hir) -> Self {
        match hir.kind() {
            HirKind::Empty => Self::Sequence(Vec::new()),
            HirKind::Literal(literal) => Self::Sequence(literal.0.iter().map(|&b| Self::Bytes(vec![(b, b)])).collect()),
            HirKind::Class(Class::Bytes(class)) => {
                Self::Bytes(class.ranges().iter().map(|range| (range.start(), range.end())).collect())
            }
            HirKind::Class(Class::Unicode(class)) => Self::Bytes(
                class
                    .ranges()
                    .iter()
                    .filter_map(|range| Some((u8::try_from(range.start()).ok()?, u8::try_from(range.end()).ok()?)))
                    .collect(),
            ),
            HirKind::Look(regex_syntax::hir::Look::Start) => Self::StartAnchor,
            HirKind::Look(regex_syntax::hir::Look::End) => Self::EndAnchor,
            HirKind::Look(_) => Self::OtherLook,
            HirKind::Capture(Capture { sub, .. }) => Self::Capture(Box::new(Self::of(sub))),
            HirKind::Concat(parts) => Self::sequence(parts.iter().map(Self::of)),
            HirKind::Alternation(parts) => Self::either(parts.iter().map(Self::of).collect()),
            HirKind::Repetition(Repetition { min, max, sub, .. }) => Self::repeated(&Self::of(sub), *min, *max),
        }
    }

    fn sequence(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut flat = Vec::new();
        for part in parts {
            match part {
                Self::Sequence(inner) => flat.extend(inner),
                other => flat.push(other),
            }
        }
        if flat.len() == 1 { flat.remove(0) } else { Self::Sequence(flat) }
    }

    fn parts(self) -> Vec<Self> {
        match self {
            Self::Sequence(parts) => parts,
            other => vec![other],
        }
    }

    /// Alternatives: neighbours that begin alike share that beginning, neighbours that are single bytes become a set.
    fn either(alternatives: Vec<Self>) -> Self {
        let mut grouped: Vec<(Option<Self>, Vec<Vec<Self>>)> = Vec::new();
        for alternative in alternatives {
            let parts = alternative.parts();
            let first =
                parts.first().filter(|first| matches!(first, Self::Bytes(ranges) if ranges.len() == 1)).cloned();
            match grouped.last_mut() {
                Some((shared, group)) if first.is_some() && *shared == first => group.push(parts),
                _ => grouped.push((first, vec![parts])),
            }
        }
        let mut factored: Vec<Self> = Vec::new();
        for (_, mut group) in grouped {
            let mut shared = Vec::new();
            if group.len() > 1 {
                while let Some(first) = group.first().and_then(|parts| parts.first()).cloned() {
                    if !matches!(&first, Self::Bytes(_)) || group.iter().any(|parts| parts.first() != Some(&first)) {
                        break;
                    }
                    for parts in &mut group {
                        parts.remove(0);
                    }
                    shared.push(first);
                }
                shared.push(Self::either(group.into_iter().map(Self::sequence).collect()));
                factored.push(Self::sequence(shared));
            } else if let Some(parts) = group.pop() {
                factored.push(Self::sequence(parts));
            }
        }
        let mut merged: Vec<Self> = Vec::new();
        for piece in factored {
            match (merged.last_mut(), piece) {
                (Some(Self::Bytes(ranges)), Self::Bytes(more)) => {
                    ranges.extend(more);
                    let set = regex_syntax::hir::ClassBytes::new(
                        ranges.iter().map(|&(low, high)| regex_syntax::hir::ClassBytesRange::new(low, high)),
                    );
                    *ranges = set.ranges().iter().map(|range| (range.start(), range.end())).collect();
                }
                (_, piece) => merged.push(piece),
            }
        }
        if merged.len() == 1 { merged.remove(0) } else { Self::Either(merged) }
    }

    fn repeated(sub: &Self, min: u32, max: Option<u32>) -> Self {
        let copies = |n: u32| (0..n).map(|_| sub.clone());
        let boxed = || Box::new(sub.clone());
        match (min, max) {
            (0, None) => Self::Star(boxed()),
            (1, None) => Self::Plus(boxed()),
            (min, None) => Self::sequence(copies(min - 1).chain([Self::Plus(boxed())])),
            (0, Some(0)) => Self::Sequence(Vec::new()),
            (min, Some(max)) => {
                let mut tail: Option<Self> = None;
                for _ in min..max {
                    let inner = match tail {
                        None => sub.clone(),
                        Some(tail) => Self::sequence([sub.clone(), tail]),
                    };
                    tail = Some(Self::Maybe(Box::new(inner)));
                }
                Self::sequence(copies(min).chain(tail))
            }
        }
    }

    fn take_start_anchor(&mut self) -> bool {
        let mut parts = std::mem::replace(self, Self::Sequence(Vec::new())).parts();
        let anchored = parts.first() == Some(&Self::StartAnchor);
        if anchored {
            parts.remove(0);
        }
        *self = Self::Sequence(parts);
        anchored
    }

    fn take_end_anchor(&mut self) {
        if let Self::Sequence(parts) = self
            && parts.last() == Some(&Self::EndAnchor)
        {
            parts.pop();
        }
    }

    fn take_literal_start(&mut self) {
        if let Self::Sequence(parts) = self {
            let literal = |piece: &Self| matches!(piece, Self::Bytes(ranges) if matches!(ranges[..], [(low, high)] if low == high));
            let length = parts.iter().take_while(|piece| literal(piece)).count();
            parts.drain(..length);
        }
    }

    fn can_be_empty(&self) -> bool {
        match self {
            Self::Bytes(_) => false,
            Self::StartAnchor | Self::EndAnchor | Self::OtherLook | Self::Star(_) | Self::Maybe(_) => true,
            Self::Capture(sub) | Self::Plus(sub) => sub.can_be_empty(),
            Self::Sequence(parts) => parts.iter().all(Self::can_be_empty),
            Self::Either(parts) => parts.iter().any(Self::can_be_empty),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Code {
    Fail,
    Match,
    /// Consumes a byte, notes a position or looks around, and goes on there.
    Step(usize),
    /// Goes on at either.
    Split(usize, usize),
}

struct Program {
    code: Vec<Code>,
}

impl Program {
    fn push(&mut self, code: Code) -> usize {
        self.code.push(code);
        self.code.len() - 1
    }

    /// Compiles a piece that goes on at `next`; the answer is where it begins.
    fn compile(&mut self, piece: &Piece, next: usize) -> usize {
        match piece {
            Piece::Bytes(ranges) => {
                let count = ranges_needed(ranges);
                let mut start = if count == 0 { 0 } else { self.push(Code::Step(next)) };
                for _ in 1..count {
                    let other = self.push(Code::Step(next));
                    start = self.push(Code::Split(other, start));
                }
                start
            }
            Piece::StartAnchor | Piece::EndAnchor | Piece::OtherLook => self.push(Code::Step(next)),
            Piece::Capture(sub) => {
                let close = self.push(Code::Step(next));
                let inner = self.compile(sub, close);
                self.push(Code::Step(inner))
            }
            Piece::Sequence(parts) => parts.iter().rev().fold(next, |next, part| self.compile(part, next)),
            Piece::Either(parts) => {
                let mut starts =
                    parts.iter().rev().map(|part| self.compile(part, next)).collect::<Vec<_>>().into_iter();
                let last = starts.next().unwrap_or(next);
                starts.fold(last, |rest, start| self.push(Code::Split(start, rest)))
            }
            Piece::Star(sub) if sub.can_be_empty() => {
                let plus = self.plus(sub, next);
                self.push(Code::Split(plus, next))
            }
            Piece::Star(sub) => {
                let split = self.push(Code::Fail);
                let start = self.compile(sub, split);
                self.set(split, Code::Split(start, next));
                split
            }
            Piece::Plus(sub) => self.plus(sub, next),
            Piece::Maybe(sub) => {
                let start = self.compile(sub, next);
                self.push(Code::Split(start, next))
            }
        }
    }

    fn plus(&mut self, sub: &Piece, next: usize) -> usize {
        let split = self.push(Code::Fail);
        let start = self.compile(sub, split);
        self.set(split, Code::Split(start, next));
        start
    }

    fn set(&mut self, at: usize, code: Code) {
        if let Some(place) = self.code.get_mut(at) {
            *place = code;
        }
    }

    /// The number of instructions when every place a step leads to gets a list of its own, with the unanchored start's two
    /// and the failing one.
    fn size(&self, start: usize) -> u32 {
        let mut roots: HashSet<usize> = HashSet::from([start]);
        let mut queue = vec![start];
        let mut reached = HashSet::new();
        while let Some(at) = queue.pop() {
            if !reached.insert(at) {
                continue;
            }
            match self.code.get(at) {
                Some(Code::Step(next)) => {
                    roots.insert(*next);
                    queue.push(*next);
                }
                Some(Code::Split(a, b)) => queue.extend([*a, *b]),
                _ => {}
            }
        }
        self.add_shared(&mut roots);
        let lists: usize = roots.iter().map(|&root| self.list(root, &roots)).sum();
        u32::try_from(lists + 3).unwrap_or(u32::MAX)
    }

    /// What splits of several lists lead to becomes a list of its own.
    fn add_shared(&self, roots: &mut HashSet<usize>) {
        let mut owners: Vec<Option<usize>> = vec![None; self.code.len()];
        let mut shared = HashSet::new();
        for &root in roots.iter() {
            let mut queue = vec![root];
            let mut seen = HashSet::new();
            while let Some(at) = queue.pop() {
                if (at != root && roots.contains(&at)) || !seen.insert(at) {
                    continue;
                }
                if let Some(owner) = owners.get_mut(at) {
                    match owner {
                        Some(other) if *other != root => {
                            shared.insert(at);
                            continue;
                        }
                        _ => *owner = Some(root),
                    }
                }
                if let Some(Code::Split(a, b)) = self.code.get(at) {
                    queue.extend([*a, *b]);
                }
            }
        }
        roots.extend(shared);
    }

    fn list(&self, root: usize, roots: &HashSet<usize>) -> usize {
        let mut length = 0;
        let mut queue = vec![root];
        let mut seen = HashSet::new();
        while let Some(at) = queue.pop() {
            if !seen.insert(at) {
                continue;
            }
            match self.code.get(at) {
                _ if at != root && roots.contains(&at) => length += 1,
                Some(Code::Split(a, b)) => queue.extend([*a, *b]),
                _ => length += 1,
            }
        }
        length
    }
}

/// How many range instructions a set takes: letters in both cases are one that ignores case.
fn ranges_needed(ranges: &[(u8, u8)]) -> usize {
    let folded = |&(low, high): &(u8, u8)| {
        low.is_ascii_lowercase()
            && high.is_ascii_lowercase()
            && ranges.contains(&(low.to_ascii_uppercase(), high.to_ascii_uppercase()))
    };
    ranges.len() - ranges.iter().filter(|range| folded(range)).count()
}

//! Finds the first route that matches without walking the list.
//!
//! Every route is filed once, under what its path condition fixes: exact paths by hash, prefixes and the literal starts of
//! regular expressions in a radix tree. A request meets a handful of files: its exact path's and those of the tree's
//! nodes along its path. In a large file, routes that need an exact header value are filed again under that value. Each
//! file lists routes in order; the lists met are merged, and routes are tried in the table's order until one matches.
//!
//! The index only says which routes *can* match; the route itself decides. So the answer is always the list's first match.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use filters::http::{HeaderKey, RequestHead};
use smallvec::SmallVec;

use super::matching::{MatchInput, PathMatch, is_connect, subject, without_parameters};
use super::table::Route;

/// Below this many routes a file is simply walked.
const SMALL: usize = 8;

/// Routes of one virtual host by what their paths fix.
#[derive(Debug, Default)]
pub(crate) struct RouteIndex {
    /// `None` for the few routes that are quicker walked.
    files: Option<Box<Files>>,
}

#[derive(Debug, Default)]
struct Files {
    /// Exact paths.
    exact: ByText<File>,
    /// Starts of paths.
    starts: Tree,
    /// The same for routes that ignore case, keys in lower case; `None` when there are none.
    folded: Option<Box<(ByText<File>, Tree)>>,
    /// Routes for CONNECT.
    connect: File,
}

/// Routes, by number, that share a path condition.
#[derive(Debug, Default)]
struct File {
    /// Those without a telling header.
    plain: Vec<u32>,
    /// Those that need one exact value of a header.
    by_header: Vec<(HeaderKey, ByText<Vec<u32>>)>,
}

type ByText<T> = HashMap<Box<[u8]>, T>;

/// Lists of route numbers that a request met, each ascending.
type Met<'i> = SmallVec<[&'i [u32]; 12]>;

impl RouteIndex {
    /// Files the routes of a virtual host.
    pub(crate) fn new(routes: &[Arc<Route>]) -> Self {
        if routes.len() <= SMALL {
            return Self::default();
        }
        Self { files: Some(Box::new(Files::new(routes))) }
    }

    /// The first route that matches, with its number.
    pub(crate) fn find<'r>(
        &self,
        routes: &'r [Arc<Route>],
        head: &RequestHead,
        input: &MatchInput<'_>,
        ignore_parameters: bool,
    ) -> Option<(u32, &'r Arc<Route>)> {
        let subject =
            if ignore_parameters { without_parameters(&head.path) } else { Cow::Borrowed(subject(&head.path)) };
        let subject = &subject[..];
        let test = |number: u32| {
            let route = routes.get(number as usize)?;
            route.matcher.matches(head, subject, input).then_some((number, route))
        };
        let Some(files) = &self.files else {
            return (0..).take(routes.len()).find_map(test);
        };
        let mut met = Met::new();
        files.meet(head, subject, &mut met);
        in_order(met, test)
    }
}

/// Tries the numbers of all lists in ascending order until one gives something.
fn in_order<T>(mut met: Met<'_>, test: impl Fn(u32) -> Option<T>) -> Option<T> {
    if let [list] = met[..] {
        return list.iter().find_map(|&number| test(number));
    }
    loop {
        let mut lowest: Option<(u32, &mut &[u32])> = None;
        for list in &mut met {
            let Some(&head) = list.first() else { continue };
            if lowest.as_ref().is_none_or(|(number, _)| head < *number) {
                lowest = Some((head, list));
            }
        }
        let (number, list) = lowest?;
        *list = list.get(1..).unwrap_or_default();
        if let Some(found) = test(number) {
            return Some(found);
        }
    }
}

impl Files {
    fn new(routes: &[Arc<Route>]) -> Self {
        let mut files = Self::default();
        for (number, route) in (0..).zip(routes) {
            let file = match &route.matcher.path {
                PathMatch::Connect => &mut files.connect,
                PathMatch::Exact { text, ignore_case: false } => files.exact.entry(text.clone()).or_default(),
                PathMatch::Exact { text, ignore_case: true } => {
                    files.folded.get_or_insert_default().0.entry(text.clone()).or_default()
                }
                PathMatch::Prefix { text, ignore_case } | PathMatch::SeparatedPrefix { text, ignore_case } => {
                    let tree =
                        if *ignore_case { &mut files.folded.get_or_insert_default().1 } else { &mut files.starts };
                    tree.file(text)
                }
                PathMatch::Regex(regex) => files.starts.file(regex.literal_prefix()),
                PathMatch::Template(template) => files.starts.file(template.literal_prefix()),
            };
            file.plain.push(number);
        }
        for file in files.all_mut() {
            file.split(routes);
        }
        files
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut File> {
        let folded = self.folded.iter_mut().flat_map(|folded| {
            let (exact, tree) = &mut **folded;
            exact.values_mut().chain(tree.files_mut())
        });
        self.exact.values_mut().chain(self.starts.files_mut()).chain(std::iter::once(&mut self.connect)).chain(folded)
    }

    fn meet<'i>(&'i self, head: &RequestHead, subject: &[u8], met: &mut Met<'i>) {
        if is_connect(head) {
            self.connect.meet(head, met);
        }
        if head.path.is_empty() {
            return;
        }
        if let Some(file) = self.exact.get(subject) {
            file.meet(head, met);
        }
        self.starts.walk(subject, |file| file.meet(head, met));
        if let Some(folded) = &self.folded {
            let lower: SmallVec<[u8; 256]> = subject.iter().map(u8::to_ascii_lowercase).collect();
            if let Some(file) = folded.0.get(&lower[..]) {
                file.meet(head, met);
            }
            folded.1.walk(&lower, |file| file.meet(head, met));
        }
    }
}

impl File {
    fn meet<'i>(&'i self, head: &RequestHead, met: &mut Met<'i>) {
        if !self.plain.is_empty() {
            met.push(&self.plain);
        }
        for (key, by_value) in &self.by_header {
            let mut meet = |value: &[u8]| met.extend(by_value.get(value).map(|list| &list[..]));
            match key {
                HeaderKey::Name(name) => {
                    // A repeated value would only meet the same list again.
                    for value in head.headers.values(name) {
                        meet(value);
                    }
                }
                pseudo => {
                    if let Some(value) = head.value(pseudo) {
                        meet(value);
                    }
                }
            }
        }
    }

    /// In a large file, moves routes that need an exact header value under that value; of several such headers, under
    /// the one with the most distinct values.
    fn split(&mut self, routes: &[Arc<Route>]) {
        if self.plain.len() <= SMALL {
            return;
        }
        let exact = |number: u32| {
            let headers = routes.get(number as usize).map(|route| &route.matcher.headers[..]).unwrap_or_default();
            headers.iter().filter_map(|matcher| Some((matcher.key(), matcher.exact_value()?)))
        };
        let mut values: HashMap<&HeaderKey, HashMap<&[u8], u32>> = HashMap::new();
        for (key, value) in self.plain.iter().flat_map(|&number| exact(number)) {
            *values.entry(key).or_default().entry(value).or_default() += 1;
        }
        let mut plain = Vec::new();
        for &number in &self.plain {
            let telling = exact(number)
                .filter(|(key, _)| values.get(key).is_some_and(|values| values.len() > 1))
                .max_by_key(|(key, _)| values.get(key).map_or(0, HashMap::len));
            let Some((key, value)) = telling else {
                plain.push(number);
                continue;
            };
            let at = self.by_header.iter().position(|(other, _)| other == key).unwrap_or_else(|| {
                self.by_header.push((key.clone(), HashMap::new()));
                self.by_header.len() - 1
            });
            if let Some((_, by_value)) = self.by_header.get_mut(at) {
                by_value.entry(value.into()).or_default().push(number);
            }
        }
        self.plain = plain;
    }
}

/// A radix tree from starts of paths to files.
#[derive(Debug)]
struct Tree {
    nodes: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// The bytes between the parent and this node.
    segment: Box<[u8]>,
    /// First bytes of the children's segments with their numbers, ascending.
    children: Vec<(u8, u32)>,
    file: Option<Box<File>>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl Tree {
    /// The file of the paths that start with `key`.
    fn file(&mut self, mut key: &[u8]) -> &mut File {
        let mut at = 0;
        while let Some(&first) = key.first() {
            let found = self.nodes[at].children.binary_search_by_key(&first, |(byte, _)| *byte);
            let child = match found {
                Ok(place) => self.nodes[at].children[place].1 as usize,
                Err(place) => {
                    let new = self.push(Node { segment: key.into(), ..Node::default() });
                    self.nodes[at].children.insert(place, (first, new));
                    at = new as usize;
                    break;
                }
            };
            let segment = &self.nodes[child].segment;
            let common = segment.iter().zip(key).take_while(|(a, b)| a == b).count();
            if common < segment.len() {
                self.cut(child, common);
            }
            key = &key[common..];
            at = child;
        }
        self.nodes[at].file.get_or_insert_default()
    }

    /// Splits a node after `length` bytes of its segment; what it had moves to a new child.
    fn cut(&mut self, node: usize, length: usize) {
        let node_ref = &mut self.nodes[node];
        let (upper, lower) = node_ref.segment.split_at(length);
        let (upper, lower): (Box<[u8]>, Box<[u8]>) = (upper.into(), lower.into());
        let first = lower[0];
        let moved =
            Node { segment: lower, children: std::mem::take(&mut node_ref.children), file: node_ref.file.take() };
        node_ref.segment = upper;
        let child = self.push(moved);
        self.nodes[node].children.push((first, child));
    }

    fn push(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
    }

    fn files_mut(&mut self) -> impl Iterator<Item = &mut File> {
        self.nodes.iter_mut().filter_map(|node| node.file.as_deref_mut())
    }

    /// Visits the files of every start of `path`.
    fn walk<'t>(&'t self, mut path: &[u8], mut visit: impl FnMut(&'t File)) {
        let mut node = &self.nodes[0];
        loop {
            if let Some(file) = &node.file {
                visit(file);
            }
            let Some(first) = path.first() else { return };
            let Ok(place) = node.children.binary_search_by_key(first, |(byte, _)| *byte) else { return };
            let Some(child) = self.nodes.get(node.children[place].1 as usize) else { return };
            let Some(rest) = path.strip_prefix(&child.segment[..]) else { return };
            path = rest;
            node = child;
        }
    }
}

#[cfg(test)]
mod tests;
